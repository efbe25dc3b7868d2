"""The process in which answers are compared: this file and its CPU seconds; it imports nothing of the project.

It reads one JSON pair of answers a line and writes one letter a line: `y` the same, `n` not, `?` undecided. The work is
done in a fork: where an expression eats up its CPU seconds, the kernel ends the fork, and the next one stands ready
with all imports done. CPU seconds and not wall seconds, so that a busy machine does not change a grade.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from functools import lru_cache
from typing import Any

SAME, DIFFERENT, UNDECIDED = b"y\n", b"n\n", b"?\n"
_MEMORY_BYTES = 4 << 30
_WARM_UP = (
    ("\\frac{1}{2}", "0.5"),
    ("(1, 2]", "[1,2)"),
    ("x^2", "x \\cdot x"),
    ("\\{1, 2\\}", "1,2"),
    ("\\sqrt{8}", "x"),
)


@lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    from math_verify import parse

    return parse(f"${text}$", parsing_timeout=None)


def same(one: str, other: str) -> bool:
    """Whether two answers are equal to `math_verify`, whichever of them is the reference."""
    from math_verify import verify

    left, right = _parsed(one), _parsed(other)
    return any(verify(a, b, timeout_seconds=None) for a, b in ((left, right), (right, left)))


def _serve(cpu_seconds: float) -> None:
    """Answer until the input ends."""
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its signal is left at its default: it ends the process
        try:
            verdict = SAME if same(*json.loads(line)) else DIFFERENT
        except Exception:  # whatever a library does with hostile text, there is an answer for it
            verdict = UNDECIDED
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(verdict)
        sys.stdout.buffer.flush()


def main() -> None:
    """Warm up, then serve; a fork that was ended is replaced."""
    import resource

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's affair, who then closes our input
    for pair in _WARM_UP:
        same(*pair)
    os.write(1, SAME)
    while True:
        child = os.fork()
        if child == 0:
            _serve(float(sys.argv[1]))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        os.write(1, UNDECIDED)


if __name__ == "__main__":
    main()
