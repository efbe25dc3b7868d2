"""The signs of an answer, one by one: every one of them is a token, or the answer is not read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from search.answers.notation import FUNCTIONS, GREEK_CAPITALS, GREEK_LETTERS, MONEY, ROW_END

MAX_TOKENS = 600
MAX_DEPTH = 40
MAX_DIGITS = 1000

GREEK = frozenset({*GREEK_LETTERS, *GREEK_CAPITALS, "ell", "hbar"}) - {"pi", "sigmaf"}
_NAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", **dict.fromkeys(("infinity", "inf", "oo"), "infty")}
_SCANNER = re.compile(
    r"(?P<space> +)"
    r"|(?P<thousands>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9]))"
    r"|(?P<spaced>[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?(?![0-9.]))"
    r"|(?P<repetend>[0-9]*\.[0-9]*(?:\\overline|\\bar|\\dot)\s?\{?\s?[0-9]+\s?\}?(?:[0-9]*\\dot\s?\{?[0-9]\}?)?|[0-9]*\.\([0-9]+\))"
    r"|(?P<scientific>(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,3}(?![0-9A-Za-z.]))"
    r"|(?P<num>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|«(?P<text>[^«»]*)»"
    r"|\\(?P<command>[A-Za-z]+)"
    r"|(?P<brace>\\[{}|])"
    r"|(?P<word>[A-Za-z]+(?:'(?:s|t)\b)?|(?:(?![A-Za-z])[^\W\d_])[^\W\d_]*)"
    rf"|(?P<sign>[-+*/^_=<>!%|,;:(){{}}\[\]&'\"{MONEY}{ROW_END}€£¥₹@#?.])"
)
_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "langle": "rangle", "lfloor": "rfloor", "lceil": "rceil"}
CLOSING = frozenset(_OPENING.values())


class UnreadError(Exception):
    """Something in an answer that is not understood: it is then compared as text."""


class Token(NamedTuple):
    """A sign: `kind` is num, text, command, word or sign; `spaced` where a space stands before it."""

    kind: str
    text: str
    spaced: bool


Tokens: TypeAlias = Sequence[Token]


def scan(notation: str) -> tuple[Token, ...]:
    """The tokens of a text in one notation.

    Raises:
        UnreadError: a sign that has no meaning here, or more of them than an answer has.
    """
    tokens: list[Token] = []
    position, spaced = 0, False
    loose_commas = ", " in notation
    depth = bracketed = 0
    while position < len(notation):
        match = _SCANNER.match(notation, position)
        if match is None:
            raise UnreadError(f"sign {notation[position]!r}")
        kind, text = match.lastgroup or "", match.group()
        position = match.end()
        if kind == "space":
            spaced = True
            continue
        if kind == "thousands" and bracketed and not loose_commas:
            # In brackets, a comma without a space after it parts two numbers.
            position = match.start() + text.index(",")
            kind, text = "num", text[: text.index(",")]
        if kind == "spaced" and bracketed:
            position = match.start() + text.index(" ")
            kind, text = "num", text[: text.index(" ")]
        if kind in ("thousands", "spaced"):
            kind, text = "num", text.replace(",", "").replace(" ", "")
        elif kind == "command":
            text = _NAMED.get(match["command"], match["command"])
        elif kind == "text":
            text = match["text"]
        elif kind in ("brace", "sign"):
            kind = "sign"
        if kind in ("num", "repetend") and len(text) > MAX_DIGITS:
            raise UnreadError("a number of many digits")
        if kind == "word":
            tokens.extend(_words(text, spaced))
        else:
            tokens.append(Token(kind, text, spaced))
        spaced = False
        if kind in ("sign", "command"):
            step = (text in _OPENING) - (text in CLOSING)
            depth, bracketed = depth + step, bracketed + step * (text not in "{}")
        if depth > MAX_DEPTH or len(tokens) > MAX_TOKENS:
            raise UnreadError("more than an answer has")
    return tuple(tokens)


def _words(run: str, spaced: bool) -> list[Token]:
    """A run of letters: a name that is known with or without a backslash, or the run as it is."""
    name = _NAMED.get(run, run)
    if name in FUNCTIONS or name in ("sqrt", "pi", "infty"):
        return [Token("command", name, spaced)]
    lowered = run.lower()
    if lowered in ("theta", "alpha", "beta", "gamma", "lambda", "omega", "phi") and run in GREEK:
        return [Token("command", run, spaced)]
    for known in ("sqrt", "pi"):
        if run.endswith(known) and len(run) - len(known) == 1:
            return [Token("word", run[: -len(known)], spaced), Token("command", known, False)]
    return [Token("word", run, spaced)]


def numeral(token: Token) -> Fraction:
    """The exact value of a number as it is written, repetends included."""
    text = token.text
    if token.kind == "scientific":
        mantissa, _, power = text.lower().partition("e")
        return Fraction(mantissa if mantissa[-1] != "." else mantissa[:-1]) * Fraction(10) ** int(power)
    if token.kind == "repetend":
        whole, _, rest = text.partition(".")
        fixed = re.match(r"[0-9]*", rest)
        assert fixed is not None
        repeated = "".join(re.findall(r"[0-9]", rest[fixed.end() :]))
        lead = fixed.group()
        scale = 10 ** len(lead)
        nines = 10 ** len(repeated) - 1
        return Fraction(int(whole or 0)) + Fraction(int(lead or 0), scale) + Fraction(int(repeated), nines * scale)
    return Fraction(f"0{text}" if text.startswith(".") else text)


def is_sign(token: Token, *signs: str) -> bool:
    """Whether a token is one of these signs."""
    return token.kind == "sign" and token.text in signs


def is_command(token: Token, *names: str) -> bool:
    """Whether a token is one of these commands."""
    return token.kind == "command" and token.text in names


def closes_at(tokens: Tokens, start: int) -> int:
    """Where the bracket that opens at `start` is closed, whatever kind of bracket closes it.

    Raises:
        UnreadError: it is not closed.
    """
    depth = 0
    for position, token in enumerate(tokens[start:], start):
        if token.kind in ("sign", "command"):
            depth += (token.text in _OPENING) - (token.text in CLOSING)
            if depth == 0 and token.text in CLOSING:
                return position
    raise UnreadError("a bracket that is not closed")


def split(tokens: Tokens, *, at: frozenset[str]) -> list[tuple[str, list[Token]]]:
    """The parts between separators outside all brackets, each with the separator before it ("" for the first).

    A separator is named by its sign or command, or by its word ("and", "or").

    Raises:
        UnreadError: brackets do not match.
    """
    parts: list[tuple[str, list[Token]]] = [("", [])]
    depth = 0
    for token in tokens:
        bracket = token.kind in ("sign", "command")
        depth += (token.text in _OPENING) - (token.text in CLOSING) if bracket else 0
        if depth < 0:
            raise UnreadError("a bracket that is not opened")
        name = _separator(token)
        if depth == 0 and name in at:
            parts.append((name, []))
        else:
            parts[-1][1].append(token)
    if depth:
        raise UnreadError("a bracket that is not closed")
    return parts


def _separator(token: Token) -> str:
    """What a token is called as a separator; "" for what is none."""
    if token.kind in ("word", "text"):
        word = token.text.strip()
        return word.lower() if word.lower() in ("and", "or", "to") else "U" if word == "U" and token.spaced else ""
    return token.text if token.kind in ("sign", "command") else ""
