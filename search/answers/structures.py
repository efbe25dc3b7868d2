"""The structure of an answer: lists, sets, tuples, intervals, relations and what stands in them, out of its tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction

from search.answers.compare import within
from search.answers.expressions import read_expression
from search.answers.quantities import read_compound, read_measured
from search.answers.regions import as_region
from search.answers.tokens import Token, Tokens, UnreadError, closes_at, is_command, is_sign, split
from search.answers.values import (
    Approximate,
    Choice,
    Expression,
    Interval,
    Labelled,
    Node,
    Ordered,
    Percentage,
    Ratio,
    Region,
    Relation,
    Text,
    Unordered,
    Value,
)

_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!="}
_SEPARATORS = frozenset((",", ";", "and", "or", "quad", "lor", "land", "vee", "wedge"))


def approximately(value: Value) -> Approximate:
    """The value as one that says of itself that it is rounded."""
    return value if isinstance(value, Approximate) else Approximate(value)


def read_tokens(tokens: list[Token]) -> Value:
    """The value that tokens are.

    Raises:
        UnreadError: something in them is not understood.
    """
    tokens = without_braces(tokens)
    if not tokens:
        raise UnreadError("nothing")
    if is_command(tokens[0], "approx"):
        return approximately(read_tokens(tokens[1:]))
    approximations = split(tokens, at=frozenset(("approx",)))
    if len(approximations) == 2:
        return _said_twice(*(part for _, part in approximations))
    parts = split(tokens, at=_SEPARATORS)
    compound = read_compound(parts)
    if compound is not None:
        return compound
    return read_list(parts) if len(parts) > 1 else _single(tokens)


def _said_twice(exactly: list[Token], roughly: list[Token]) -> Value:
    """What "x is about 1.4" and "1/3 is about 0.33" say: a rounded value with a name, and an exact one."""
    rounded = read_tokens(roughly)
    name = _variable(exactly)
    if name:
        return approximately(Labelled(name, rounded))
    value = read_tokens(exactly)
    half = half_unit("".join(token.text for token in roughly))
    if half is None or not within(value, rounded, half):
        raise UnreadError("a rounded value that is another")
    return value


def read_list(parts: list[tuple[str, list[Token]]]) -> Value:
    """The value of several parts, each with the separator before it.

    Raises:
        UnreadError: they are no list of values.
    """
    names = {name for name, _ in parts}
    kept = [part for _, part in parts if part]
    if len(kept) == 1:
        return read_tokens(kept[0])
    values = [read_tokens(part) for part in kept]
    if all(isinstance(value, Region) for value in values):
        regions = [value for value in values if isinstance(value, Region)]
        if names & {"or", "lor", "vee"}:
            return _united(regions)
        raise UnreadError("conditions that hold together")
    if names & {"land", "wedge"} or (
        names & {"lor", "vee"} and not all(isinstance(value, Labelled) for value in values)
    ):
        raise UnreadError("what holds together")
    if any(isinstance(value, Choice) and value.content is not None for value in values):
        raise UnreadError("choices with their contents")
    if any(isinstance(value, Text) for value in values):
        raise UnreadError("words in a list")
    return Unordered(_spread(values), False)


def _spread(values: Iterable[Value]) -> tuple[Value, ...]:
    """The values one by one, both of a plus-minus among them."""
    items: list[Value] = []
    for value in values:
        items += value.items if isinstance(value, Unordered) and not value.is_set else (value,)
    return tuple(items)


def _united(regions: list[Region]) -> Region:
    variables = {region.variable for region in regions if region.variable}
    if len(variables) > 1:
        raise UnreadError("conditions on several variables")
    return Region(tuple(part for region in regions for part in region.parts), next(iter(variables), ""))


def without_braces(tokens: list[Token]) -> list[Token]:
    """The tokens without braces that only group; braces around several items or a condition make a set."""
    while len(tokens) > 1 and is_sign(tokens[0], "{") and closes_at(tokens, 0) == len(tokens) - 1:
        inner = tokens[1:-1]
        if not inner or len(split(inner, at=frozenset((",", ";", "|")))) > 1:
            return [Token("sign", r"\{", tokens[0].spaced), *inner, Token("sign", r"\}", False)]
        tokens = inner
    return tokens


def _single(tokens: list[Token]) -> Value:
    """One value: no list."""
    for read in (_membership, _union, _relation, _bracketed, _signs_both, _ratio, _percentage, read_measured):
        value = read(tokens)
        if value is not None:
            return value
    if len(tokens) == 1 and tokens[0].kind == "text":
        raise UnreadError("words")
    if len(tokens) == 1 and tokens[0].kind == "word" and len(tokens[0].text) > 1:
        return _letters(tokens)
    return read_expression(tokens)


def _letters(tokens: list[Token]) -> Value:
    """A run of letters alone: a product of variables where it is no word."""
    if re.fullmatch(r"[b-df-hj-np-tv-z]{2}|[xyzuvw]{2,3}", tokens[0].text) is None:
        raise UnreadError("a word")
    return read_expression(tokens)


def _membership(tokens: list[Token]) -> Value | None:
    """The set in which x is."""
    if len(tokens) > 2 and is_command(tokens[1], "in") and tokens[0].kind in ("word", "command"):
        value = read_tokens(tokens[2:])
        value = as_region(value) or value
        if isinstance(value, Region) and len(tokens[0].text) == 1:
            return Region(value.parts, tokens[0].text)
        return value
    return None


def _union(tokens: list[Token]) -> Value | None:
    parts = split(tokens, at=frozenset(("cup", "U")))
    if len(parts) > 1:
        regions = [as_region(_single(part)) for _, part in parts if part]
        if any(region is None for region in regions) or len(regions) != len(parts):
            raise UnreadError("a union of something else than numbers")
        return _united([region for region in regions if region is not None])
    parts = split(tokens, at=frozenset(("setminus",)))
    if len(parts) == 2 and _is_reals(parts[0][1]):
        without = _single(parts[1][1])
        if isinstance(without, Unordered) and all(isinstance(item, Expression) for item in without.items):
            return _all_but([item for item in without.items if isinstance(item, Expression)])
    if _is_reals(tokens):
        return Region((Interval(infinity(-1), infinity(1), False, False),))
    return None


def _is_reals(tokens: Tokens) -> bool:
    return len(tokens) == 4 and is_command(tokens[0], "mathbb") and tokens[2].text == "R"


def infinity(sign: int) -> Expression:
    """Infinity, or minus infinity."""
    return Expression(Node("inf") if sign > 0 else Node("neg", (Node("inf"),)))


def _all_but(points: list[Expression], variable: str = "") -> Region:
    if len(points) != 1:
        raise UnreadError("all but several numbers")
    point = points[0]
    return Region((Interval(infinity(-1), point, False, False), Interval(point, infinity(1), False, False)), variable)


def _relation(tokens: list[Token]) -> Value | None:
    parts = split(tokens, at=frozenset(_RELATIONS))
    if len(parts) == 1:
        return None
    signs = [_RELATIONS[name] for name, _ in parts[1:]]
    sides = [part for _, part in parts]
    if len(parts) == 2 and signs == ["="] and not sides[0] and sides[1]:
        return read_tokens(sides[1])
    if any(not side for side in sides):
        raise UnreadError("a side of a relation that is missing")
    if len(parts) == 2:
        return _two_sided(sides[0], signs[0], sides[1])
    if len(parts) == 3 and set(signs) <= {"<", "<="} and _variable(sides[1]):
        return _between(sides[0], signs[0], sides[1], signs[1], sides[2])
    if len(parts) == 3 and set(signs) <= {">", ">="} and _variable(sides[1]):
        flip = {">": "<", ">=": "<="}
        return _between(sides[2], flip[signs[1]], sides[1], flip[signs[0]], sides[0])
    raise UnreadError("a chain of relations")


def _between(low: list[Token], low_sign: str, middle: list[Token], high_sign: str, high: list[Token]) -> Region:
    interval = Interval(read_expression(low), read_expression(high), low_sign == "<=", high_sign == "<=")
    return Region((interval,), _variable(middle))


def _variable(tokens: Tokens) -> str:
    """The name of a variable alone, or of a function of one: x, x_1, theta, f(x); "" for anything else."""
    if not tokens:
        return ""
    head = tokens[0]
    if head.kind == "text" and re.fullmatch(r"[A-Za-z ]{1,40}", head.text):
        name = head.text.strip()
    elif head.kind == "word" or (head.kind == "command" and head.text not in ("frac", "sqrt", "pi", "infty", "binom")):
        name = head.text
    else:
        return ""
    rest = tokens[1:]
    if not rest:
        return name
    texts = [token.text for token in rest]
    if texts[0] == "_" and len(rest) in (2, 4) and (len(rest) == 2 or (texts[1], texts[3]) == ("{", "}")):
        return f"{name}_{texts[1 if len(rest) == 2 else 2]}"
    if texts[0] == "(" and texts[-1] == ")" and 3 <= len(rest) <= 5 and head.kind == "word" and len(name) <= 2:
        return f"{name}{''.join(texts)}"
    if all(token.kind in ("word", "text") for token in rest) and len(rest) <= 6:
        return " ".join(token.text.strip() for token in tokens)
    return ""


def _is_name(tokens: list[Token]) -> bool:
    """Whether tokens only name something: f'(x), a vector, an angle, (x, y)."""
    if _is_inverse(tokens):
        return True
    if any(is_sign(token, "+", "*", "/", "!", "%") for token in tokens):
        return False
    if any(token.kind not in ("sign", "command", "word", "text") for token in tokens):
        return False
    if is_sign(tokens[0], "(") and all(token.kind == "word" or is_sign(token, "(", ")", ",") for token in tokens):
        return True
    try:
        read_expression(tokens)
    except UnreadError:
        return not any(is_sign(token, "-") for token in tokens)
    return False


