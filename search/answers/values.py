"""What an answer can be: typed values, read from what was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import TypeAlias


class Verdict(Enum):
    """What a comparison says."""

    SAME = "same"
    DIFFERENT = "different"
    UNDECIDED = "undecided"

    def __bool__(self) -> bool:
        raise TypeError("a verdict has three values; compare it with Verdict.SAME")


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The same where all are; different where any is; else undecided."""
    found = set(verdicts)
    return next((one for one in (Verdict.DIFFERENT, Verdict.UNDECIDED) if one in found), Verdict.SAME)


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The same where any is; undecided where any is that and none the same."""
    found = set(verdicts)
    return next((one for one in (Verdict.SAME, Verdict.UNDECIDED) if one in found), Verdict.DIFFERENT)


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    Attributes:
        op: `num`, `var`, `pi`, `e`, `i`, `inf`, `add`, `mul`, `neg`, `inv`, `pow`, or the name of a function.
        args: what it is applied to.
        number: of a `num`.
        name: of a `var`.
    """

    op: str
    args: tuple[Node, ...] = ()
    number: Fraction | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Expression:
    """A number or a formula, read to its last sign: fractions, mixed numbers and decimals are exact."""

    node: Node
    variables: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Percentage:
    """So many hundredths."""

    amount: Expression


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount of something.

    Attributes:
        amount: how many.
        dimension: of a unit that is known, e.g. "length"; "" for what is merely counted.
        factor: base units of the dimension in one unit, as an exact number.
        words: what is counted, each word in its singular; empty for a known unit.
    """

    amount: Expression
    dimension: str
    factor: Fraction
    words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day; `half` is "am", "pm" or "" where it is not said."""

    hour: int
    minute: int
    half: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two or more numbers with colons between them."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Based:
    """A number as it is written to a base."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Interval:
    """All numbers between two, the ends with it where they are closed."""

    low: Expression
    high: Expression
    closed_low: bool
    closed_high: bool


@dataclass(frozen=True, slots=True)
class Region:
    """A set of real numbers: a union of intervals; `variable` is the one that an inequality names."""

    parts: tuple[Interval, ...]
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A tuple, a point or a vector: order matters. `square` where it was written in square brackets."""

    items: tuple[Value, ...]
    square: bool = False


@dataclass(frozen=True, slots=True)
class Unordered:
    """A set or a bare list: order does not matter. In a set an item counts once."""

    items: tuple[Value, ...]
    is_set: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of equal length."""

    rows: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A value with a name: x = 5."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality that is not a plain value: `left sign right`, sign one of =, <, <=, !=."""

    left: Expression
    sign: str
    right: Expression


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple choice, and what stands beside it."""

    letter: str
    content: Value | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Anything else, as it was written: equal to the same text alone. `formula` where it holds mathematics."""

    text: str
    formula: bool = False


@dataclass(frozen=True, slots=True)
class Approximate:
    """A value that says of itself that it is rounded."""

    value: Value


Value: TypeAlias = (
    Expression
    | Percentage
    | Quantity
    | Clock
    | Ratio
    | Based
    | Interval
    | Region
    | Ordered
    | Unordered
    | Matrix
    | Labelled
    | Relation
    | Choice
    | Text
    | Approximate
)
