"""Sets of real numbers: intervals and their unions, however they are written."""

from __future__ import annotations

from collections.abc import Sequence

from search.answers.evaluate import compare, less
from search.answers.exact import TooLargeError, UndefinedError
from search.answers.values import Expression, Interval, Ordered, Region, Unordered, Value, Verdict, all_of


def same_interval(one: Value, other: Value) -> Verdict | None:
    """Whether an interval is what another value says; None where that value is to decide."""
    assert isinstance(one, Interval)
    if isinstance(other, Interval):
        return _same_ends(one, other)
    if isinstance(other, Region) or (isinstance(other, Ordered) and len(other.items) == 2):
        return same_region(Region((one,)), other)
    return Verdict.DIFFERENT


def _same_ends(one: Interval, other: Interval) -> Verdict:
    if (one.closed_low, one.closed_high) != (other.closed_low, other.closed_high):
        return Verdict.DIFFERENT
    return all_of((compare(one.low, other.low), compare(one.high, other.high)))


def as_region(value: Value) -> Region | None:
    """A value as the set of real numbers that it may be: intervals, their two ends alone, or points; else None."""
    if isinstance(value, Region):
        return value
    if isinstance(value, Interval):
        return Region((value,))
    items = value.items if isinstance(value, Ordered | Unordered) else ()
    numbers = [item for item in items if isinstance(item, Expression)]
    if isinstance(value, Ordered) and len(items) == len(numbers) == 2:
        return Region((Interval(numbers[0], numbers[1], value.square, value.square),))
    if isinstance(value, Unordered) and value.is_set and len(numbers) == len(items):
        return Region(tuple(Interval(point, point, True, True) for point in numbers))
    return None


def same_region(one: Value, value: Value) -> Verdict | None:
    """Whether a set of real numbers is what another value says."""
    assert isinstance(one, Region)
    other = as_region(value)
    if other is None:
        return Verdict.DIFFERENT
    if one.variable and other.variable and one.variable != other.variable:
        return Verdict.DIFFERENT
    ours, theirs = _joined(one.parts), _joined(other.parts)
    if len(ours) != len(theirs):
        return Verdict.DIFFERENT
    return all_of(_same_ends(*pair) for pair in zip(ours, theirs, strict=True))


def _joined(parts: Sequence[Interval]) -> list[Interval]:
    """Intervals by rising ends, those that touch as one; as they stand where their ends are no numbers."""
    try:
        ordered: list[Interval] = []
        for part in parts:
            place = 0
            while place < len(ordered) and _starts_before(ordered[place], part):
                place += 1
            ordered.insert(place, part)
        joined: list[Interval] = []
        for part in ordered:
            if joined and _touch(joined[-1], part):
                last = joined[-1]
                later = less(last.high, part.high)
                equal = compare(last.high, part.high) is Verdict.SAME
                joined[-1] = Interval(
                    last.low,
                    part.high if later else last.high,
                    last.closed_low or (compare(last.low, part.low) is Verdict.SAME and part.closed_low),
                    part.closed_high if later else last.closed_high or (equal and part.closed_high),
                )
            else:
                joined.append(part)
        return joined
    except (UndefinedError, TooLargeError):
        return list(parts)


def _starts_before(one: Interval, other: Interval) -> bool:
    before = less(one.low, other.low)
    return bool(before) or (compare(one.low, other.low) is Verdict.SAME and one.closed_low >= other.closed_low)


def _touch(one: Interval, other: Interval) -> bool:
    if compare(one.high, other.low) is Verdict.SAME:
        return one.closed_high or other.closed_low
    return bool(less(other.low, one.high))
