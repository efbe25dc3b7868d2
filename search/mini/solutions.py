"""Solutions as fallible students write them: several paths, several wordings, and slips at known rates.

A slip is systematic for its kind, and the solution goes on consistently from the wrong value. Every step is labelled
by construction; ``search.mini.checker`` finds the same labels from the text alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import StrEnum

from search.mini.problems import MiniProblem, Operation, apply
from search.mini.wording import (
    ANSWER_PREFIX,
    ANSWER_SUFFIX,
    CONNECTORS,
    MISREAD_SIGN,
    SIGN,
    STEP_SEPARATOR,
    TIMES_SIGN,
    TRAPS,
    OpKind,
)

MAX_STEPS = 10
SPLIT_RATE = 0.40
NAME_RATE = 0.3
NOISE_OFFSETS = (-20, -10, -2, -1, 1, 2, 10, 20)


class Fault(StrEnum):
    """Why a step is wrong: the slips that written solutions make on purpose, then what only a model's may have."""

    CARRY = "carry"
    BORROW = "borrow"
    TABLE = "table"
    FORGET = "forget"
    DROP = "drop"
    MAKE = "make"
    NOISE = "noise"
    SKIP = "skip"
    COPY = "copy"
    ARITHMETIC = "arithmetic"
    ORDER = "order"
    ANSWER = "answer"
    FORMAT = "format"


@dataclass(frozen=True, slots=True)
class SlipRates:
    """How often each slip is made where it can be made, each in [0, 1].

    Attributes:
        carry: a direct addition that carries comes out 10 too small.
        borrow: a direct subtraction that borrows comes out 10 too large.
        table: a direct multiplication by 3 or more gives value x (k - 1).
        forget: a split's second step is left out.
        drop: the trap "drops" is read as an addition.
        make: the trap "makes k times as many" is read as an addition of k.
        noise: any result is off by 1, 2, 10 or 20.
        skip: an operation is left out.
        copy: a direct step's count or operand is copied with a wrong digit.
    """

    carry: float = 0.0
    borrow: float = 0.0
    table: float = 0.0
    forget: float = 0.0
    drop: float = 0.0
    make: float = 0.0
    noise: float = 0.0
    skip: float = 0.0
    copy: float = 0.0

    @classmethod
    def drawn(cls, rng: random.Random) -> SlipRates:
        """Rates drawn anew for one document, so that no context tells how likely a slip is."""
        highest = {"noise": 0.15, "skip": 0.12, "copy": 0.12}
        return cls(**{field.name: rng.uniform(0.0, highest.get(field.name, 0.8)) for field in fields(cls)})


CLEAN_RATES = SlipRates()
TARGET_RATES = SlipRates(carry=0.20, borrow=0.25, table=0.20, forget=0.04, drop=0.45, make=0.65)
#: Half of all tempting steps wrong: nothing but the arithmetic tells which.
DRILL_RATES = SlipRates(
    carry=0.5, borrow=0.5, table=0.5, forget=0.3, drop=0.5, make=0.5, noise=0.12, skip=0.04, copy=0.05
)
DRAFT_RATES = SlipRates(carry=0.45, borrow=0.48, table=0.45, forget=0.10, drop=0.48, make=0.70)


@dataclass(frozen=True, slots=True)
class WrittenStep:
    """One step of a written solution.

    Attributes:
        text: the step without its separator.
        right: whether it is right given the stated values before it.
        slip: which slip it holds, or None.
    """

    text: str
    right: bool
    slip: Fault | None = None


@dataclass(frozen=True, slots=True)
class WrittenSolution:
    """A solution and its labels.

    Attributes:
        steps: in order; the last states the answer.
        answer: the stated answer.
    """

    steps: tuple[WrittenStep, ...]
    answer: int

    @property
    def text(self) -> str:
        """The steps joined by blank lines, without an end token."""
        return STEP_SEPARATOR.join(step.text for step in self.steps)


def can_split(op: Operation, value: int) -> bool:
    """Whether an operation may be done in two steps, tens first, from a count."""
    whole = value if op.kind is OpKind.MUL else op.number
    if op.kind in TRAPS or whole < 11 or whole % 10 == 0:
        return False
    return whole < 100 and (op.kind is not OpKind.SUB or value >= op.number)


def direct_slip(op: Operation, value: int) -> Fault | None:
    """The slip that tempts whoever does an operation in one step from a count, or None."""
    number = op.number
    if op.kind is OpKind.ADD and value % 10 + number % 10 >= 10:
        return Fault.CARRY
    if op.kind is OpKind.SUB and value >= number and value % 10 < number % 10:
        return Fault.BORROW
    if op.kind is OpKind.MUL and number >= 3 and value > 0:
        return Fault.TABLE
    if op.kind is OpKind.DROP:
        return Fault.DROP
    if op.kind is OpKind.MAKE:
        return Fault.MAKE
    return None


def slipped_result(slip: Fault, op: Operation, value: int) -> int:
    """What a direct slip makes of an operation, misreadings included."""
    if slip is Fault.CARRY:
        return value + op.number - 10
    if slip is Fault.BORROW:
        return value - op.number + 10
    if slip is Fault.TABLE:
        return value * (op.number - 1)
    return value + op.number


