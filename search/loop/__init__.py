"""The loop of every search: select, write, score, until nothing is left to do."""
