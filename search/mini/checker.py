"""The exact checker of every step of a solution to a mini problem.

A step is *right* if it is a valid next step from the stated values before it, its arithmetic included; a path is right
*so far* if all its steps are. The checker follows what a solution states, so a step that goes on correctly from a wrong
value is right although its path is not. Any text is accepted: what cannot be read is a wrong step of kind ``FORMAT``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from search.mini.problems import MiniProblem, Operation, apply
from search.mini.solutions import Fault, can_split, direct_slip, slipped_result
from search.mini.wording import (
    ANSWER_PREFIX,
    ANSWER_SUFFIX,
    CONNECTORS,
    MISREAD_SIGN,
    SIGN,
    STEP_SEPARATOR,
    TIMES_SIGN,
    TRAPS,
    WORDING_OF_VERB,
    OpKind,
)

_NUMBER = r"(\d{1,6})"
_CONNECTOR = f"(?:{'|'.join(CONNECTORS)})"
_EQUATION = rf"{_NUMBER} ([+\-{TIMES_SIGN}]) {_NUMBER} = {_NUMBER}"
_STEP = re.compile(
    rf"([A-Z][a-z]+) (([a-z]+) [a-z0-9 ]+?)"
    rf"(?:, {_NUMBER} {TIMES_SIGN} {_NUMBER} = {_NUMBER})?"
    rf"(, first(?: {_NUMBER}, {_CONNECTOR})?|, {_CONNECTOR}) {_EQUATION}\."
)
_ANSWER = re.compile(rf"{re.escape(ANSWER_PREFIX)}{_NUMBER}{re.escape(ANSWER_SUFFIX)}")


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """What the checker says of one step.

    Attributes:
        right: whether the step is right given the stated values before it.
        so_far: whether it and all steps before it are right.
        fault: why it is wrong; None where it is right.
        is_answer: whether it states the answer.
    """

    right: bool
    so_far: bool
    fault: Fault | None = None
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker says of a solution.

    Attributes:
        steps: one verdict a step, in order.
        answer: the stated answer, or None where no step states one.
        correct: whether the stated answer is the problem's; a path with errors may still end on it by chance.
    """

    steps: tuple[StepVerdict, ...]
    answer: str | None
    correct: bool


def split_steps(text: str) -> list[str]:
    """The steps of a solution's text: cut at blank lines, empty pieces left out."""
    return [step for step in text.split(STEP_SEPARATOR) if step.strip()]


def answer_of(text: str) -> str | None:
    r"""The number in the last ``\\boxed{...}`` answer of a text, without leading zeros, or None."""
    found = _ANSWER.findall(text)
    return str(int(found[-1])) if found else None


def check_steps(story: MiniProblem, steps: Sequence[str]) -> Verdict:
    """Check every step of a solution; never raises, whatever the texts hold.

    Args:
        story: the problem.
        steps: the steps' texts, in order, with or without their separator.
    """
    reader = _Reader(story)
    verdicts: list[StepVerdict] = []
    so_far = True
    for step in steps:
        fault, is_answer = reader.read(step)
        so_far = so_far and fault is None
        verdicts.append(StepVerdict(fault is None, so_far, fault, is_answer))
    answer = None if reader.answer is None else str(reader.answer)
    return Verdict(tuple(verdicts), answer, answer == story.answer)


@dataclass(slots=True)
class _Pending:
    """What a split's first step left to do: the operation and the rest of its operand or count."""

    op: Operation
    rest: int