def write_solution(
    story: MiniProblem, rng: random.Random, rates: SlipRates, split_rate: float = SPLIT_RATE
) -> WrittenSolution:
    """Write one solution of 4 to 10 steps.

    Args:
        story: the problem.
        rng: decides paths, wordings and slips.
        rates: how often each slip is made.
        split_rate: how often an operation that can be split is split.
    """
    while True:
        solution = _Writer(story, rng, rates, split_rate).write()
        if len(solution.steps) <= MAX_STEPS:
            return solution


class _Writer:
    """Writes one solution; holds the stated count and what the last step left open."""

    def __init__(self, story: MiniProblem, rng: random.Random, rates: SlipRates, split_rate: float) -> None:
        self.story = story
        self.rng = rng
        self.rates = rates
        self.split_rate = split_rate
        self.value = story.start
        self.left_out: Fault | None = None
        self.steps: list[WrittenStep] = []

    def write(self) -> WrittenSolution:
        for op in self.story.operations:
            if self._happens(self.rates.skip):
                self.left_out = self.left_out or Fault.SKIP
            elif can_split(op, self.value) and self.rng.random() < self.split_rate:
                self._split(op)
            else:
                self._direct(op)
        self._add(f"{ANSWER_PREFIX}{self.value}{ANSWER_SUFFIX}", None)
        return WrittenSolution(tuple(self.steps), self.value)

    def _direct(self, op: Operation) -> None:
        slip = direct_slip(op, self.value)
        if slip is not None and self.rng.random() >= getattr(self.rates, slip.value):
            slip = None
        if slip is None and self._happens(self.rates.copy):
            self._miscopied(op)
            return
        result = apply(op.kind, self.value, op.number)
        sign = SIGN[op.kind]
        if slip is not None:
            result = slipped_result(slip, op, self.value)
            sign = MISREAD_SIGN if op.kind in TRAPS else sign
        else:
            result, slip = self._noisy(result)
        equation = f"{self.value} {sign} {op.number} = {result}"
        self._add(f"{self._subject()} {op.phrase}, {self.rng.choice(CONNECTORS)} {equation}.", slip)
        self.value = result

    def _split(self, op: Operation) -> None:
        sign = SIGN[op.kind]
        before = self.value
        if op.kind is OpKind.MUL:
            tens, units = before - before % 10, before % 10
            exact, equation = tens * op.number, f"{tens} {sign} {op.number}"
        else:
            tens, units = op.number - op.number % 10, op.number % 10
            exact, equation = apply(op.kind, before, tens), f"{before} {sign} {tens}"
        lead = "first" if op.kind is OpKind.MUL else f"first {tens}, {self.rng.choice(CONNECTORS)}"
        result, slip = self._noisy(exact)
        self._add(f"{self._subject()} {op.phrase}, {lead} {equation} = {result}.", slip)
        self.value = result
        if self.rng.random() < self.rates.forget:
            self.left_out = Fault.FORGET
            return
        self._rest(op, units)

    def _rest(self, op: Operation, units: int) -> None:
        phrase = op.wording.rest_phrase(units)
        connector = self.rng.choice(CONNECTORS)
        if op.kind is OpKind.MUL:
            part = units * op.number
            phrase = f"{phrase}, {units} {TIMES_SIGN} {op.number} = {part}"
            result, slip = self._noisy(self.value + part)
            equation = f"{self.value} + {part}"
        else:
            result, slip = self._noisy(apply(op.kind, self.value, units))
            equation = f"{self.value} {SIGN[op.kind]} {units}"
        self._add(f"{self._subject()} {phrase}, {connector} {equation} = {result}.", slip)
        self.value = result

    def _miscopied(self, op: Operation) -> None:
        """A direct step, right but for one digit of the count or of the operand."""
        value, number = self.value, op.number
        if self.rng.random() < 0.5:
            value = self._other_digit(value)
        else:
            number = self._other_digit(number)
        result = apply(op.kind, value, number)
        equation = f"{value} {SIGN[op.kind]} {number} = {result}"
        phrase = op.wording.phrase(number if self.rng.random() < 0.5 else op.number)
        self._add(f"{self._subject()} {phrase}, {self.rng.choice(CONNECTORS)} {equation}.", Fault.COPY)
        self.value = result

    def _other_digit(self, number: int) -> int:
        digits = list(str(number))
        place = self.rng.randrange(len(digits))
        digits[place] = self.rng.choice([digit for digit in "123456789" if digit != digits[place]])
        return int("".join(digits))

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self.rng.random() < rate

    def _noisy(self, exact: int) -> tuple[int, Fault | None]:
        if self.rng.random() >= self.rates.noise:
            return exact, None
        result = exact + self.rng.choice(NOISE_OFFSETS)
        return (result, Fault.NOISE) if result >= 0 else (exact, None)

    def _subject(self) -> str:
        return self.story.name if self.rng.random() < NAME_RATE else self.story.pronoun

    def _add(self, text: str, slip: Fault | None) -> None:
        """Append a step; one that leaves something out before it is wrong for that."""
        if self.left_out is not None:
            slip, self.left_out = self.left_out, None
        self.steps.append(WrittenStep(text, slip is None, slip))
