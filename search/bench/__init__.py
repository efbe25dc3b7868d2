"""Measurements: each module has a `run` that returns one object with flat `figures`."""
