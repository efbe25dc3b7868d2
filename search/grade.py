r"""Answers out of solutions, and whether they are right: plain text and numbers, exact integers.

Any text is accepted, in linear time: what cannot be read is no answer or another one, never an exception. The
grader for real mathematics (fractions, radicals, sets) is a class of its own beside these.
"""

from __future__ import annotations

import re
from typing import ClassVar, Protocol, runtime_checkable

MAX_ANSWER_CHARS = 10_000
"""A longer "answer" is no answer; keeps what follows the extraction cheap on hostile text."""

_BRACES = re.compile(r"\\boxed[ \t]{0,8}\{|\\.|\{+|\}+", re.DOTALL)
_PHRASE = re.compile(r"\banswer[ \t]{1,8}is[ \t]{0,8}:?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?:\.[0-9]*)?")
_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?")
_INTEGER = re.compile(r"([+-]?)([0-9]+)")
_SPACING = re.compile(r"\s+|\\[,!;: ]|~")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_DROPPED = (r"\$", "$", r"\%", "%")


@runtime_checkable
class Grader(Protocol):
    """Finds answers, tells which are the same, and which are right. Raises on no text."""

    @property
    def name(self) -> str:
        """As in the run record."""

    def extract(self, text: str) -> str | None:
        """The answer that a solution gives; None where it gives none."""

    def key(self, answer: str) -> str:
        """A canonical form: answers of equal keys are the same answer."""

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether `answer` is the reference; no answer is wrong."""


@runtime_checkable
class ComparingGrader(Grader, Protocol):
    """A grader that also knows answers of unequal keys to be the same; it may hold a process, so it is closed."""

    def equivalent(self, one: str, other: str) -> bool:
        """Whether two answers are the same."""

    def close(self) -> None:
        """Free what it holds."""


class PlainGrader:
    r"""Numbers by value and other answers by their text, spaces and LaTeX's spacing left out.

    Thousands separators, a leading "+", zeros that add nothing ("007", "5.0", ".5"), "$" and "%" are ignored,
    so "50%" is 50; case is kept.
    """

    name: ClassVar[str] = "plain"

    def extract(self, text: str) -> str | None:
        """As `extract_answer`."""
        return extract_answer(text)

    def key(self, answer: str) -> str:
        """As `canonical_answer`."""
        return canonical_answer(answer)

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether both have the same, non-empty canonical form; a reference may be a whole solution."""
        if answer is None:
            return False
        key = self.key(answer)
        return key != "" and key in (self.key(reference), self.key(extract_answer(reference) or ""))


class IntegerGrader:
    """Integers exactly, as in the mini family: anything else is no right answer."""

    name: ClassVar[str] = "integer"

    def extract(self, text: str) -> str | None:
        """As `extract_answer`."""
        return extract_answer(text)

    def key(self, answer: str) -> str:
        """The integer without a plus sign and leading zeros; other text stripped."""
        return _integer(answer) or answer.strip()

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether both are the same integer."""
        value = None if answer is None else _integer(answer)
        return value is not None and value == _integer(reference)


def extract_answer(text: str) -> str | None:
    r"""The answer in a solution, stripped; None where there is none.

    In this order: the last complete `\boxed{...}`, braces nested as deep as may be (of nested boxes the inner
    one); what follows the last "answer is" up to the end of its sentence or line; what follows the last
    "####" in its line. A box that is cut off or empty is no answer.
    """
    for find in (_last_box, _after_phrase, _after_hashes):
        answer = find(text)
        if answer:
            return answer
    return None


def canonical_answer(answer: str) -> str:
    """The form in which equal answers are equal texts; see `PlainGrader`."""
    text = answer.strip()
    for opening, closing in _WRAPPERS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
            break
    for sign in _DROPPED:
        text = text.replace(sign, "")
    text = _SPACING.sub("", text).removesuffix(".")
    if _THOUSANDS.fullmatch(text):
        text = text.replace("{,}", "").replace(",", "")
    return _canonical_number(text) or text


def _last_box(text: str) -> str | None:
    """The content of the box that opens last of all that are closed."""
    start = text.find("\\boxed")
    if start < 0:
        return None
    depth = 0
    open_boxes: list[tuple[int, int]] = []
    found = (-1, -1)
    for token in _BRACES.finditer(text, start):
        piece = token.group()
        if piece.startswith("{"):
            depth += len(piece)
        elif piece.startswith("\\boxed"):
            open_boxes.append((depth, token.end()))
            depth += 1
        elif piece.startswith("}"):
            lowest = max(0, depth - len(piece))
            while open_boxes and open_boxes[-1][0] >= lowest:
                outside, begin = open_boxes.pop()
                # The box's own brace is the one that brings the depth back to `outside`.
                found = max(found, (begin, token.start() + depth - outside - 1))
            depth = lowest
    begin, end = found
    return _clean(text[begin:end]) if 0 <= end - begin <= MAX_ANSWER_CHARS and begin >= 0 else None


def _after_phrase(text: str) -> str | None:
    start = max((match.end() for match in _PHRASE.finditer(text)), default=None)
    if start is None:
        return None
    line = _first_line(text, start)
    sentence_end = _SENTENCE_END.search(line)
    return _clean(line[: sentence_end.start()] if sentence_end else line)


def _after_hashes(text: str) -> str | None:
    position = text.rfind("####")
    return None if position < 0 else _clean(_first_line(text, position + 4))


def _first_line(text: str, start: int) -> str:
    """The rest of a line, leading space left out; empty where it is too long for an answer."""
    rest = text[start : start + MAX_ANSWER_CHARS + 1].lstrip(" \t")
    line = rest.partition("\n")[0]
    return "" if len(line) >= MAX_ANSWER_CHARS else line


def _clean(answer: str) -> str | None:
    answer = answer.strip()
    return None if not answer or answer.startswith("\\boxed") else answer


def _canonical_number(text: str) -> str | None:
    """A decimal number without a plus sign and without zeros that add nothing; None for other text.

    Works on the digits, so that numbers of any length are exact and cheap.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    whole = match[2].lstrip("0") or "0"
    fraction = (match[3] or "").rstrip("0")
    number = f"{whole}.{fraction}" if fraction else whole
    return f"-{number}" if match[1] == "-" and number != "0" else number


def _integer(text: str) -> str | None:
    match = _INTEGER.fullmatch(text.strip())
    if match is None:
        return None
    digits = match[2].lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits
