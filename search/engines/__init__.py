"""Engines: what runs a model. Nothing is imported here: a backend is loaded when it is asked for."""
