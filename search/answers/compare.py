"""What counts as equal: values are compared by their types, exactly, and texts as texts.

A comparison is symmetric, and depends on the two answers alone. A unit, a name or the sign of a percentage that one
side leaves out is no difference; one that contradicts is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from search.answers.evaluate import compare, exact, less, proportional
from search.answers.exact import TooLargeError, UndefinedError
from search.answers.expressions import number
from search.answers.regions import same_interval, same_region
from search.answers.units import LETTER_UNITS, UNITS
from search.answers.values import (
    Approximate,
    Based,
    Choice,
    Clock,
    Expression,
    Interval,
    Labelled,
    Matrix,
    Node,
    Ordered,
    Percentage,
    Quantity,
    Ratio,
    Region,
    Relation,
    Text,
    Unordered,
    Value,
    Verdict,
    all_of,
    any_of,
)

SAME, DIFFERENT, UNDECIDED = Verdict.SAME, Verdict.DIFFERENT, Verdict.UNDECIDED
_MAX_ITEMS = 200


def same_value(first: Value, second: Value) -> Verdict:
    """Whether two values are the same."""
    if first == second:
        return SAME
    for value, beside in ((first, second), (second, first)):
        if isinstance(value, Approximate):
            return same_value(value.value, beside.value if isinstance(beside, Approximate) else beside)
    for value, beside in ((first, second), (second, first)):
        if isinstance(value, Text):
            # Letters alone are a word, but beside a formula in these letters they are their product.
            product = _letters(value)
            if product is None or not isinstance(beside, Expression) or product.variables != beside.variables:
                return DIFFERENT
            return compare(product, beside)
    for kind, rule in _RULES:
        for value, beside in ((first, second), (second, first)):
            if isinstance(value, kind):
                verdict = rule(value, beside)
                if verdict is not None:
                    return verdict
    return DIFFERENT


def within(value: Value, target: Value, half_unit: Fraction) -> bool:
    """Whether a number is another that is rounded: apart by half of its last place at most."""
    first, second = _bare(value), _bare(target)
    if first is None or second is None or first.variables or second.variables:
        return False
    low = Expression(Node("add", (second.node, number(-half_unit))))
    high = Expression(Node("add", (second.node, number(half_unit))))
    try:
        return less(first, low) is False and less(high, first) is False
    except (UndefinedError, TooLargeError):
        return False


def _bare(value: Value) -> Expression | None:
    """The number in a value, whatever it counts."""
    while isinstance(value, Approximate | Labelled):
        value = value.value
    if isinstance(value, Quantity | Percentage):
        return value.amount
    return value if isinstance(value, Expression) else None


def _percentage(first: Percentage, second: Value) -> Verdict | None:
    """50% is 50 and 0.5 both: data sets write either."""
    if isinstance(second, Percentage):
        return compare(first.amount, second.amount)
    if isinstance(second, Expression):
        return any_of((compare(first.amount, second), compare(_scaled(first.amount, Fraction(1, 100)), second)))
    if isinstance(second, Quantity):
        return DIFFERENT
    return None


def _scaled(amount: Expression, factor: Fraction) -> Expression:
    return amount if factor == 1 else Expression(Node("mul", (amount.node, number(factor))), amount.variables)


def _quantity(first: Quantity, second: Value) -> Verdict | None:
    if isinstance(second, Expression) and first.dimension:
        second = _letter_unit(second)
    if isinstance(second, Expression):
        return compare(first.amount, second)
    if not isinstance(second, Quantity):
        return DIFFERENT if isinstance(second, Percentage | Clock | Ratio | Choice) else None
    if first.dimension and second.dimension:
        if {first.dimension, second.dimension} == {"mass", "pound sterling"}:
            pounds = {UNITS["pound"].factor, Fraction(1)}
            return compare(first.amount, second.amount) if {first.factor, second.factor} == pounds else DIFFERENT
        if first.dimension != second.dimension or not (first.words <= second.words or second.words <= first.words):
            return DIFFERENT
        return compare(_scaled(first.amount, first.factor), _scaled(second.amount, second.factor))
    if first.dimension or second.dimension:
        return DIFFERENT  # apples are no kilometres
    if first.words <= second.words or second.words <= first.words:
        return compare(first.amount, second.amount)
    return DIFFERENT


def _letter_unit(amount: Expression) -> Expression | Quantity:
    """A number times a letter, as a quantity: beside kilometres, the m of 5000 m is no variable."""
    node = amount.node
    if node.op == "mul" and len(node.args) == 2 and node.args[0].op == "num" and node.args[1].name in LETTER_UNITS:
        unit = LETTER_UNITS[node.args[1].name]
        return Quantity(Expression(node.args[0]), unit.dimension, unit.factor)
    return amount


def _letters(word: Text) -> Expression | None:
    if not (1 < len(word.text) <= 3 and word.text.isascii() and word.text.isalpha() and word.text.islower()):
        return None
    factors = tuple(Node(letter) if letter in "ei" else Node("var", name=letter) for letter in word.text)
    return Expression(Node("mul", factors), frozenset(letter for letter in word.text if letter not in "ei"))


def _clock(first: Clock, second: Value) -> Verdict | None:
    if isinstance(second, Clock):
        same_time = (first.hour % 12, first.minute) == (second.hour % 12, second.minute)
        return SAME if same_time and (first.half == second.half or not first.half or not second.half) else DIFFERENT
    if isinstance(second, Expression) and first.minute == 0:
        return compare(second, Expression(number(first.hour)))
    if isinstance(second, Expression) and not first.half:
        hours = Expression(number(Fraction(first.hour, first.minute)))
        return compare(hours, second)  # written as a ratio
    return DIFFERENT


def _ratio(first: Ratio, second: Value) -> Verdict | None:
    if isinstance(second, Ratio):
        if len(first.terms) != len(second.terms):
            return DIFFERENT
        products = [
            compare(_product(first.terms[0], theirs), _product(second.terms[0], ours))
            for ours, theirs in zip(first.terms[1:], second.terms[1:], strict=True)
        ]
        return all_of(products)
    if isinstance(second, Expression) and len(first.terms) == 2:
        return compare(_product(first.terms[1], second), first.terms[0])
    return DIFFERENT


def _product(first: Expression, second: Expression) -> Expression:
    return Expression(Node("mul", (first.node, second.node)), first.variables | second.variables)


def _labelled(first: Labelled, second: Value) -> Verdict | None:
    """A name that one side leaves out is no difference, but another name is."""
    if isinstance(second, Labelled):
        if first.name == second.name:
            return same_value(first.value, second.value)
        relations = _as_relation(first), _as_relation(second)
        return same_value(*relations) if None not in relations else DIFFERENT  # type: ignore[arg-type]
    if isinstance(second, Relation):
        relation = _as_relation(first)
        return DIFFERENT if relation is None else same_value(relation, second)
    if isinstance(second, Unordered | Ordered | Region | Interval | Matrix) and not isinstance(
        first.value, Unordered | Ordered | Region | Interval | Matrix
    ):
        return DIFFERENT
    return same_value(first.value, second)


def _as_relation(first: Labelled) -> Relation | None:
    if isinstance(first.value, Expression) and len(first.name) == 1:
        return Relation(Expression(Node("var", name=first.name), frozenset((first.name,))), "=", first.value)
    return None


def _relation(first: Relation, second: Value) -> Verdict | None:
    """Equations are the same up to a factor, inequalities up to a positive one; those of numbers as they stand."""
    if not isinstance(second, Relation):
        return DIFFERENT if not isinstance(second, Labelled) else None
    if first.sign != second.sign:
        return DIFFERENT
    names = first.left.variables | first.right.variables
    if not names and not (second.left.variables | second.right.variables):
        straight = all_of((compare(first.left, second.left), compare(first.right, second.right)))
        return straight if straight is SAME and first.left.node == second.left.node else DIFFERENT
    if names != second.left.variables | second.right.variables:
        return DIFFERENT
    ours, theirs = (Node("add", (it.left.node, Node("neg", (it.right.node,)))) for it in (first, second))
    return proportional(ours, theirs, names, positive=first.sign in ("<", "<="))


def _ordered(first: Ordered, second: Value) -> Verdict | None:
    """Item by item. A bare list in the same order only leaves the brackets out."""
    if isinstance(second, Ordered):
        if first.square != second.square and len(first.items) == 2:
            return DIFFERENT  # as intervals they differ
        return _in_order(first.items, second.items)
    if isinstance(second, Unordered):
        return DIFFERENT if second.is_set else _in_order(first.items, second.items)
    if isinstance(second, Matrix):
        column = [row[0] for row in second.rows] if all(len(row) == 1 for row in second.rows) else []
        flat = list(second.rows[0]) if len(second.rows) == 1 else column
        return _in_order(first.items, flat) if flat else DIFFERENT
    return None if isinstance(second, Interval | Region | Labelled) else DIFFERENT


def _in_order(ours: Sequence[Value], theirs: Sequence[Value]) -> Verdict:
    if len(ours) != len(theirs):
        return DIFFERENT
    return all_of(same_value(*pair) for pair in zip(ours, theirs, strict=True))


def _unordered(first: Unordered, second: Value) -> Verdict | None:
    if not isinstance(second, Unordered):
        if len(first.items) == 1 and not isinstance(second, Region | Ordered):
            return same_value(first.items[0], second)
        return None if isinstance(second, Region | Ordered | Labelled) else DIFFERENT
    ours, theirs = list(first.items), list(second.items)
    if first.is_set or second.is_set:
        ours, theirs = _distinct(ours), _distinct(theirs)
    if len(ours) != len(theirs):
        return DIFFERENT
    if len(ours) > _MAX_ITEMS:
        return _in_order(ours, theirs)
    return _paired(ours, theirs)


def _distinct(items: list[Value]) -> list[Value]:
    kept: list[Value] = []
    for item in items[:_MAX_ITEMS]:
        if all(same_value(item, old) is not SAME for old in kept):
            kept.append(item)
    return kept + items[_MAX_ITEMS:]


def _paired(ours: list[Value], theirs: list[Value]) -> Verdict:
    """Whether items can be paired off, each with one that is the same (augmenting paths)."""
    verdicts: dict[tuple[int, int], Verdict] = {}

    def verdict(row: int, column: int) -> Verdict:
        if (row, column) not in verdicts:
            verdicts[row, column] = same_value(ours[row], theirs[column])
        return verdicts[row, column]

    def pairs(accepted: frozenset[Verdict]) -> bool:
        partner: dict[int, int] = {}

        def place(row: int, tried: set[int]) -> bool:
            for column in range(len(theirs)):
                if column not in tried and verdict(row, column) in accepted:
                    tried.add(column)
                    if column not in partner or place(partner[column], tried):
                        partner[column] = row
                        return True
            return False

        return all(place(row, set()) for row in range(len(ours)))

    if pairs(frozenset((SAME,))):
        return SAME
    return UNDECIDED if UNDECIDED in verdicts.values() and pairs(frozenset((SAME, UNDECIDED))) else DIFFERENT


def _matrix(first: Matrix, second: Value) -> Verdict | None:
    if not isinstance(second, Matrix):
        return None if isinstance(second, Ordered | Labelled) else DIFFERENT
    if [len(row) for row in first.rows] != [len(row) for row in second.rows]:
        return DIFFERENT
    return all_of(
        compare(*pair)
        for ours, theirs in zip(first.rows, second.rows, strict=True)
        for pair in zip(ours, theirs, strict=True)
    )


def _choice(first: Choice, second: Value) -> Verdict | None:
    if isinstance(second, Choice):
        if first.letter != second.letter:
            return DIFFERENT
        if first.content is not None and second.content is not None:
            return same_value(first.content, second.content)
        return SAME
    if isinstance(second, Expression) and first.content is None:
        return compare(Expression(Node("var", name=first.letter), frozenset((first.letter,))), second)
    return DIFFERENT if first.content is None else same_value(first.content, second)


_RULES: tuple[tuple[type, Callable[[Any, Value], Verdict | None]], ...] = (
    (Labelled, _labelled),
    (Choice, _choice),
    (Based, lambda first, second: DIFFERENT),  # numbers to a base are what they are written as
    (Percentage, _percentage),
    (Quantity, _quantity),
    (Clock, _clock),
    (Ratio, _ratio),
    (Relation, _relation),
    (Region, same_region),
    (Interval, same_interval),
    (Matrix, _matrix),
    (Ordered, _ordered),
    (Unordered, _unordered),
    (Expression, lambda first, second: compare(first, second) if isinstance(second, Expression) else None),
)
"""By falling precedence: the first whose type either side has decides, unless it leaves it to the next."""


def rational(value: Value) -> Fraction | None:
    """The exact number that a value is; None for anything else."""
    try:
        return exact(value) if isinstance(value, Expression) else None
    except (UndefinedError, TooLargeError):
        return None
