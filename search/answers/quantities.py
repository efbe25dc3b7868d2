"""Amounts of something: units, money, counted things, times of day, and the words for numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from search.answers.expressions import number, read_expression
from search.answers.notation import FUNCTIONS
from search.answers.tokens import Token, UnreadError, is_command, is_sign
from search.answers.units import CURRENCIES, LETTER_UNITS, MAGNITUDES, UNITS, Unit, number_words, singular
from search.answers.values import Clock, Expression, Node, Quantity

_CLOCK = re.compile(
    r"(?P<hour>[0-9]{1,2})(?:\s?:\s?(?P<minute>[0-5][0-9]))?\s?(?:«\s?)?"
    r"(?P<half>[ap]\.?\s?m\.?|o'?\s?clock|noon|midnight)?(?:\s?»)?",
    re.IGNORECASE,
)
_FILLERS = frozenset((
    "the", "a", "an", "of", "each", "per", "in", "for", "and", "total", "more", "left", "on", "at", "to", "long",
    "every", "all",
))  # fmt: skip
_QUALIFIERS = frozenset((
    "or", "than", "least", "most", "fewer", "less", "not", "except", "if", "mod", "modulo", "unless", "only",
    "factorial", "up",
))  # fmt: skip
"""Words beside a number that say that it is another, or one among several."""

_MONEY = frozenset(unit.dimension for unit in CURRENCIES.values())
_SQUARED = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def read_clock(notation: str) -> Clock | None:
    """A time of day: 2:30 pm, 5 p.m., 3 o'clock, 14:30; None for anything else."""
    match = _CLOCK.fullmatch(notation)
    if match is None or not (match["minute"] or match["half"]):
        return None
    hour, minute = int(match["hour"]), int(match["minute"] or 0)
    said = (match["half"] or "").lower().replace(" ", "").replace(".", "")
    half = said if said in ("am", "pm") else ""
    if hour > 24 or (half and not 1 <= hour <= 12):
        return None
    if match["minute"] is None and not half and "clock" not in said:
        return None
    if hour > 12 or (hour == 0):
        return Clock(hour - 12 if hour > 12 else 12, minute, "pm" if hour > 12 else "am")
    return Clock(hour, minute, half)


def read_measured(tokens: list[Token]) -> Expression | Quantity | None:
    """A quantity, or a number in words: $5, 5 km, 5 apples, twenty-one, 2 million; None for anything else.

    Raises:
        UnreadError: words beside a number that are no unit.
    """
    if tokens[0].text in CURRENCIES:
        return _money(tokens)
    if len(tokens) > 1 and is_sign(tokens[0], "-") and tokens[1].text in CURRENCIES:
        money = _money(tokens[1:])
        return replace(money, amount=replace(money.amount, node=Node("neg", (money.amount.node,))))
    spelled = _spelled(tokens)
    if spelled is not None:
        return spelled
    return _with_unit(tokens)


def read_compound(parts: list[tuple[str, list[Token]]]) -> Quantity | None:
    """A quantity in several units, largest first: 2 hours and 30 minutes, 5 ft 3 in; None for anything else."""
    pieces: list[list[Token]] = []
    for name, part in parts:
        if name not in ("", "and", ","):
            return None
        pieces.extend(_cut_after_units(part))
    if len(pieces) < 2:
        return None
    total, smallest, dimension = Fraction(0), None, ""
    for piece in pieces:
        try:
            value = _with_unit(piece)
        except UnreadError:
            return None
        if not isinstance(value, Quantity) or value.words or value.amount.node.number is None:
            return None
        if smallest is not None and (value.dimension != dimension or value.factor >= smallest):
            return None
        total += value.amount.node.number * value.factor
        smallest, dimension = value.factor, value.dimension
    return Quantity(Expression(number(total)), dimension, Fraction(1))


def _cut_after_units(part: list[Token]) -> list[list[Token]]:
    """A part cut before each number that follows words."""
    pieces: list[list[Token]] = []
    worded = False
    for token in part:
        if not pieces or (worded and token.kind == "num"):
            pieces.append([])
        pieces[-1].append(token)
        worded = token.kind in ("word", "text")
    return pieces


