r"""Grading of real mathematics: fractions, radicals, intervals, sets, units, percentages, through `math-verify`.

What is equal as text or as a number is settled here; all else is compared in a process of its own, with a limit on its
CPU seconds, so that no expression can hang a run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import ClassVar

from search.answers import MAX_ANSWER_CHARS, read_answer, stated_answer
from search.errors import ConfigError, SearchError
from search.grade import canonical_answer

CPU_SECONDS = 0.8
"""For one comparison; ordinary ones take a hundredth of it."""

_WALL_SECONDS = 30.0
_START_SECONDS = 300.0
_PROBE = "\\frac{12345}{6789}"
"""An easy answer that no other is equal to: what cannot be compared with it cannot be compared with anything."""

_MAX_CHARS = 1000
"""Longer answers are compared as text alone."""

_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]{1,3})")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?([0-9]+)\}?")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_QUANTITY = re.compile(
    r"(?P<number>(?:\\?\$)?\s*[+-]?[0-9][0-9,.]*(?:\s*/\s*[0-9]+)?)"
    r"(?:\s+(?P<word>[A-Za-z]{3,}[A-Za-z./ ]*)|[\s~\\,]*\\(?:text|mathrm|mbox)\s*\{\s*(?P<text>[A-Za-z][A-Za-z./ ]*)\})"
    r"(?:\^\{?[23]\}?)?\.?"
)
_CLOCK = re.compile(r"(?:[ap]\.?m\.?|o'?clock)", re.IGNORECASE)
_POWERS = re.compile(
    r"(?:hundred|thousand|million|billion|trillion|dozen|percent|factorial|pi|or|and)\b", re.IGNORECASE
)
_MONEY = re.compile(r"^\\?\$\s*(?=[0-9+-])")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9 ,'-]*")
_ASIDE = re.compile(r",\s+(?:as|which|since|so|because|and so)\s.*", re.DOTALL)
_ROW_END = re.compile(r"\\\\\s+")
_UNFINISHED = re.compile(r"[-+*/=^_(\[{\\,]$|^[*/=^_)\]},]")
_SPACES = re.compile(r"\\[,;:! ]|[\s~]+")


class MathGrader:
    """Answers by value: 1/2 is 0.5, 5 sqrt 2 is sqrt 50, {1, 2} is {2, 1}, 12 cm is 12, x = 5 is 5.

    50% is 50 and 0.5 both, as data sets write either. A grader may be used from several threads at once.

    Attributes:
        num_undecided: comparisons that were given up; such answers count as different.
    """

    name: ClassVar[str] = "math"

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        """Start nothing yet.

        Args:
            cpu_seconds: of one comparison.

        Raises:
            ConfigError: math-verify is not installed, or this system cannot fork.
        """
        if find_spec("math_verify") is None:
            raise ConfigError("grader math needs math-verify: pip install math-verify, or --grader plain")
        if sys.platform == "win32":
            raise ConfigError("grader math needs a system that can fork; accepted here: plain, integer")
        self.num_undecided = 0
        self._cpu_seconds = cpu_seconds
        self._worker: _Worker | None = None
        self._hopeless: set[str] = set()
        self._lock = threading.Lock()

    def extract(self, text: str) -> str | None:
        """As `read_answer`."""
        return read_answer(text)

    def key(self, answer: str) -> str:
        """A form that is equal for answers which differ in writing alone; see `equivalent` for the rest."""
        return _tidy(answer)

    def equivalent(self, one: str, other: str) -> bool:
        """Whether two answers have the same value."""
        left, right = _tidy(one), _tidy(other)
        if left == right:
            return left != ""
        if not left or not right or max(len(left), len(right)) > _MAX_CHARS:
            return False
        percent = "%" in one or "%" in other
        if not percent and _DECIMAL.fullmatch(left) and _DECIMAL.fullmatch(right):
            return False
        if any(_is_word(text) for text in (one, other)) or any(_BASE.fullmatch(text) for text in (left, right)):
            return False  # words, and numbers to a base, are what they are written as
        if any(_UNFINISHED.search(text) for text in (left, right)):
            return False
        if percent:
            left, right = (_with_percent(text, plain) for text, plain in ((one, left), (other, right)))
        return self._compare(left, right)

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether an answer has the reference's value; a reference may be a whole solution."""
        if answer is None:
            return False
        known = stated_answer(reference)
        return self.equivalent(answer, reference) or (known is not None and self.equivalent(answer, known))

    def close(self) -> None:
        """End the process; the next comparison starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def _compare(self, one: str, other: str) -> bool:
        with self._lock:
            verdict = None if {one, other} & self._hopeless else self._ask(one, other)
            if verdict is None:
                self.num_undecided += 1
                # Whichever of the two is at fault is asked about once more and then never again.
                fresh = {one, other} - self._hopeless
                self._hopeless |= {text for text in fresh if len(fresh) == 2 and self._ask(text, _PROBE) is None}
            return verdict is True

    def _ask(self, one: str, other: str) -> bool | None:
        """None where it was given up."""
        if self._worker is None:
            self._worker = _Worker(self._cpu_seconds)
        verdict = self._worker.ask(one, other)
        if verdict == "gone":
            self._worker.close()
            self._worker = None
        return verdict if isinstance(verdict, bool) else None


class _Worker:
    """The process behind a grader, and the thread that reads its answers."""

    def __init__(self, cpu_seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py")), str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        reader = threading.Thread(target=_read, args=(self._process, self._answers), daemon=True)
        reader.start()
        self.close = weakref.finalize(self, _end, self._process, reader)
        if self._next(_START_SECONDS) != b"y\n":
            self.close()
            raise SearchError("the process that compares answers did not start; --grader plain does without it")

    def ask(self, one: str, other: str) -> bool | str:
        """True, False, "undecided", or "gone" where the process itself is."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([one, other]).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return "gone"
        verdicts: dict[bytes, bool | str] = {b"y\n": True, b"n\n": False, b"?\n": "undecided"}
        return verdicts.get(self._next(_WALL_SECONDS), "gone")

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
    """Close the input, which ends the process and its fork; then what still runs."""
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


