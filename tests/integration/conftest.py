"""The real command line: `ets` in a process of its own, as a person runs it, and `inside` in this one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from serve_client import ets_serve

from search.cli.main import main


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


@pytest.fixture
def inside(tmp_path, monkeypatch, capsys):
    """As `ets`, in this process: the same command line without the seconds that a start takes."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        shown = capsys.readouterr()
        return Ran(ended.value.code, shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def server():
    """One `ets serve` with the mini family, for all tests that need no settings of their own."""
    with ets_serve("--width", 4, "--max-width", 16, "--max-concurrent", 16, "--max-queue", 64) as running:
        yield running
