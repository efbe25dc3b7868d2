"""The process in which math-verify compares formulas: this file alone; it imports nothing of the project.

It reads one JSON pair of formulas a line and writes one letter a line: `y` the same, `n` not, `?` undecided. Each pair
is compared in a fork of its own, so that no comparison finds what an earlier one left behind. The limit is on the
number of function calls, which hangs on the pair alone; CPU seconds and memory only catch what makes no calls.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections import Counter
from types import FrameType
from typing import Any

SAME, DIFFERENT, UNDECIDED = b"y\n", b"n\n", b"?\n"
_MEMORY_BYTES = 3 << 30
_MAX_CALLS = 1_000_000
_CPU_SECONDS = 3.0
_TRIES = 2
_WARM_UP = ((r"\int_0^1 x^2 dx", r"\frac{1}{3}"), (r"\sum_{n=1}^{3} n", "6"), (r"\lim_{x \to 0} x", "0"))
_SIGN = re.compile(r"[0-9]+(?:\.[0-9]+)?|\\?[A-Za-z]+|[!|]")
_LAYOUT = frozenset((
    r"\frac", r"\left", r"\right", r"\cdot", r"\times", r"\limits", r"\,", r"\mathrm", r"\text", r"\operatorname",
    r"\big",
))  # fmt: skip


class _TooMuch(BaseException):
    """More calls than a comparison may make."""


def signs(text: str) -> Counter[str]:
    """What a formula is made of: its numbers, letters and functions, however they are laid out."""
    counts: Counter[str] = Counter()
    for piece in _SIGN.findall(text):
        if piece in _LAYOUT:
            continue
        counts.update([piece] if piece[0] in "\\!|" or piece[0].isdigit() else list(piece))
    return counts


def read(text: str) -> Any:
    """What math-verify reads in a formula; None where that, printed again, is not what was given."""
    from math_verify import parse
    from sympy import latex
    from sympy.core.basic import Basic

    parsed = parse(f"${text}$", parsing_timeout=None)
    formulas = [item for item in parsed if isinstance(item, Basic)]
    return parsed if formulas and signs(latex(formulas[0])) == signs(text) else None


def verdict(first: str, second: str) -> bytes:
    """Whether two formulas are the same to math-verify, where both were read to their last sign."""
    from math_verify import verify

    left, right = read(first), read(second)
    if left is None or right is None:
        return DIFFERENT
    both_ways = ((left, right), (right, left))
    return SAME if any(verify(a, b, timeout_seconds=None) for a, b in both_ways) else DIFFERENT


def _limited(first: str, second: str) -> bytes:
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > _MAX_CALLS:
            sys.setprofile(None)
            raise _TooMuch

    sys.setprofile(count)
    try:
        return verdict(first, second)
    except Exception:
        return DIFFERENT  # a formula that math-verify cannot read is one that it did not read
    finally:
        sys.setprofile(None)


def _in_a_fork(first: str, second: str) -> bytes:
    """The verdict of a process that ends with it; undecided where it ended before."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)  # its signal is left at its default: it ends the process
        found = UNDECIDED
        try:
            found = _limited(first, second)
        except (_TooMuch, MemoryError):
            pass
        finally:
            os.write(sending, found)
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(child, 0)
    return found if status == 0 and found in (SAME, DIFFERENT, UNDECIDED) else b""


def main() -> None:
    """Warm up, then serve until the input ends."""
    import resource

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's affair, who then closes our input
    for pair in _WARM_UP:
        verdict(*pair)
    os.write(1, SAME)
    for line in sys.stdin.buffer:
        pair = json.loads(line)
        # One that was ended from outside is tried once more before it is given up.
        found = next((answer for _ in range(_TRIES) if (answer := _in_a_fork(*pair))), UNDECIDED)
        os.write(1, found)


if __name__ == "__main__":
    main()
