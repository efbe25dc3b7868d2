"""Choices of a multiple-choice problem, in the shapes that public data sets have, and the letter of the right one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search.errors import DataError

_LABELLED = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])\s?[).:\uff0e\u3001])\s*")
_IN_TEXT = re.compile(r"(?<![^\s(,;])\(?([A-Za-z])\s?[).:\uff0e\u3001]")


@dataclass(frozen=True, slots=True)
class Choices:
    """What may be chosen.

    Attributes:
        labels: the letter of each.
        texts: each without its letter.
        shown: as it goes into the problem.
        by_value: the texts were numbers, so that a number names one and is no position.
        by_text: the letters are ours, so that only its text names a choice.
    """

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    shown: str
    by_value: bool = False
    by_text: bool = False

    def shown_in(self, problem: str) -> str:
        """The problem with its choices: added on lines of their own, unless it lists them already."""
        squashed = _squashed(problem)
        place = 0
        for label, text in zip(self.labels, self.texts, strict=True):
            found = re.compile(rf"\(?{label}\)?[).:\uff0e\u3001]?{re.escape(_squashed(text))}").search(squashed, place)
            if found is None:
                return f"{problem.rstrip()}\n{self.shown}"
            place = found.end()
        return problem

    def letter(self, value: Any) -> str:
        """The letter of the right choice.

        Args:
            value: a letter, a letter with its text, a choice's text, or its position from 0.

        Raises:
            ValueError: none of them, or of more than one choice; says what was found.
        """
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if isinstance(value, int) and not isinstance(value, bool) and not (self.by_value or self.by_text):
            if 0 <= value < len(self.labels):
                return self.labels[value]
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            text = str(value).strip()
            labels = {label.lower(): label for label in self.labels}
            if not self.by_text and (bare := text.strip("(). :").lower()) in labels:
                return labels[bare]
            named = [label for label, one in zip(self.labels, self.texts, strict=True) if _same(one, text)]
            if len(named) == 1:
                return named[0]
            start = _LABELLED.match(text)
            if not self.by_text and start is not None and (label := (start[1] or start[2]).lower()) in labels:
                return labels[label]
        raise ValueError(f"{value!r}, which is none of the choices {', '.join(self.labels)}")


def choices_of_value(value: Any, where: str) -> Choices | None:
    """Choices out of one column; None where it is empty.

    Args:
        value: a list of texts (with letters or without) or of objects, lists under text and label, an object from
            letters to texts, or one text with all of them.
        where: the row, for errors.

    Raises:
        DataError: another shape.
    """
    if value is None or value in ("", [], {}):
        return None
    try:
        return _read(value)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: choices of a shape that is not known ({str(value)[:80]!r})") from None


def choices_of_columns(columns: Mapping[str, str]) -> Choices:
    """Choices each in a column of its own.

    Columns named by letters keep them. Others hold the right choice first, as in GPQA: they are put into an order that
    only their texts decide, the same on every machine.
    """
    if all(len(name) == 1 for name in columns):
        return _listed([name.upper() for name in columns], list(columns.values()))
    order = sorted(columns.values(), key=lambda text: hashlib.sha256(text.encode("utf-8", "replace")).digest())
    return replace(_listed(_letters(len(order)), [text.strip() for text in order]), by_text=True)


def _read(value: Any) -> Choices:
    if isinstance(value, str):
        return _out_of_text(value)
    if isinstance(value, dict):
        if "text" in value and "label" in value:
            return _listed(value["label"], value["text"])
        return _listed(list(value), list(value.values()))
    if not isinstance(value, list):
        raise TypeError(value)
    if all(isinstance(item, dict) for item in value):
        key = "label" if "label" in value[0] else "key"
        return _listed([item[key] for item in value], [item["text"] for item in value])
    starts = [_LABELLED.match(item) if isinstance(item, str) else None for item in value]
    labels = [(start[1] or start[2]) if start is not None else "" for start in starts]
    if [label.upper() for label in labels] == _letters(len(value)):
        texts = [item[start.end() :] for item, start in zip(value, starts, strict=True) if start is not None]
        return Choices(tuple(labels), tuple(texts), "\n".join(value))
    return _listed(_letters(len(value)), value)


def _out_of_text(value: str) -> Choices:
    """Choices that stand in one text, each after its letter; the text is kept as it is."""
    found: list[re.Match[str]] = []
    first = "A"
    for match in _IN_TEXT.finditer(value):
        if not found and match[1] == "a":
            first = "a"
        if match[1] == chr(ord(first) + len(found)):
            found.append(match)
    if len(found) < 2:
        raise ValueError(value)
    ends = [*(match.start() for match in found[1:]), len(value)]
    texts = [value[match.end() : end].strip(" ,;\n") for match, end in zip(found, ends, strict=True)]
    return Choices(tuple(match[1] for match in found), tuple(texts), value.strip())


def _listed(labels: Sequence[Any], texts: Sequence[Any]) -> Choices:
    if len(labels) != len(texts) or not all(isinstance(text, str | int | float) for text in texts):
        raise TypeError(texts)
    names = tuple(str(label).strip() for label in labels)
    said = tuple(str(text).strip() for text in texts)
    shown = "\n".join(f"{name}) {text}" for name, text in zip(names, said, strict=True))
    return Choices(names, said, shown, by_value=not any(isinstance(text, str) for text in texts))


def _letters(count: int) -> list[str]:
    if count > 26:
        raise ValueError(count)
    return [chr(ord("A") + place) for place in range(count)]


def _squashed(text: str) -> str:
    return "".join(text.split())


def _same(one: str, other: str) -> bool:
    return _squashed(one) == _squashed(other)
