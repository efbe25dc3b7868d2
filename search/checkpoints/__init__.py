"""Checkpoints on disk: where they lie, what a .gguf file says of itself, and which weights they hold."""