def _tidy(answer: str) -> str:
    r"""The canonical form of `PlainGrader`, with units, \text and the letters' case of plain words taken away."""
    text = _MONEY.sub("", _ASIDE.sub("", answer[:MAX_ANSWER_CHARS].strip()))
    quantity = _QUANTITY.fullmatch(text)
    if quantity is not None:
        unit = quantity["word"] or quantity["text"]
        text = text if _CLOCK.match(unit) or _POWERS.match(unit) else quantity["number"]
    text = text.replace("\\left", "").replace("\\right", "") if "\\left" in text else text
    if _is_word(text):
        return _word(text)
    text = canonical_answer(_ROW_END.sub(r"\\\\", text))  # else a space after a row's end would be LaTeX's "\ "
    power = _SCIENTIFIC.fullmatch(text)
    if power is not None:
        text = _shifted(power[1], int(power[2]))
    based = _BASE.fullmatch(text)
    return f"{based[1]}_{based[2]}" if based is not None else text


def _is_word(answer: str) -> bool:
    """Whether an answer is words of at least two letters each, such as a name, and no formula."""
    text = _word(answer)
    return len(text) > 1 and _WORD.fullmatch(text) is not None and any(len(part) > 3 for part in text.split())


def _word(answer: str) -> str:
    text = _TEXT.sub(r"\1", answer.strip().strip("$"))
    return _SPACES.sub(" ", text).strip(" .").casefold()


def _with_percent(answer: str, tidy: str) -> str:
    return f"{tidy}\\%" if "%" in answer else tidy


def _shifted(number: str, power: int) -> str:
    """A decimal number times a power of ten, on its digits."""
    from decimal import Decimal

    return canonical_answer(format(Decimal(number).scaleb(power), "f"))
