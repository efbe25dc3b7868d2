"""Sets of real numbers: intervals and their unions, however they are written."""

from __future__ import annotations

from collections.abc import Sequence

from search.answers.evaluate import compare, less
from search.answers.exact import TooLargeError, UndefinedError
from search.answers.values import Expression, Interval, Ordered, Region, Unordered, Value, Verdict, all_of


def same_interval(first: Interval, second: Value) -> Verdict:
    """Whether an interval is what another value says: a list or a set of points is none."""
    return Verdict.DIFFERENT if isinstance(second, Unordered) else same_region(Region((first,)), second)


def _same_ends(first: Interval, second: Interval) -> Verdict:
    if (first.closed_low, first.closed_high) != (second.closed_low, second.closed_high):
        return Verdict.DIFFERENT
    return all_of((compare(first.low, second.low), compare(first.high, second.high)))


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


def same_region(region: Region, value: Value) -> Verdict:
    """Whether a set of real numbers is what another value says."""
    beside = as_region(value)
    if beside is None:
        return Verdict.DIFFERENT
    if region.variable and beside.variable and region.variable != beside.variable:
        return Verdict.DIFFERENT
    ours, theirs = _joined(region.parts), _joined(beside.parts)
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


def _starts_before(first: Interval, second: Interval) -> bool:
    before = less(first.low, second.low)
    return bool(before) or (compare(first.low, second.low) is Verdict.SAME and first.closed_low >= second.closed_low)


def _touch(first: Interval, second: Interval) -> bool:
    if compare(first.high, second.low) is Verdict.SAME:
        return first.closed_high or second.closed_low
    return bool(less(second.low, first.high))
