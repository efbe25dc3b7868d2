"""math-verify as a grader of its own, to lay beside ours; it keeps its own rules, and its own faults."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

from search.answers.graders import AnswerReader
from search.errors import ConfigError
from search.support.extras import install_packages

_SECONDS = 5


class MathVerifyGrader(AnswerReader):
    """What `math_verify.verify` says of a reference and an answer, as its documentation calls it.

    Raises:
        ConfigError: math-verify is not installed.
    """

    name: ClassVar[str] = "math-verify"

    def __init__(self) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError(f"--against math-verify needs it: {install_packages('math-verify')}")

    def key(self, answer: str) -> str:
        """The answer stripped."""
        return answer.strip()

    def correct(self, answer: str | None, reference: str) -> bool | None:
        """Its verdict, in the main thread alone; None where it ran out of its time."""
        from math_verify import verify
        from math_verify.errors import TimeoutException

        if answer is None:
            return False
        try:
            gold, target = (_parsed(text) for text in (reference, answer))
            return bool(verify(gold, target, timeout_seconds=_SECONDS))
        except TimeoutException:
            return None


def _parsed(text: str) -> Any:
    from math_verify import parse

    return parse(text if "$" in text or "\\boxed" in text else f"${text}$", parsing_timeout=_SECONDS)
