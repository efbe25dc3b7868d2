"""What counts as equal: values are compared by their types, exactly, and texts as texts.

A comparison is symmetric, and depends on the two answers alone. A unit, a name or the sign of a percentage that one
side leaves out is no difference; one that contradicts is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

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


def same_value(one: Value, other: Value) -> Verdict:
    """Whether two values are the same."""
    if one == other:
        return SAME
    for value, beside in ((one, other), (other, one)):
        if isinstance(value, Approximate):
            return same_value(value.value, beside.value if isinstance(beside, Approximate) else beside)
    for value, beside in ((one, other), (other, one)):
        if isinstance(value, Text):
            # Letters alone are a word, but beside a formula in these letters they are their product.
            product = _letters(value)
            if product is None or not isinstance(beside, Expression) or product.variables != beside.variables:
                return DIFFERENT
            return compare(product, beside)
    for kind, rule in _RULES:
        for value, beside in ((one, other), (other, one)):
            if isinstance(value, kind):
                verdict = rule(value, beside)
                if verdict is not None:
                    return verdict
    return DIFFERENT


def within(value: Value, target: Value, half_unit: Fraction) -> bool:
    """Whether a number is another that is rounded: apart by half of its last place at most."""
    one, other = _bare(value), _bare(target)
    if one is None or other is None or one.variables or other.variables:
        return False
    low = Expression(Node("add", (other.node, number(-half_unit))))
    high = Expression(Node("add", (other.node, number(half_unit))))
    try:
        return less(one, low) is False and less(high, one) is False
    except (UndefinedError, TooLargeError):
        return False


def _bare(value: Value) -> Expression | None:
    """The number in a value, whatever it counts."""
    while isinstance(value, Approximate | Labelled):
        value = value.value
    if isinstance(value, Quantity | Percentage):
        return value.amount
    return value if isinstance(value, Expression) else None


def _expression(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Expression)
    if isinstance(other, Expression):
        return compare(one, other)
    return None


def _percentage(one: Value, other: Value) -> Verdict | None:
    """50% is 50 and 0.5 both: data sets write either."""
    assert isinstance(one, Percentage)
    if isinstance(other, Percentage):
        return compare(one.amount, other.amount)
    if isinstance(other, Expression):
        return any_of((compare(one.amount, other), compare(_scaled(one.amount, Fraction(1, 100)), other)))
    if isinstance(other, Quantity):
        return DIFFERENT
    return None


def _scaled(amount: Expression, factor: Fraction) -> Expression:
    return amount if factor == 1 else Expression(Node("mul", (amount.node, number(factor))), amount.variables)


def _quantity(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Quantity)
    if isinstance(other, Expression) and one.dimension:
        other = _letter_unit(other)
    if isinstance(other, Expression):
        return compare(one.amount, other)
    if not isinstance(other, Quantity):
        return DIFFERENT if isinstance(other, Percentage | Clock | Ratio | Choice) else None
    if one.dimension and other.dimension:
        if {one.dimension, other.dimension} == {"mass", "pound sterling"}:
            pounds = {UNITS["pound"].factor, Fraction(1)}
            return compare(one.amount, other.amount) if {one.factor, other.factor} == pounds else DIFFERENT
        if one.dimension != other.dimension or not (one.words <= other.words or other.words <= one.words):
            return DIFFERENT
        return compare(_scaled(one.amount, one.factor), _scaled(other.amount, other.factor))
    if one.dimension or other.dimension:
        return DIFFERENT  # apples are no kilometres
    if one.words <= other.words or other.words <= one.words:
        return compare(one.amount, other.amount)
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


def _clock(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Clock)
    if isinstance(other, Clock):
        same_time = (one.hour % 12, one.minute) == (other.hour % 12, other.minute)
        return SAME if same_time and (one.half == other.half or not one.half or not other.half) else DIFFERENT
    if isinstance(other, Expression | Quantity) and one.minute == 0:
        amount = _bare(other)
        if amount is not None and (isinstance(other, Expression)):
            return compare(amount, Expression(number(one.hour)))
    if isinstance(other, Expression) and not one.half:
        hours = Expression(number(Fraction(one.hour, one.minute)))
        return compare(hours, other)  # written as a ratio
    return DIFFERENT


def _ratio(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Ratio)
    if isinstance(other, Ratio):
        if len(one.terms) != len(other.terms):
            return DIFFERENT
        products = [
            compare(_product(one.terms[0], theirs), _product(other.terms[0], ours))
            for ours, theirs in zip(one.terms[1:], other.terms[1:], strict=True)
        ]
        return all_of(products)
    if isinstance(other, Expression) and len(one.terms) == 2:
        return compare(_product(one.terms[1], other), one.terms[0])
    return DIFFERENT


def _product(one: Expression, other: Expression) -> Expression:
    return Expression(Node("mul", (one.node, other.node)), one.variables | other.variables)


def _labelled(one: Value, other: Value) -> Verdict | None:
    """A name that one side leaves out is no difference, but another name is."""
    assert isinstance(one, Labelled)
    if isinstance(other, Labelled):
        if one.name == other.name:
            return same_value(one.value, other.value)
        relations = _as_relation(one), _as_relation(other)
        return same_value(*relations) if None not in relations else DIFFERENT  # type: ignore[arg-type]
    if isinstance(other, Relation):
        relation = _as_relation(one)
        return DIFFERENT if relation is None else same_value(relation, other)
    if isinstance(other, Unordered | Ordered | Region | Interval | Matrix) and not isinstance(
        one.value, Unordered | Ordered | Region | Interval | Matrix
    ):
        return DIFFERENT
    return same_value(one.value, other)


def _as_relation(one: Labelled) -> Relation | None:
    if isinstance(one.value, Expression) and len(one.name) == 1:
        return Relation(Expression(Node("var", name=one.name), frozenset((one.name,))), "=", one.value)
    return None


def _relation(one: Value, other: Value) -> Verdict | None:
    """Equations are the same up to a factor, inequalities up to a positive one; those of numbers as they stand."""
    assert isinstance(one, Relation)
    if not isinstance(other, Relation):
        return DIFFERENT if not isinstance(other, Labelled) else None
    if one.sign != other.sign:
        return DIFFERENT
    names = one.left.variables | one.right.variables
    if not names and not (other.left.variables | other.right.variables):
        straight = all_of((compare(one.left, other.left), compare(one.right, other.right)))
        return straight if straight is SAME and one.left.node == other.left.node else DIFFERENT
    if names != other.left.variables | other.right.variables:
        return DIFFERENT
    ours, theirs = (Node("add", (it.left.node, Node("neg", (it.right.node,)))) for it in (one, other))
    return proportional(ours, theirs, names, positive=one.sign in ("<", "<="))


def _ordered(one: Value, other: Value) -> Verdict | None:
    """Item by item. A bare list in the same order only leaves the brackets out."""
    assert isinstance(one, Ordered)
    if isinstance(other, Ordered):
        if one.square != other.square and len(one.items) == 2:
            return DIFFERENT  # as intervals they differ
        return _in_order(one.items, other.items)
    if isinstance(other, Unordered):
        return DIFFERENT if other.is_set else _in_order(one.items, other.items)
    if isinstance(other, Matrix):
        column = [row[0] for row in other.rows] if all(len(row) == 1 for row in other.rows) else []
        flat = list(other.rows[0]) if len(other.rows) == 1 else column
        return _in_order(one.items, flat) if flat else DIFFERENT
    return None if isinstance(other, Interval | Region | Labelled) else DIFFERENT


def _in_order(ours: Sequence[Value], theirs: Sequence[Value]) -> Verdict:
    if len(ours) != len(theirs):
        return DIFFERENT
    return all_of(same_value(*pair) for pair in zip(ours, theirs, strict=True))


def _unordered(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Unordered)
    if not isinstance(other, Unordered):
        if len(one.items) == 1 and not isinstance(other, Region | Ordered):
            return same_value(one.items[0], other)
        return None if isinstance(other, Region | Ordered | Labelled) else DIFFERENT
    ours, theirs = list(one.items), list(other.items)
    if one.is_set or other.is_set:
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
    known: dict[tuple[int, int], Verdict] = {}

    def verdict(row: int, column: int) -> Verdict:
        if (row, column) not in known:
            known[row, column] = same_value(ours[row], theirs[column])
        return known[row, column]

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
    return UNDECIDED if UNDECIDED in known.values() and pairs(frozenset((SAME, UNDECIDED))) else DIFFERENT


def _matrix(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Matrix)
    if not isinstance(other, Matrix):
        return None if isinstance(other, Ordered | Labelled) else DIFFERENT
    if [len(row) for row in one.rows] != [len(row) for row in other.rows]:
        return DIFFERENT
    return all_of(
        compare(*pair)
        for ours, theirs in zip(one.rows, other.rows, strict=True)
        for pair in zip(ours, theirs, strict=True)
    )


def _based(one: Value, other: Value) -> Verdict | None:
    return DIFFERENT  # numbers to a base are what they are written as


def _choice(one: Value, other: Value) -> Verdict | None:
    assert isinstance(one, Choice)
    if isinstance(other, Choice):
        if one.letter != other.letter:
            return DIFFERENT
        if one.content is not None and other.content is not None:
            return same_value(one.content, other.content)
        return SAME
    if isinstance(other, Expression) and one.content is None:
        return compare(Expression(Node("var", name=one.letter), frozenset((one.letter,))), other)
    return DIFFERENT if one.content is None else same_value(one.content, other)


_RULES: tuple[tuple[type, Callable[[Value, Value], Verdict | None]], ...] = (
    (Labelled, _labelled),
    (Choice, _choice),
    (Based, _based),
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
    (Expression, _expression),
)
"""By falling precedence: the first whose type either side has decides, unless it leaves it to the next."""


def rational(value: Value) -> Fraction | None:
    """The exact number that a value is; None for anything else."""
    if isinstance(value, Expression):
        try:
            return exact(value)
        except (UndefinedError, TooLargeError):
            return None
    return None
