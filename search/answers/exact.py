"""Exact arithmetic on expressions: fractions, whole powers and roots, factorials, within a number of digits."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, comb, factorial, floor, isqrt, prod
from typing import Any

from search.answers.values import Node

_MAX_BITS = 20_000


class UndefinedError(Exception):
    """No number: a division by zero, or the square root of a negative number among the reals."""


class TooLargeError(Exception):
    """More work than a comparison may take."""


def exact_value(node: Node) -> Fraction | None:
    """The rational value of a node; None where it has none, or one that is not seen to be rational.

    Raises:
        UndefinedError: it has no value.
        TooLargeError: its digits are too many.
    """
    op = node.op
    if op == "num":
        return node.number
    if op == "inf":
        raise UndefinedError
    if op in ("pi", "e", "i", "var"):
        return None
    values = [exact_value(argument) for argument in node.args]
    if any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    return _limited(_APPLIED[op](*known)) if op in _APPLIED else None


def _limited(value: Fraction | None) -> Fraction | None:
    if value is not None and max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise TooLargeError
    return value


def _inv(value: Fraction) -> Fraction:
    if not value:
        raise UndefinedError
    return 1 / value


def _pow(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return _root(base, Fraction(exponent.denominator), exponent.numerator)
    power = exponent.numerator
    if not base and power < 0:
        raise UndefinedError
    if base in (0, 1):
        return base if power else Fraction(1)
    if base == -1:
        return Fraction(1 - 2 * (power % 2))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(power) * bits > 2 * _MAX_BITS:
        return None  # Its digits are too many; that it is rational helps no more.
    return base**power


def _root(value: Fraction, degree: Fraction = Fraction(2), power: int = 1) -> Fraction | None:
    if degree.denominator != 1 or not 1 <= degree.numerator <= 64:
        return None
    order = degree.numerator
    if value < 0 and (order % 2 == 0 or power != 1):
        return None
    top, bottom = _integer_root(abs(value.numerator), order), _integer_root(value.denominator, order)
    if top is None or bottom is None:
        return None
    return _pow(Fraction(top if value >= 0 else -top, bottom), Fraction(power))


def _integer_root(value: int, order: int) -> int | None:
    if order == 1 or value in (0, 1):
        return value
    if order == 2:
        root = isqrt(value)
    else:
        root = 1 << -(-value.bit_length() // order)
        while True:
            better = ((order - 1) * root + value // root ** (order - 1)) // order
            if better >= root:
                break
            root = better
    return root if root**order == value else None


def _factorial(value: Fraction) -> Fraction | None:
    if value.denominator != 1 or value < 0:
        raise UndefinedError
    return Fraction(factorial(value.numerator)) if value <= 1000 else None


def _binom(top: Fraction, bottom: Fraction) -> Fraction | None:
    if top.denominator != 1 or bottom.denominator != 1 or bottom < 0 or top < 0:
        return None
    return Fraction(comb(top.numerator, bottom.numerator)) if top <= 2000 else None


_APPLIED: Mapping[str, Any] = {
    "add": lambda *terms: sum(terms, Fraction(0)),
    "mul": lambda *factors: prod(factors, start=Fraction(1)),
    "neg": lambda value: -value,
    "inv": _inv,
    "pow": _pow,
    "root": _root,
    "abs": abs,
    "floor": lambda value: Fraction(floor(value)),
    "ceil": lambda value: Fraction(ceil(value)),
    "factorial": _factorial,
    "binom": _binom,
}
