"""The real command line, as a person runs it: its own process, its own exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


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
