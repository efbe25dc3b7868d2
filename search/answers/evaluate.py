"""What expressions come to: exact fractions where they are rational, else many digits at points that the names fix.

Two expressions are the same where they agree at every point to more digits than any accident would give, and where
their difference shrinks as the precision grows. All limits are in work: the size of numbers, never the clock.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from search.answers.exact import TooLargeError, UndefinedError, exact_value
from search.answers.values import Expression, Node, Verdict

_DIGITS = (60, 140)
_MAX_EXPONENT = 10**9
_MAX_MAGNITUDE = 100
_POINTS = 5


@lru_cache(maxsize=4096)
def exact(expression: Expression) -> Fraction | None:
    """The rational value of an expression; None where it has none, or one that is not seen to be rational.

    Raises:
        UndefinedError: it has no value.
        TooLargeError: its digits are too many.
    """
    return None if expression.variables else exact_value(expression.node)


def compare(first: Expression, second: Expression) -> Verdict:
    """Whether two expressions are the same for all values of their variables.

    A logarithm without a base is to the base e or ten, whichever makes them the same.
    """
    if first.node == second.node:
        return Verdict.SAME
    verdict = _compared(first, second)
    if verdict is not Verdict.SAME and (_mentions(first.node, "log", 1) or _mentions(second.node, "log", 1)):
        decimal = _compared(*(Expression(_to_ten(side.node), side.variables) for side in (first, second)))
        return decimal if decimal is Verdict.SAME else verdict
    return verdict


def _to_ten(node: Node) -> Node:
    """An expression with the base ten where a logarithm has none."""
    arguments = tuple(_to_ten(argument) for argument in node.args)
    op = "log10" if node.op == "log" and len(arguments) == 1 else node.op
    return Node(op, arguments, node.number, node.name)


def _compared(first: Expression, second: Expression) -> Verdict:
    try:
        left, right = exact(first), exact(second)
        if left is not None and right is not None:
            return Verdict.SAME if left == right else Verdict.DIFFERENT
        return _numeric_verdict(first, second)
    except UndefinedError:
        return Verdict.DIFFERENT
    except TooLargeError:
        return Verdict.UNDECIDED


def proportional(first: Node, second: Node, names: frozenset[str], *, positive: bool) -> Verdict:
    """Whether one expression is the other times a number that is not zero, or that is positive."""
    try:
        return _proportional(first, second, names, positive=positive)
    except UndefinedError:
        return Verdict.DIFFERENT
    except TooLargeError:
        return Verdict.UNDECIDED


def less(first: Expression, second: Expression) -> bool | None:
    """Whether one constant is less than another; None where that cannot be said.

    Raises:
        UndefinedError, TooLargeError: as `exact`.
    """
    if first.variables or second.variables:
        return None
    infinite = [_infinite(side.node) for side in (first, second)]
    if any(infinite):
        return infinite[0] < infinite[1]
    left, right = exact(first), exact(second)
    if left is not None and right is not None:
        return left < right
    with _LOCK:
        context = _context(_DIGITS[0])
        difference = _value(second.node, {}, context, real=True) - _value(first.node, {}, context, real=True)
        return bool(difference > 0)


def _infinite(node: Node) -> int:
    if node.op == "inf":
        return 1
    return -_infinite(node.args[0]) if node.op == "neg" else 0


# mpmath keeps constants that it has computed in its modules, and one thread at a time may write there.
_LOCK = threading.RLock()
_CONTEXTS: dict[int, Any] = {}


def _context(digits: int) -> Any:
    """Arithmetic of so many digits. The caller holds the lock."""
    if digits not in _CONTEXTS:
        from mpmath.ctx_mp import MPContext

        context = MPContext()
        context.dps = digits
        _CONTEXTS[digits] = context
    return _CONTEXTS[digits]


def _points(names: frozenset[str]) -> list[dict[str, Fraction]]:
    """Where expressions are compared: a name's value at a point hangs on nothing but the two."""
    points = []
    for index in range(_POINTS):
        point = {}
        for name in names:
            digest = hashlib.sha256(f"{index} {name}".encode()).digest()
            value = Fraction(int.from_bytes(digest[:4], "big") % 4_000_000 + 300_007, 1_000_003)
            # Two points have negative values too: all of them, and those of some names.
            point[name] = -value if index == 3 or (index == 4 and digest[4] % 2) else value
        points.append(point)
    return points


def _numeric_verdict(first: Expression, second: Expression) -> Verdict:
    names = first.variables | second.variables
    infinite = _infinite(first.node), _infinite(second.node)
    if any(infinite):
        return Verdict.SAME if infinite[0] == infinite[1] else Verdict.DIFFERENT
    with _LOCK:
        imaginary = _mentions(first.node, "i") or _mentions(second.node, "i")
        for real in (False,) if imaginary else (True, False):
            agreed = 0
            for point in _points(names)[: _POINTS if names else 1]:
                agrees = _agree(first.node, second.node, point, real=real)
                if agrees is False:
                    return Verdict.DIFFERENT
                agreed += agrees is True
            if agreed >= min(2, _POINTS if names else 1):
                return Verdict.SAME
    raise UndefinedError


