"""A Hugging Face checkpoint or .gguf file as transformers reads it: what every engine, and training, needs of it."""
