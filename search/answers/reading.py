r"""Typed values out of what was written: an answer is read to its last sign, or it is text.

`read_value` never fails: where a sign is not understood the answer stays the text that it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from search.answers.expressions import read_expression
from search.answers.notation import MAX_CHARS, ROW_END, one_notation
from search.answers.quantities import read_clock
from search.answers.structures import approximately, infinity, read_list, read_tokens, without_braces
from search.answers.tokens import UnreadError, scan
from search.answers.values import Based, Choice, Interval, Labelled, Matrix, Region, Text, Unordered, Value

_CHOICE = re.compile(
    r"(?i:«?(?:option|choice|answer)»?\s?:?\s?)?(?:\(\s?«?(?P<closed>[A-J])»?\s?\)|«?\(?(?P<open>[A-J])\s?\)»?|«?(?P<alone>[A-J])»?(?=$|\s?[.:]\s))"
    r"(?:\s?[.:]?\s?(?P<rest>.+))?"
)
_BASES_WITH_LETTERS = frozenset(("11", "12", "13", "14", "15", "16"))
_BASED = re.compile(r"\(?\s?([0-9A-Za-z]{1,200})\s?\)?\s?_\s?(?:\{\s?«?([0-9]{1,2}|[a-z]{3,8})»?\s?\}|([0-9]))")
_LEAD = re.compile(
    r"«?(?:the )?(?:final )?(?:answer|solution|result)s?(?: set)?(?: (?:is|are))?\s?[:=]?\s?»?\s?:?\s?"
    r"(?=[\s\\({\[0-9-])",
    re.IGNORECASE,
)
_APPROXIMATELY = re.compile(
    r"(?:\\approx|~|«?(?:approximately|approx\.?|about|roughly|around|nearly|circa|ca\.)»?)\s?", re.IGNORECASE
)
_APPROXIMATED = re.compile(r"\s?\(?«?\(?(?:approximately|approx\.?|rounded)\)?»?\)?$", re.IGNORECASE)
_MATRIX = re.compile(
    r"[(\[]?\s?\\begin\s?\{\s?«?(?P<kind>[a-zA-Z]*matrix|array)\*?»?\s?\}(?:\s?\{[lcr|\s]*\})?"
    r"(?P<body>.*)\\end\s?\{\s?«?(?P=kind)\*?»?\s?\}\s?[)\]]?"
)
_SYSTEM = re.compile(
    r"(?:\\begin\s?\{\s?«?cases»?\s?\}|\\\{\s?\\begin\s?\{\s?«?(?:array|aligned)»?\s?\}(?:\s?\{[lcr|\s]*\})?)(?P<body>.*)"
    r"\\end\s?\{\s?«?(?:cases|array|aligned)»?\s?\}"
)
_NAMED_MATRIX = re.compile(r"(?P<name>[^=]{1,30})=\s?(?P<matrix>[(\[]?\s?\\begin\s?\{\s?«?[a-z]*matrix.*)")
_EMPTY = re.compile(r"\\emptyset|\\\{\s?\\\}|«?(?:the )?empty set»?", re.IGNORECASE)
_ALIKE_SPACES = re.compile(r"(?<=[^\W_]) (?=[^\W_])| ")
_QUOTED = re.compile(r"^([\"'])(.*)\1$")
_REALS = re.compile(r"(?:the )?(?:set of )?(?:all )?real numbers|all reals", re.IGNORECASE)
_PHRASE_WORD = r"(?:[^\W\d_]{2,}|[0-9]+(?:st|nd|rd|th)?|a)[,.:;]?"
_PHRASE = re.compile(rf"(?=.*[^\W\d_]{{4}}){_PHRASE_WORD}(?: {_PHRASE_WORD})*")
_WORDS_ALONE = re.compile(r"[^\W\d_][^\d\\^_={}<>|+*/]*")


@lru_cache(maxsize=8192)
def read_value(answer: str) -> Value:
    """The value of an answer."""
    notation = one_notation(answer)
    if len(notation) > MAX_CHARS:
        return Text(notation)
    try:
        return _read(notation)
    except UnreadError:
        return _text(notation)


@lru_cache(maxsize=8192)
def canonical_text(answer: str) -> str:
    """An answer as text: in one notation, without spaces that part nothing; of plain words the case is left out."""
    return _text(one_notation(answer)).text


def _text(notation: str) -> Text:
    plain = notation.replace("«", "").replace("»", "")
    plain = _QUOTED.sub(r"\2", " ".join(plain.split()).removesuffix("."))
    if len(plain) > 1 and (_WORDS_ALONE.fullmatch(plain) or _PHRASE.fullmatch(plain)):
        return Text(plain.casefold())
    closed = _ALIKE_SPACES.sub(lambda found: " " if _parts_alike(plain, found.start()) else "", plain)
    return Text(closed, formula=True)


def _parts_alike(text: str, position: int) -> bool:
    """Whether a space parts two letters or two digits, so that it says something."""
    before, after = text[position - 1 : position], text[position + 1 : position + 2]
    if before.isalnum() and after.isalnum():
        return True
    return (before.isdigit() and after == ".") or (before in (".", ",") and after.isdigit())


def _read(notation: str) -> Value:
    notation = _stripped(notation)
    if not notation:
        return Text("")
    choice = _choice(notation)
    if choice is not None:
        return choice
    approximate = _APPROXIMATELY.match(notation)
    tail = _APPROXIMATED.search(notation)
    if approximate is not None and approximate.end() < len(notation):
        return approximately(_read(notation[approximate.end() :]))
    if tail is not None and tail.start() > 0:
        return approximately(_read(notation[: tail.start()]))
    if _EMPTY.fullmatch(notation):
        return Unordered((), True)
    based = _BASED.fullmatch(notation)
    base = (based[2] or based[3]) if based is not None else ""
    if based is not None and (any(sign.isdigit() for sign in based[1]) or base in _BASES_WITH_LETTERS):
        return Based(based[1].lstrip("0").lower() or "0", {"two": "2", "eight": "8", "ten": "10"}.get(base, base))
    matrix = _MATRIX.fullmatch(notation)
    if matrix is not None:
        return _matrix(matrix["body"])
    system = _SYSTEM.fullmatch(notation)
    if system is not None:
        rows = [row.replace("&", " ").strip(" ,;") for row in system["body"].split(ROW_END)]
        return read_list([(",", list(scan(row))) for row in rows if row])
    named = _NAMED_MATRIX.fullmatch(notation)
    if named is not None:
        name = "".join(token.text for token in without_braces(list(scan(named["name"].strip()))))
        return Labelled(name, _read(named["matrix"]))
    if _REALS.fullmatch(notation.strip("«» ")):
        return Region((Interval(infinity(-1), infinity(1), False, False),))
    clock = read_clock(notation)
    if clock is not None:
        return clock
    return read_tokens(list(scan(notation)))


def _stripped(notation: str) -> str:
    lead = _LEAD.match(notation)
    if lead is not None and lead.end() < len(notation):
        notation = notation[lead.end() :].strip()
    return notation.rstrip(".,;: ")


def _choice(notation: str) -> Choice | None:
    if re.fullmatch(r"«?[A-J]»?", notation):
        return Choice(notation.strip("«»"))
    match = _CHOICE.fullmatch(notation)
    if match is None:
        return None
    letter = match["closed"] or match["open"] or match["alone"]
    rest = match["rest"]
    if rest is None:
        return Choice(letter)
    if match["open"] and notation.lstrip("«")[:1] == "(" and not match["closed"]:
        return None
    if re.match(r"\s?[-+*/^_=<>\\(),|!]", rest) and not re.match(r"\s?\\(?:frac|sqrt|\{|pi|infty|begin)|\s?[-(]", rest):
        return None
    try:
        content = _read(rest)
    except UnreadError:
        content = _text(rest)
    return None if isinstance(content, Choice) else Choice(letter, content)


def _matrix(body: str) -> Value:
    body = body.replace("\\hline", "")
    rows = [row for row in body.split(ROW_END) if row.strip()]
    cells = [tuple(read_expression(scan(cell.strip())) for cell in row.split("&")) for row in rows]
    if not cells or len({len(row) for row in cells}) != 1:
        raise UnreadError("a matrix of rows of unequal length")
    return Matrix(tuple(cells))