def _is_inverse(tokens: list[Token]) -> bool:
    return re.fullmatch(r"[A-Za-z]\^\{?-1\}?\([A-Za-z]\)", "".join(token.text for token in tokens)) is not None


def _two_sided(left: list[Token], sign: str, right: list[Token]) -> Value:
    name, other = _variable(left), _variable(right)
    if sign == "=":
        if name:
            value = read_tokens(right)
            if not (isinstance(value, Expression) and name in value.variables):
                return value if isinstance(value, Text) else Labelled(name, value)
        elif other and not (len(left) == 1 and left[0].kind == "text"):
            value = read_tokens(left)
            if not (isinstance(value, Expression) and other in value.variables):
                return Labelled(other, value)
        elif _is_name(left):
            return Labelled("".join(token.text for token in left), read_tokens(right))
        return Relation(read_expression(left), "=", read_expression(right))
    if sign in (">", ">="):
        sign, left, right, name, other = {">": "<", ">=": "<="}[sign], right, left, other, name
    first, second = read_expression(left), read_expression(right)
    closed = sign == "<="
    if sign == "!=":
        if name and not second.variables:
            return _all_but([second], name)
        return Relation(first, sign, second)
    if name and not second.variables and len(first.variables) == 1:
        return Region((Interval(infinity(-1), second, False, closed),), name)
    if other and not first.variables and len(second.variables) == 1:
        return Region((Interval(first, infinity(1), closed, False),), other)
    return Relation(first, sign, second)