class _Reader:
    """Follows the stated values of a solution through the operations of its problem."""

    def __init__(self, story: MiniProblem) -> None:
        self.story = story
        self.value = story.start
        self.next_op = 0
        self.pending: _Pending | None = None
        self.answer: int | None = None

    def read(self, step: str) -> tuple[Fault | None, bool]:
        """Judge one step and move the state to what it states."""
        text = step.strip("\n")
        stated = _ANSWER.fullmatch(text)
        if stated is not None:
            return self._read_answer(int(stated[1])), True
        match = _STEP.fullmatch(text)
        if match is None or self.answer is not None or match[1] not in (self.story.name, self.story.pronoun):
            return Fault.FORMAT, False
        return self._read_operation(match), False

    def _read_answer(self, stated: int) -> Fault | None:
        if self.answer is not None:
            return Fault.FORMAT
        self.answer = stated
        if self.pending is not None:
            return Fault.FORGET
        if self.next_op < len(self.story.operations):
            return Fault.ORDER
        return None if stated == self.value else Fault.ANSWER

    def _read_operation(self, match: re.Match[str]) -> Fault | None:
        part = _Equation(int(match[4]), TIMES_SIGN, int(match[5]), int(match[6])) if match[4] else None
        equation = _Equation(int(match[9]), match[10], int(match[11]), int(match[12]))
        lead = match[7]
        position = self._position_of(match[3])
        if position is None:
            self.value = equation.result
            return Fault.COPY if match[3] in WORDING_OF_VERB else Fault.FORMAT
        op = self.story.operations[position]
        pending, self.pending = self.pending, None
        if match[2].split()[1:3] == ["the", "other"]:
            fault = self._read_rest(match[2], pending, op, part, equation, lead)
        elif part is not None:
            fault = Fault.FORMAT
        elif match[2] != op.phrase:
            fault = Fault.COPY
        elif lead.startswith(", first"):
            fault = self._read_first(op, match[8], equation)
        else:
            fault = self._read_direct(op, equation)
        if pending is not None and op is not pending.op:
            fault = Fault.FORGET
        elif position != self.next_op and fault is None and not self._is_rest(pending, op, match[2]):
            fault = Fault.ORDER
        self.next_op = position + 1
        self.value = equation.result
        return fault

    @staticmethod
    def _is_rest(pending: _Pending | None, op: Operation, phrase: str) -> bool:
        return pending is not None and pending.op is op and phrase == op.wording.rest_phrase(pending.rest)

    def _position_of(self, verb: str) -> int | None:
        verbs = [op.wording.verb for op in self.story.operations]
        return verbs.index(verb) if verb in verbs else None

    def _read_direct(self, op: Operation, equation: _Equation) -> Fault | None:
        if equation.left != self.value or equation.right != op.number:
            return Fault.COPY
        slip = direct_slip(op, self.value)
        if equation.sign != SIGN[op.kind]:
            misread = op.kind in TRAPS and equation.sign == MISREAD_SIGN
            return Fault(op.kind.value) if misread else Fault.COPY
        exact = apply(op.kind, self.value, op.number)
        if equation.result == exact:
            return None
        if slip is not None and op.kind not in TRAPS and equation.result == slipped_result(slip, op, self.value):
            return slip
        return _off(equation.result, exact)

    def _read_first(self, op: Operation, stated_tens: str | None, equation: _Equation) -> Fault | None:
        if not can_split(op, self.value):
            return Fault.FORMAT
        if op.kind is OpKind.MUL:
            left, right = self.value - self.value % 10, op.number
            shape = stated_tens is None
            rest = self.value % 10
        else:
            left, right = self.value, op.number - op.number % 10
            shape = stated_tens is not None and int(stated_tens) == right
            rest = op.number % 10
        self.pending = _Pending(op, rest)
        return _judge(equation, left, SIGN[op.kind], right) if shape else Fault.COPY

    def _read_rest(
        self,
        phrase: str,
        pending: _Pending | None,
        op: Operation,
        part: _Equation | None,
        equation: _Equation,
        lead: str,
    ) -> Fault | None:
        if pending is None or pending.op is not op:
            return Fault.ORDER
        if lead.startswith(", first") or (part is None) == (op.kind is OpKind.MUL):
            return Fault.FORMAT
        if phrase != op.wording.rest_phrase(pending.rest):
            return Fault.COPY
        if part is None:
            return _judge(equation, self.value, SIGN[op.kind], pending.rest)
        fault = _judge(part, pending.rest, TIMES_SIGN, op.number)
        return fault or _judge(equation, self.value, "+", part.result)


@dataclass(frozen=True, slots=True)
class _Equation:
    left: int
    sign: str
    right: int
    result: int


def _judge(equation: _Equation, left: int, sign: str, right: int) -> Fault | None:
    """Judge an equation that no slip but noise can touch."""
    if (equation.left, equation.sign, equation.right) != (left, sign, right):
        return Fault.COPY
    kind = {"+": OpKind.ADD, "-": OpKind.SUB, TIMES_SIGN: OpKind.MUL}[sign]
    exact = apply(kind, left, right)
    return None if equation.result == exact else _off(equation.result, exact)


def _off(result: int, exact: int) -> Fault:
    return Fault.NOISE if abs(result - exact) in (1, 2, 10, 20) else Fault.ARITHMETIC
