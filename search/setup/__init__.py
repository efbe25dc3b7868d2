"""From settings to running parts: defaults settled, models loaded, writers put together."""