def _bracketed(tokens: list[Token]) -> Value | None:
    """Tuples, intervals, sets and vectors: what is wholly in brackets."""
    first, last = tokens[0], tokens[-1]
    if len(tokens) < 2 or first.kind not in ("sign", "command"):
        return None
    if is_sign(first, "]") and is_sign(last, "[", "]"):
        return _interval(tokens[1:-1], False, last.text == "]")
    if is_sign(first, "[") and is_sign(last, "["):
        return _interval(tokens[1:-1], True, False)
    if first.text not in ("(", "[", r"\{", "langle") or closes_at(tokens, 0) != len(tokens) - 1:
        return None
    inner = tokens[1:-1]
    pair = first.text + last.text
    if pair == r"\{\}":
        return _set(inner)
    parts = split(inner, at=frozenset((",", ";")))
    if pair in ("(]", "[)"):
        return _interval(inner, first.text == "[", last.text == "]")
    if pair not in ("()", "[]", "langlerangle"):
        raise UnreadError("brackets that do not match")
    if len(parts) == 1:
        if pair == "()" and len(inner) == 1 and inner[0].kind == "text":
            raise UnreadError("words in brackets")
        return read_tokens(inner) if pair != "langlerangle" else None
    if any(not part for _, part in parts):
        raise UnreadError("an item that is missing")
    return Ordered(tuple(_single(without_braces(part)) for _, part in parts), pair == "[]")


