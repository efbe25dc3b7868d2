"""Units: what they measure, and how many base units each is, exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A known unit; `factor` in the dimension's base unit."""

    dimension: str
    factor: Fraction


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}

    def add(dimension: str, factor: str | Fraction, names: str) -> None:
        for name in names.split(" "):
            table[name] = Unit(dimension, Fraction(factor))

    for prefix, short, scale in (
        ("", "", "1"), ("kilo", "k", "1000"), ("centi", "c", "1/100"), ("milli", "m", "1/1000"), ("deci", "d", "1/10"),
        ("micro", "", "1/1000000"), ("nano", "n", "1/1000000000"),
    ):  # fmt: skip
        factor = Fraction(scale)
        add("length", factor, f"{prefix}meter {prefix}metre")
        add("mass", factor, f"{prefix}gram {prefix}gramme")
        add("volume", factor / 1000, f"{prefix}liter {prefix}litre")
        if short:
            add("length", factor, f"{short}m {short}ms")
            add("mass", factor, f"{short}g {short}gs")
            add("volume", factor / 1000, f"{short}l {short}L")
    add("length", "254/10000", "inch inches in")
    add("length", "3048/10000", "foot feet ft")
    add("length", "9144/10000", "yard yd")
    add("length", "1609344/1000", "mile mi")
    add("mass", "45359237/100000", "pound lb lbs")
    add("mass", "45359237/1600000", "ounce oz")
    add("mass", "1000000", "tonne")
    add("time", "1", "second sec secs")
    add("time", "1/1000", "millisecond")
    add("time", "60", "minute min mins")
    add("time", "3600", "hour hr hrs")
    add("time", "86400", "day")
    add("time", "604800", "week")
    add("months", "1", "month mo")
    add("months", "12", "year yr yrs")
    add("money", "1", "dollar usd buck")
    add("money", "1/100", "cent penny pennies")
    add("euro", "1", "euro eur")
    add("pound sterling", "1", "gbp pence")
    add("rupee", "1", "rupee rs inr")
    add("yuan", "1", "yuan rmb")
    add("yen", "1", "yen")
    add("peso", "1", "peso")
    add("angle", "1", "degree deg °")
    add("radian", "1", "radian rad")
    add("speed", "1609344/3600000", "mph")
    add("speed", "1000/3600", "kph kmh kmph")
    add("gallon", "1", "gallon gal")
    add("gallon", "1/4", "quart qt")
    add("gallon", "1/8", "pint pt")
    add("gallon", "1/16", "cup")
    add("temperature", "1", "celsius °c")
    add("fahrenheit", "1", "fahrenheit °f")
    table["pence"] = Unit("pound sterling", Fraction(1, 100))
    return table


UNITS = _table()
"""By name in the singular; those of one letter are read only where they are marked as text."""

LETTER_UNITS = {letter: UNITS[name] for letter, name in zip(
    "mgshlL", ("meter", "gram", "second", "hour", "liter", "liter"), strict=True
)}  # fmt: skip

CURRENCIES = {"¤": UNITS["dollar"], "€": UNITS["euro"], "£": UNITS["gbp"], "¥": UNITS["yen"], "₹": UNITS["rupee"]}

MAGNITUDES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "hundreds": 100, "thousands": 1000, "millions": 10**6, "billions": 10**9, "dozens": 12,
}  # fmt: skip

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}

_ENDINGS = {"ies": "y", "ches": "ch", "shes": "sh", "xes": "x", "sses": "ss", "oes": "o"}
_IRREGULAR = {
    "feet": "foot", "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse",
}  # fmt: skip


def singular(word: str) -> str:
    """The singular of an English noun, well enough to compare nouns."""
    lower = word.lower().strip(".")
    if lower in UNITS and not lower.endswith("s"):
        return lower
    for ending, replacement in _ENDINGS.items():
        if lower.endswith(ending) and len(lower) > len(ending) + 1:
            return lower[: -len(ending)] + replacement
    if lower.endswith("s") and not lower.endswith(("ss", "us", "is")) and len(lower) > 3:
        return lower[:-1]
    return _IRREGULAR.get(lower, lower)


_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10,
}  # fmt: skip


def number_words(words: list[str]) -> Fraction | None:
    """The number that words spell ("twenty-one", "three hundred and five"); None where they spell none."""
    if words and (part := _PARTS.get(words[-1].lower().removesuffix("s"), _PARTS.get(words[-1].lower()))):
        if [word.lower() for word in words[:-1]] in ([], ["a"], ["an"]):
            return Fraction(1, part) if part == 2 or len(words) == 2 else None
        top = number_words(words[:-1])
        return None if top is None else top / part
    total, current, seen = 0, 0, False
    for word in words:
        lower = word.lower()
        if lower == "and" and seen:
            continue
        if lower in NUMBER_WORDS:
            current += NUMBER_WORDS[lower]
        elif lower == "hundred" and current:
            current *= 100
        elif lower in ("thousand", "million", "billion") and current:
            total, current = total + current * MAGNITUDES[lower], 0
        else:
            return None
        seen = True
    return Fraction(total + current) if seen else None
