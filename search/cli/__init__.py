"""The command line: `ets`."""

from search.cli.main import main

__all__ = ["main"]
