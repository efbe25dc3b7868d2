"""Answers in other writings, and answers that are nearly the same: pairs whose verdict is known as they are made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Pair(NamedTuple):
    """An answer made of a reference, the reference, whether they are the same, and by what the one became the other."""

    answer: str
    reference: str
    same: bool
    rule: str


_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_PRIME = 7919
_UNICODE = (
    (r"\pi", "π"),
    (r"\infty", "∞"),
    (r"\cup", "∪"),
    (r"^\circ", "°"),
    (r"\theta", "θ"),
    (r"\le ", "≤ "),
    ("-", "−"),
    ("^2", "²"),
    ("^3", "³"),
    (r"\frac{1}{2}", "½"),
    (r"\frac{3}{4}", "¾"),
)


def rewritings(gold: str) -> Iterator[Pair]:
    """The same answer in other writings."""

    def pair(answer: str, rule: str) -> Iterator[Pair]:
        if answer != gold:
            yield Pair(answer, gold, True, rule)

    yield Pair(gold, gold, True, "itself")
    if "$" not in gold.replace(r"\$", ""):
        yield from pair(f"${gold}$", "dollars")
        yield from pair(f"\\({gold}\\)", "parentheses of LaTeX")
        yield from pair(f"\\[ {gold} \\]", "brackets of LaTeX")
    yield from pair(f" {gold}. ", "full stop")
    yield from pair(f"\\displaystyle {gold}", "display style")
    yield from pair(f"**{gold}**", "bold of Markdown")
    yield from pair(gold.replace(r"\frac", r"\dfrac"), "display fractions")
    yield from pair(gold.replace(r"\left", "").replace(r"\right", ""), "brackets of one size")
    yield from pair(gold.replace(", ", ",\\, ") if ", " in gold else gold, "thin spaces")
    if r"\text" not in gold:
        yield from pair(re.sub(r"(?<=[\w})])([+])(?=[\w\\({])", r" \1 ", gold), "spaces about signs")
        yield from pair(re.sub(r"(?<=[0-9])(\\sqrt|\\pi)", r" \\cdot \1", gold), "products said")
    changed = gold
    for latex, sign in _UNICODE:
        changed = changed.replace(latex, sign)
    yield from pair(changed, "Unicode")
    if _INTEGER.fullmatch(gold):
        yield from pair(f"{int(gold):,}", "thousands")
        yield from pair(f"{int(gold):,}".replace(",", "{,}"), "thousands of LaTeX")
        yield from pair(f"{gold}.0", "decimals")
        yield from pair(f"{gold}.00", "more decimals")
        yield from pair(f"\\frac{{{2 * int(gold)}}}{{2}}", "a fraction")
        yield from pair(f"{3 * int(gold)}/3", "a plain fraction")
        yield from pair(f"\\${gold}" if int(gold) >= 0 else gold, "money")
        yield from pair(f"{gold} apples", "things")
        yield from pair(f"{gold} \\text{{ cm}}", "a unit")
        yield from pair(f"x = {gold}", "a name")
        yield from pair(f"\\mathbf{{{gold}}}", "bold of LaTeX")
    if _DECIMAL.fullmatch(gold):
        yield from pair(f"{gold}0", "one more zero")
        yield from pair(f"{gold} meters", "a unit")
        yield from pair(f"x={gold}", "a name")
    fraction = _FRACTION.fullmatch(gold)
    if fraction:
        sign, top, bottom = fraction.groups()
        yield from pair(f"{sign}{top}/{bottom}", "a plain fraction")
        yield from pair(f"{sign}\\frac{{{3 * int(top)}}}{{{3 * int(bottom)}}}", "not reduced")
        yield from pair(f"\\frac{{{sign}{top}}}{{{bottom}}}", "the sign above")
        whole, rest = divmod(int(top), int(bottom))
        if whole and rest:
            yield from pair(f"{sign}{whole}\\frac{{{rest}}}{{{bottom}}}", "a mixed number")
            yield from pair(f"{sign}{whole} {rest}/{bottom}", "a plain mixed number")
    items = _items(gold)
    if items is not None and not items.ordered and len(set(items.inner)) > 1:
        yield from pair(items.written(items.inner[::-1]), "another order")


def near_misses(gold: str) -> Iterator[Pair]:
    """Other answers that look much like it."""

    def pair(answer: str, rule: str) -> Iterator[Pair]:
        yield Pair(answer, gold, False, rule)

    digits = [found.start() for found in re.finditer(r"[0-9]", gold)]
    for place in dict.fromkeys([*digits[:3], *digits[-2:]]):
        for step in (1, 3):
            digit = str((int(gold[place]) + step) % 10)
            other = gold[:place] + digit + gold[place + 1 :]
            if not re.search(r"(?<![0-9.])0+(?=[0-9])|\{0\}|_\{?[01]\b|/0", other):
                yield from pair(other, "a digit")
    words = re.fullmatch(r"\\text\{[^{}]*\}|[A-Za-z ]{4,}", gold)
    items = _items(gold)
    plain = items is None and not re.search(r"\\text|_|matrix|=|<|>|\\pm|\\le|\\ge|[\[\]]|\\cup", gold)
    if plain and gold not in ("0", r"\emptyset") and not re.fullmatch(r"\(?[A-J]\)?", gold):
        yield from pair(
            f"-({gold})" if re.search(r"[+-]|\\%|%", gold[1:]) else gold[1:] if gold[0] == "-" else f"-{gold}", "sign"
        )
        if not re.search(r"%|circ", gold):
            yield from pair(f"({gold})+1", "one more")
            yield from pair(f"2({gold})", "twice")
            yield from pair(f"{gold}, {_PRIME}", "another beside it")
            yield from pair(f"({gold}, {_PRIME})", "in a pair")
            yield from pair(f"\\text{{not }} {gold}", "a word more")
    if re.search(r"(?<=[\w})])\s?\+", gold):
        yield from pair(re.sub(r"(?<=[\w})])(\s?)\+", r"\1-", gold, count=1), "an inner sign")
    if _INTEGER.fullmatch(gold) and int(gold):
        yield from pair(f"{gold}0", "ten times")
        yield from pair(f"{gold}.5", "a half more")
        yield from pair(f"{gold}\\frac{{1}}{{3}}", "a third more")
        yield from pair(f"{gold} 1", "another digit apart")
        yield from pair(f"{gold}_7", "a base")
        yield from pair(f"{gold} \\text{{ million}}", "millions")
        yield from pair(f"{gold}x", "a variable")
        yield from pair(f"{gold}!" if int(gold) > 2 else f"{gold}+5", "factorial")
    if items is not None:
        if items.ordered and len(set(items.inner)) > 1 and items.inner[::-1] != items.inner:
            yield from pair(items.written(items.inner[::-1]), "order")
        yield from pair(items.written([*items.inner[:-1], str(_PRIME)]), "a member")
        yield from pair(items.written([*items.inner, str(_PRIME)]), "one member more")
        if len(items.inner) > 2:
            yield from pair(items.written(items.inner[:-1]), "one member less")
    if words:
        yield from pair(gold.replace("e", "o", 1) if "e" in gold else gold + "x", "a letter")
    for one, other in (("[", "("), ("]", ")")):
        if re.match(r"\\?l?e?f?t?\s?[\[(].*[\])]$", gold) and one in gold and r"\sqrt[" not in gold:
            yield from pair(gold.replace(one, other, 1), "an end of an interval")
    for one, other in (
        (r"\text{ cm}", r"\text{ m}"),
        ("cm", "km"),
        ("hours", "minutes"),
        ("dollars", "cents"),
        ("feet", "inches"),
    ):
        if one in gold:
            yield from pair(gold.replace(one, other), "a unit")


class _Items(NamedTuple):
    opening: str
    inner: list[str]
    closing: str
    ordered: bool

    def written(self, inner: list[str]) -> str:
        return f"{self.opening}{', '.join(inner)}{self.closing}"


def _items(gold: str) -> _Items | None:
    """The members of a tuple, a set or a bare list of simple members."""
    found = re.fullmatch(
        r"(\\left\s?\(|\(|\\left\s?\\\{|\\\{|)([^()\[\]<>=|]*)(\\right\s?\)|\)|\\right\s?\\\}|\\\}|)", gold
    )
    if found is None or "," not in gold or re.search(r"\\text|matrix|\d,\s?(?:\\!)?\d{3}|\\cup|\\pm|\{,\}", gold):
        return None
    inner = [item.strip() for item in found[2].split(",")]
    if len(inner) < 2 or not all(inner) or any(item.count("{") != item.count("}") for item in inner):
        return None
    return _Items(found[1], inner, found[3], found[1].endswith("("))
