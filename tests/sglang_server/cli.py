"""The real command line, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.code == 0, self.err
        return json.loads(self.out)


def say(text):
    """A measured figure, where it is seen whatever pytest does with output."""
    sys.__stderr__.write(f"\n{text}\n")


def ets(*args, cwd=None, timeout=400):
    """Run `ets` with these arguments, in an empty folder where none is named."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-m", "search.cli", *map(str, args)],
            cwd=cwd or empty, capture_output=True, text=True, timeout=timeout, env=dict(os.environ), check=False,
        )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)
