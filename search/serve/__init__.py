"""`ets serve`: an OpenAI-compatible server whose answers are searched."""
