"""math-verify behind a door: formulas that the reading does not cover, compared in a process of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue

from search.answers.values import Verdict
from search.errors import ConfigError, SearchError
from search.support.extras import install_packages

_WALL_SECONDS = 120.0
_START_SECONDS = 300.0
_MAX_CHARS = 300
_FORMULA = re.compile(
    r"\\(?:int|iint|oint|sum|prod|lim|log|ln|frac|partial|infty|max|min|gcd|sqrt|sin|cos|tan|mathcal|vec|overline)(?![A-Za-z])"
)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_HEAVY = re.compile(r"[0-9]{12}|[0-9]{3,}\s?!|![^=]*!|\^[^^]*\^[^^]*\^|\^\s?\{?\s?[0-9]{4}|\\binom\s?\{?[0-9]{5}")
_VERDICTS = {b"y\n": Verdict.SAME, b"n\n": Verdict.DIFFERENT, b"?\n": Verdict.UNDECIDED}


def is_formula(notation: str) -> bool:
    """Whether a text that was not read is one to ask math-verify about: a formula, with no words, of ordinary size."""
    return len(notation) <= _MAX_CHARS and _FORMULA.search(notation) is not None and _WORDS.search(notation) is None


def is_heavy(notation: str) -> bool:
    """Whether a formula is beyond what a comparison may cost, by its looks."""
    return _HEAVY.search(notation) is not None


class Symbolic:
    """The process; it is started by the first comparison and replaced where it died. Several threads may share it.

    Raises:
        ConfigError: math-verify is not installed, or this system cannot fork.
    """

    def __init__(self) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError(f"grader math needs math-verify: {install_packages('math-verify')}, or --grader plain")
        if sys.platform == "win32":
            raise ConfigError("grader math needs a system that can fork; accepted here: plain, integer, choice, exact")
        self.num_asked = 0
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def compare(self, left: str, right: str) -> Verdict:
        """Whether two formulas are the same; undecided where that takes more work than is allowed."""
        if is_heavy(left) or is_heavy(right):
            return Verdict.UNDECIDED
        first, second = sorted((left, right))
        with self._lock:
            self.num_asked += 1
            for _ in range(2):
                if self._worker is None:
                    self._worker = _Worker()
                verdict = self._worker.ask(first, second)
                if verdict is not None:
                    return verdict
                self._worker.close()
                self._worker = None
        return Verdict.UNDECIDED

    def close(self) -> None:
        """End the process; the next comparison starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None


class _Worker:
    """The process, and the thread that reads its answers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("symbolic_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The order of a set of names must not enter a verdict.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        reader = threading.Thread(target=_read, args=(self._process, self._answers), daemon=True)
        reader.start()
        self.close = weakref.finalize(self, _end, self._process, reader)
        if self._next(_START_SECONDS) != b"y\n":
            self.close()
            raise SearchError("the process that compares answers did not start; --grader plain does without it")

    def ask(self, left: str, right: str) -> Verdict | None:
        """The verdict; None where the process is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([left, right]).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return _VERDICTS.get(self._next(_WALL_SECONDS))

    def _next(self, seconds: float) -> bytes:
        try:
            return self._answers.get(timeout=seconds)
        except Empty:
            return b""


def _read(process: subprocess.Popen[bytes], answers: SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put(b"")


def _end(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    """Close the input, which ends the process; then what still runs."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if reader is not threading.current_thread():
        reader.join(timeout=2)
    process.stdout.close()