def _agree(first: Node, second: Node, point: Mapping[str, Fraction], *, real: bool) -> bool | None:
    """Whether two expressions have the same value at a point; None where one has none."""
    apart: list[Any] = []
    for digits in _DIGITS:
        context = _context(digits)
        sides = []
        for node in (first, second):
            try:
                sides.append(_value(node, point, context, real=real))
            except (UndefinedError, ZeroDivisionError):
                sides.append(None)
            except (OverflowError, ValueError, MemoryError) as error:
                raise TooLargeError from error
        left, right = sides
        if left is None or right is None:
            return None
        difference, size = abs(left - right), max(abs(left), abs(right))
        if difference == 0:
            return True
        if difference > size * context.mpf(10) ** (-20):
            # Far apart, unless both are nothing but the rounding of zero.
            if apart and difference < apart[0] * context.mpf(10) ** (-50):
                return True
            if size > context.mpf(10) ** (-40):
                return False
        apart.append(difference)
    return bool(apart[1] < apart[0] * context.mpf(10) ** (-50))


def _mentions(node: Node, op: str, num_args: int = 0) -> bool:
    return (node.op == op and len(node.args) == num_args) or any(_mentions(part, op, num_args) for part in node.args)


def _proportional(first: Node, second: Node, names: frozenset[str], *, positive: bool) -> Verdict:
    with _LOCK:
        context = _context(_DIGITS[0])
        ratios = []
        for point in _points(names):
            try:
                left, right = (_value(node, point, context, real=True) for node in (first, second))
            except (UndefinedError, ZeroDivisionError):
                continue
            except (OverflowError, ValueError, MemoryError) as error:
                raise TooLargeError from error
            tiny = context.mpf(10) ** (-45)
            if abs(right) < tiny or abs(left) < tiny:
                if abs(right) < tiny and abs(left) < tiny:
                    continue
                return Verdict.DIFFERENT
            ratios.append(left / right)
        if len(ratios) < 2:
            return Verdict.DIFFERENT
        same = all(abs(ratio - ratios[0]) < abs(ratios[0]) * context.mpf(10) ** (-40) for ratio in ratios)
        return Verdict.SAME if same and not (positive and ratios[0] < 0) else Verdict.DIFFERENT


def _value(node: Node, point: Mapping[str, Fraction], context: Any, *, real: bool) -> Any:
    """The value of a node at a point, among the real numbers or among the complex ones."""
    op = node.op
    if op in ("num", "var"):
        value = node.number if op == "num" else point[node.name]
        assert value is not None
        return _bounded(context.mpf(value.numerator) / value.denominator, context)
    if op == "pi":
        return +context.pi
    if op == "e":
        return +context.e
    if op == "i":
        if real:
            raise UndefinedError
        return context.mpc(0, 1)
    if op == "inf":
        raise UndefinedError
    values = [_value(argument, point, context, real=real) for argument in node.args]
    if op == "add":
        return context.fsum(values) if real else sum(values[1:], values[0])
    if op == "mul":
        return math.prod(values[1:], start=values[0])
    if op == "neg":
        return -values[0]
    if op == "inv":
        if values[0] == 0:
            raise UndefinedError
        return 1 / values[0]
    return _function(op, values, context, real=real)


def _function(op: str, values: list[Any], context: Any, *, real: bool) -> Any:
    first = values[0]
    if op == "root":
        return _numeric_power(
            first, 1 / values[1] if len(values) > 1 else context.mpf(0.5), context, values[1:], real=real
        )
    if op == "pow":
        return _numeric_power(first, values[1], context, [], real=real)
    if op == "log10":
        op, values = "log", [first, context.mpf(10)]
    if op in ("ln", "log"):
        if first == 0 or (real and first < 0):
            raise UndefinedError
        if len(values) > 1:
            if values[1] == 0 or values[1] == 1 or (real and values[1] < 0):
                raise UndefinedError
            return context.log(first) / context.log(values[1])
        return context.log(first)
    if op == "factorial" or op == "binom":
        if abs(first) > _MAX_EXPONENT:
            raise TooLargeError
        return _bounded(context.factorial(first) if op == "factorial" else context.binomial(first, values[1]), context)
    if op in ("abs", "floor", "ceil"):
        return {"abs": abs, "floor": context.floor, "ceil": context.ceil}[op](first)
    if real and op in ("arcsin", "arccos") and abs(first) > 1:
        raise UndefinedError
    if op in ("exp", "sinh", "cosh") and abs(first) > _MAX_EXPONENT:
        raise TooLargeError
    if abs(first) > context.mpf(10) ** 30:
        raise TooLargeError
    name = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(op, op)
    return _bounded(getattr(context, name)(first), context)


def _numeric_power(base: Any, exponent: Any, context: Any, degree: list[Any], *, real: bool) -> Any:
    if base == 0:
        if (exponent.real if not real else exponent) <= 0:
            raise UndefinedError
        return base
    if real and base < 0:
        odd_root = bool(degree) and degree[0] == int(degree[0]) and int(degree[0]) % 2 == 1
        if odd_root:
            return -((-base) ** exponent)
        if exponent != int(exponent):
            raise UndefinedError
    if abs(exponent) * (abs(context.log(abs(base))) + 1) > _MAX_EXPONENT * 40:
        raise TooLargeError
    return _bounded(base**exponent, context)


def _bounded(value: Any, context: Any) -> Any:
    """The value, where beside it a one would not be lost in rounding."""
    size = abs(value)
    if size and not context.mpf(10) ** -_MAX_MAGNITUDE < size < context.mpf(10) ** _MAX_MAGNITUDE:
        raise TooLargeError
    return value
