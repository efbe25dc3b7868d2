"""The real command line: `ets` in a process of its own, as a person runs it."""

import os
import subprocess
import sys

import pytest
from ran import Ran
from serve_client import ets_serve


@pytest.fixture
def ets(tmp_path):
    """Run `ets` with these arguments in an empty folder."""

    def run(*args, stdin="", env=None, timeout=240):
        done = subprocess.run(
            [sys.executable, "-m", "search.cli", *map(str, args)],
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def server():
    """One `ets serve` with the mini family, for all tests that need no settings of their own."""
    with ets_serve("--width", 4, "--max-width", 16, "--max-concurrent", 16, "--max-queue", 64) as running:
        yield running
