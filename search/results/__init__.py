"""What is handed to a person and kept on disk of a search."""
