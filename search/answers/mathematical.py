"""Grading of real mathematics: answers are read as typed values and compared by their types.

math-verify is asked about formulas alone that the reading does not cover (integrals, sums, limits), and its word counts
only where it read both sides to their last sign. What neither reads is equal to the same text alone.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import ClassVar

from search.answers.compare import rational, same_value, within
from search.answers.graders import AnswerReader
from search.answers.notation import one_notation
from search.answers.reader import stated_answer
from search.answers.reading import canonical_text, read_value
from search.answers.structures import half_unit
from search.answers.symbolic import Symbolic, is_formula
from search.answers.values import Approximate, Expression, Relation, Text, Verdict, any_of

_MAX_KEPT = 10_000


class MathGrader(AnswerReader):
    """Answers by value: 1/2 is 0.5, 5 sqrt 2 is sqrt 50, {1, 2} is {2, 1}, 12 cm is 12 but not 12 m, x = 5 is 5.

    A verdict hangs on the two answers alone: not on what was compared before, on the load or on the thread. See the
    documentation's page on grading for all that counts as equal. A grader may be used from several threads at once.

    Attributes:
        num_undecided: comparisons that would have taken too much work; such answers are neither right nor wrong.
        num_compared: comparisons of answers whose texts differ.
        num_symbolic: those of them that were put to math-verify.

    Raises:
        ConfigError: math-verify is not installed, or this system cannot fork.
    """

    name: ClassVar[str] = "math"

    def __init__(self) -> None:
        """Start nothing yet."""
        self.num_undecided = 0
        self.num_compared = 0
        self._symbolic = Symbolic()
        self._compared = lru_cache(_MAX_KEPT)(self._compare)
        self._lock = Lock()

    @property
    def num_symbolic(self) -> int:
        """Comparisons that were put to math-verify."""
        return self._symbolic.num_asked

    def key(self, answer: str) -> str:
        """The exact number that an answer is, or its text in one notation; see `equivalent` for the rest."""
        value = rational(read_value(answer))
        return canonical_text(answer) if value is None else str(value)

    def compare(self, first: str, second: str) -> Verdict:
        """Whether two answers are the same: symmetric, and the same verdict at any time."""
        left, right = canonical_text(first), canonical_text(second)
        if left == right:
            return Verdict.SAME if left else Verdict.DIFFERENT
        if not left or not right:
            return Verdict.DIFFERENT
        verdict = self._compared(*sorted((first, second)))
        with self._lock:
            self.num_compared += 1
            self.num_undecided += verdict is Verdict.UNDECIDED
        return verdict

    def equivalent(self, first: str, second: str) -> bool:
        """Whether two answers are known to be the same."""
        return self.compare(first, second) is Verdict.SAME

    def judge(self, answer: str | None, reference: str) -> Verdict:
        """Whether an answer is the reference; a reference may be a whole solution, or say that it is approximate."""
        if answer is None:
            return Verdict.DIFFERENT
        stated = stated_answer(reference)
        return any_of(
            self._against(answer, expected)
            for expected in (reference, stated)
            if expected is not None and expected != ""
        )

    def correct(self, answer: str | None, reference: str) -> bool | None:
        """As `judge`: None where it is undecided."""
        verdict = self.judge(answer, reference)
        return None if verdict is Verdict.UNDECIDED else verdict is Verdict.SAME

    def close(self) -> None:
        """End math-verify's process; a comparison that needs it starts another."""
        self._symbolic.close()

    def _against(self, answer: str, reference: str) -> Verdict:
        verdict = self.compare(answer, reference)
        expected = read_value(reference)
        if verdict is Verdict.DIFFERENT and isinstance(expected, Approximate):
            half = half_unit(one_notation(reference))
            if half is not None and within(read_value(answer), expected, half):
                return Verdict.SAME
        return verdict

    def _compare(self, first: str, second: str) -> Verdict:
        left, right = read_value(first), read_value(second)
        verdict = same_value(left, right)
        if verdict is not Verdict.DIFFERENT:
            return verdict
        notations = one_notation(first), one_notation(second)
        unread = [
            isinstance(value, Text) and is_formula(text) for value, text in zip((left, right), notations, strict=True)
        ]
        formulas = [
            said or isinstance(value, Expression | Relation) for said, value in zip(unread, (left, right), strict=True)
        ]
        return self._symbolic.compare(*notations) if any(unread) and all(formulas) else Verdict.DIFFERENT
