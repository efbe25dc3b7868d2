r"""Whether answers are right, plainly: numbers and text by their signs, exact integers, choices, exact text.

Any text is accepted, in linear time: what cannot be read is another answer, never an exception. The grader for real
mathematics is a class of its own beside these.
"""

from __future__ import annotations

import re
from typing import ClassVar, Protocol, runtime_checkable

from search.answers.reader import read_answer, stated_answer

_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?:\.[0-9]*)?")
_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?")
_SPACING = re.compile(r"\s+|\\[,!;: ]|~")
_ALIKE = re.compile(r"(?<=[^\W_]) (?=[^\W_])")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_DROPPED = (r"\$", "$", r"\%", "%")
_LETTER = re.compile(
    r"(?:the\s)?(?:(?:final|correct|best)\s)?(?:option|choice|answer)?(?:\sis)?\s?:?\s?"
    r"[*_\"'$\\]{0,4}(?:text|mathrm|textbf|mathbf)?\s?\{?\s?[(\[]?\s?(?P<letter>[A-J])\s?[)\]]?\s?\}?[*_\"'$]{0,4}(?:\s?[).:,]\s?.*|\s.*)?",
    re.IGNORECASE | re.DOTALL,
)


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

    def correct(self, answer: str | None, reference: str) -> bool | None:
        """Whether `answer` is the reference; no answer is wrong. None where that cannot be decided."""


@runtime_checkable
class ComparingGrader(Grader, Protocol):
    """A grader that also knows answers of unequal keys to be the same; it may hold a process, so it is closed."""

    def equivalent(self, first: str, second: str) -> bool:
        """Whether two answers are the same."""

    def close(self) -> None:
        """Free what it holds."""


def close_grader(grader: Grader) -> None:
    """Free what a grader holds, if it holds anything; it may be used again and then makes it anew."""
    if isinstance(grader, ComparingGrader):
        grader.close()


class AnswerReader:
    """What graders share that find answers as `search.answers.reader` does."""

    def extract(self, text: str) -> str | None:
        """As `read_answer`."""
        return read_answer(text)


class PlainGrader(AnswerReader):
    r"""Numbers by value and other answers by their text, spaces and LaTeX's spacing left out.

    Thousands separators, a leading "+", zeros that add nothing ("007", "5.0", ".5"), "$" and "%" are ignored,
    so "50%" is 50; case is kept, and so is a space between two letters or digits.
    """

    name: ClassVar[str] = "plain"

    def key(self, answer: str) -> str:
        """As `canonical_answer`."""
        return canonical_answer(answer)

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether both have the same, non-empty canonical form; a reference may be a whole solution."""
        if answer is None:
            return False
        key = self.key(answer)
        return key != "" and key in (self.key(reference), self.key(stated_answer(reference) or ""))


class IntegerGrader(AnswerReader):
    """Integers exactly, as in the mini family: anything else is no right answer."""

    name: ClassVar[str] = "integer"

    def key(self, answer: str) -> str:
        """The integer without a plus sign and leading zeros; other text stripped."""
        return _integer(answer) or answer.strip()

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether both are the same integer."""
        value = None if answer is None else _integer(answer)
        return value is not None and value == _integer(reference)


class ExactGrader(AnswerReader):
    """The very text, but for the spaces around it."""

    name: ClassVar[str] = "exact"

    def key(self, answer: str) -> str:
        """The answer stripped."""
        return answer.strip()

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether both are the same text, and some text."""
        return answer is not None and answer.strip() == reference.strip() != ""


class ChoiceGrader(AnswerReader):
    """The letter of a multiple choice, however it is set off: (C), C., C) 15, option c. Contents are not compared."""

    name: ClassVar[str] = "choice"

    def key(self, answer: str) -> str:
        """The letter in capitals; other text stripped."""
        return choice_letter(answer) or answer.strip()

    def correct(self, answer: str | None, reference: str) -> bool:
        """Whether both are the same letter; a reference may be a whole solution."""
        letter = None if answer is None else choice_letter(answer)
        expected = choice_letter(reference) or choice_letter(stated_answer(reference) or "")
        return letter is not None and letter == expected


def choice_letter(answer: str) -> str | None:
    """The letter that an answer to a multiple choice begins with, in capitals; None where it begins with none."""
    text = answer.strip()
    match = _LETTER.fullmatch(text[:1000])
    if match is None:
        return None
    alone = len(text) <= 2
    # "A dog" and "I think" are no choices.
    marked = re.match(r"\s?[)\]}.:,*]", text[match.end("letter") :]) or text[: match.start("letter")].strip()
    return match["letter"].upper() if alone or marked or match.end("letter") == len(text) else None


def canonical_answer(answer: str) -> str:
    """The form in which equal answers are equal texts; see `PlainGrader`."""
    text = answer.strip()
    for opening, closing in _WRAPPERS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
            break
    for sign in _DROPPED:
        text = text.replace(sign, "")
    text = _SPACING.sub(" ", text).strip()
    # A space that parts two words or numbers says something; any other does not.
    text = _ALIKE.sub("\0", text).replace(" ", "").replace("\0", " ").removesuffix(".")
    if _THOUSANDS.fullmatch(text):
        text = text.replace("{,}", "").replace(",", "")
    return canonical_number(text) or text


def canonical_number(text: str) -> str | None:
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
    return None if "." in text else canonical_number(text.strip())