def _money(tokens: list[Token]) -> Quantity:
    unit = CURRENCIES[tokens[0].text]
    rest = tokens[1:]
    if not rest:
        raise UnreadError("a currency alone")
    inner = _with_unit(rest)
    if isinstance(inner, Quantity):
        # "$5 per day", "$5 dollars": the unit is said twice or the words only explain.
        if inner.dimension not in ("", unit.dimension):
            raise UnreadError("money in another unit")
        return Quantity(inner.amount, unit.dimension, unit.factor, inner.words)
    amount = inner if inner is not None else read_expression(rest)
    return Quantity(amount, unit.dimension, unit.factor)


def _spelled(tokens: list[Token]) -> Expression | None:
    words: list[str] = []
    for token in tokens:
        if token.kind in ("word", "text"):
            words.extend(token.text.split())
        elif not is_sign(token, "-"):
            return None
    value = number_words([piece for word in words for piece in word.split("-")]) if words else None
    return None if value is None else Expression(number(value))


def _with_unit(tokens: list[Token]) -> Expression | Quantity | None:
    """An amount with what follows it."""
    start = _unit_start(tokens)
    if start == len(tokens) or start == 0:
        return None
    head, tail = tokens[:start], tokens[start:]
    if is_sign(tail[0], "^") and any(is_command(token, *FUNCTIONS) for token in head):
        return None  # the degrees of a function's argument, not of its value
    amount = _amount(head)
    if amount is None:
        return None
    words = _words_of(tail)
    scale = 1
    while words and words[0].lower() in MAGNITUDES:
        scale *= MAGNITUDES[words.pop(0).lower()]
    if scale != 1:
        value = amount.node.number
        if value is None:
            raise UnreadError("a magnitude of a formula")
        amount = Expression(number(value * scale))
    if not words:
        return amount
    return _quantity(amount, words)


def _amount(head: list[Token]) -> Expression | None:
    if all(token.kind in ("word", "text") for token in head):
        return _spelled(head)
    amount = read_expression(head)
    return amount if not amount.variables else None


def _unit_start(tokens: list[Token]) -> int:
    """Where the words at the end of an answer begin."""
    start = len(tokens)
    while start > 0:
        token = tokens[start - 1]
        unit_like = (
            token.kind == "text"
            or (token.kind == "word" and _is_unit_word(token))
            or is_command(token, "circ")
            or (
                token.kind == "word"
                and start > 1
                and (is_command(tokens[start - 2], "circ") or is_sign(tokens[start - 2], "/"))
            )
            or is_sign(token, "(", ")", "[", "]", "/", "^", "{", "}", ".", "-", "€", "£", "¥", "₹", "¤")
            or (token.kind == "num" and token.text in ("2", "3") and start > 1 and is_sign(tokens[start - 2], "^", "{"))
        )
        if not unit_like:
            break
        start -= 1
    # What only looks like a unit's sign goes back to the number.
    while start < len(tokens) and not _opens_unit(tokens, start):
        start += 1
    return start


def _opens_unit(tokens: list[Token], start: int) -> bool:
    token = tokens[start]
    if token.kind in ("text", "word"):
        return True
    if is_sign(token, "^") and start + 1 < len(tokens) and is_command(tokens[start + 1], "circ"):
        return True
    if is_sign(token, "(", "[") and start + 1 < len(tokens):
        return tokens[start + 1].kind in ("text", "word")
    return is_sign(token, "€", "£", "¥", "₹", "¤") and start > 0


def _is_unit_word(token: Token) -> bool:
    """Whether a run of letters may be a unit: known by name, or a word that no formula would hold."""
    lower = token.text.lower()
    if not token.text.isascii():
        return True
    if len(token.text) == 1:
        return False
    return (
        singular(token.text) in UNITS
        or lower in UNITS
        or lower in MAGNITUDES
        or len(token.text) >= 4
        or (len(token.text) == 3 and token.spaced)
        or lower in _FILLERS
    )


def _words_of(tail: list[Token]) -> list[str]:
    """The words of a unit: powers and strokes are said in words."""
    words: list[str] = []
    marked = False
    position = 0
    while position < len(tail):
        token = tail[position]
        if token.kind in ("word", "text"):
            marked = marked or token.kind == "text"
            text = token.text.replace("/", " per ").replace("^2", "²").replace("^3", "³")
            words.extend(word for word in re.split(r"[\s.,()-]+", text) if word)
        elif is_sign(token, "^"):
            after = [item.text for item in tail[position + 1 : position + 4]]
            power = after[0] if after[:1] in (["2"], ["3"]) else after[1] if after[:1] == ["{"] else ""
            if after[:1] == ["circ"]:
                words.append("°")
                position += 1
            elif power in ("2", "3") and words:
                words[-1] += {"2": "²", "3": "³"}[power]
                position += 1 if after[0] == power else 3
            else:
                raise UnreadError("a power in a unit")
        elif is_sign(token, "/"):
            words.append("per")
        elif token.text in CURRENCIES:
            words.append({"¤": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee"}[token.text])
        elif not is_sign(token, "(", ")", "[", "]", ".", "{", "}"):
            raise UnreadError(f"{token.text!r} in a unit")
        position += 1
    if words and words[0] == "°" and len(words) > 1 and words[1].lower() in ("c", "f", "celsius", "fahrenheit"):
        return [f"°{words[1][0].lower()}"]
    known = len(words[0]) > 1 and _unit(words[0]) is not None if words else False
    if not (marked or known) and any(len(word) == 1 and word.isascii() for word in words):
        raise UnreadError("a letter that may be a variable")
    return words


def _quantity(amount: Expression, words: list[str]) -> Quantity:
    if any(word.lower() in _QUALIFIERS for word in words):
        raise UnreadError("a number that is qualified")
    dimension, factor, rest = _leading_unit(words)
    named = frozenset(singular(word) for word in rest if word.lower() not in _FILLERS)
    if dimension:
        return Quantity(amount, dimension, factor, named)
    return Quantity(amount, "", Fraction(1), named or frozenset(word.lower() for word in words))


def _leading_unit(words: list[str]) -> tuple[str, Fraction, list[str]]:
    """The dimension and factor of the unit with which words begin, and what they say besides.

    The dimension is "" where the unit is none that is known.
    """
    power = 1
    rest = list(words)
    if rest[0].lower() in _SQUARED and len(rest) > 1:
        power = _SQUARED[rest.pop(0).lower()]
    first = _unit(rest[0])
    if first is None:
        return "", Fraction(1), words
    power *= {"²": 2, "³": 3}.get(rest[0][-1:], 1)
    rest = rest[1:]
    if rest and rest[0].lower() in ("squared", "cubed"):
        power *= 2 if rest.pop(0).lower() == "squared" else 3
    dimension, factor = first.dimension, first.factor**power
    if dimension == "length" and power == 3:
        dimension = "volume"  # in cubic metres, as litres are
    elif power != 1:
        dimension = f"{dimension}^{power}"
    below = _unit(rest[1]) if len(rest) > 1 and rest[0].lower() in ("per", "an", "a") else None
    if below is not None and dimension not in _MONEY:
        raised = {"²": 2, "³": 3}.get(rest[1][-1:], 1)
        ratio = f"{dimension} per {below.dimension}" + (f"^{raised}" if raised > 1 else "")
        return ("speed" if ratio == "length per time" else ratio), factor / below.factor**raised, rest[2:]
    return dimension, factor, rest


def _unit(word: str) -> Unit | None:
    bare = word.rstrip("²³")
    if len(bare) == 1:
        return LETTER_UNITS.get(bare) or UNITS.get(bare)
    return UNITS.get(bare) or UNITS.get(singular(bare)) or UNITS.get(bare.lower())