def _interval(inner: list[Token], closed_low: bool, closed_high: bool) -> Interval:
    parts = split(inner, at=frozenset((",", ";")))
    if len(parts) != 2:
        raise UnreadError("an interval without two ends")
    low, high = (read_expression(part) for _, part in parts)
    return Interval(low, high, closed_low, closed_high)


def _set(inner: list[Token]) -> Value:
    """A set by its items, or by a condition: {x | x > 2}."""
    if not inner:
        return Unordered((), True)
    for bar in ("|", ":"):
        at = next((n for n, token in enumerate(inner) if is_sign(token, bar)), None)
        if at in (1, 4) and inner[0].kind == "word" and at is not None:
            if at == 4 and not (is_command(inner[1], "in") and is_command(inner[2], "mathbb")):
                break
            value = read_tokens(inner[at + 1 :])
            if not isinstance(value, Region):
                raise UnreadError("a set by a condition")
            return value
    parts = split(inner, at=frozenset((",", ";", "ldots")))
    if any(not part or name == "ldots" for name, part in parts):
        raise UnreadError("an item that is missing")
    return Unordered(_spread(_single(without_braces(part)) for _, part in parts), True)


def _signs_both(tokens: list[Token]) -> Value | None:
    r"""Both values of a \pm, as a list."""
    places = [n for n, token in enumerate(tokens) if is_command(token, "pm", "mp")]
    if not places:
        return None
    if len(places) > 2:
        raise UnreadError("many signs that are open")
    values: list[Value] = []
    for upper in (True, False):
        chosen = list(tokens)
        for place in places:
            plus = is_command(tokens[place], "pm") == upper
            chosen[place] = Token("sign", "+" if plus else "-", tokens[place].spaced)
        values.append(_single(chosen))
    return Unordered(tuple(values), False)


def _ratio(tokens: list[Token]) -> Value | None:
    parts = split(tokens, at=frozenset((":", "to")))
    if len(parts) == 1 or any(not part for _, part in parts):
        return None
    return Ratio(tuple(read_expression(part) for _, part in parts))


def _percentage(tokens: list[Token]) -> Value | None:
    last = tokens[-1]
    if is_sign(last, "%") and len(tokens) > 1:
        return Percentage(read_expression(tokens[:-1]))
    words = [token.text.strip().lower() for token in tokens[1:] if token.kind in ("word", "text")]
    for ending in (["percent"], ["per", "cent"], ["percents"], ["per cent"], ["pct"]):
        if words[-len(ending) :] == ending and all(token.kind in ("word", "text") for token in tokens[-len(ending) :]):
            return Percentage(read_expression(tokens[: -len(ending)]))
    return None


def half_unit(answer: str) -> Fraction | None:
    """Half of the last place of a decimal number in an answer, or of one in units where it has no places."""
    found = re.findall(r"[0-9]+(?:\.([0-9]+))?", answer)
    if len(found) != 1:
        return None
    return Fraction(1, 2 * 10 ** len(found[0]))
