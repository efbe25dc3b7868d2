r"""Boxes: `\boxed{...}` and its kin, nested as deep as may be, and several of them as one answer."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"(?:\\|\x08|\\\\)(?P<box>(?:boxed|fbox|framebox)(?![A-Za-z]))(?P<brace>[ \t]{0,8}\{)?|\\.|\{+|\}+", re.DOTALL
)
_UNBRACED = re.compile(
    r"[ \t]{0,8}(?P<value>[-+−]?\\?[$]?[0-9][0-9,]*(?:\.[0-9]+)?(?:\\?%)?"
    r"|[-+−]?\\[a-zA-Z]{1,12}(?:\{[^{}\n]{0,60}\}){0,2}|[A-Za-z](?![A-Za-z]))"
)
_GAP_CHARS = 80
_MOST = 20
"""Boxes of one answer."""

_WORDS = (
    r"(?:(?!\b(?:is|are|was|were|so|then|thus|hence|therefore|which|gives?|giving|has|have|had|spent|total|but|not|out)\b)"
    r"[A-Za-z]{1,15}\s{1,3}){0,3}"
)
_GAP = re.compile(
    # The end of the first formula, and what is counted.
    r"\s{0,3}(?:\\?[$%°]{1,2}|\\\)|\\\])?\s{0,3}(?:\\(?:text|mathrm)\{[^{}]{0,20}\})?"
    rf"\s{{0,3}}{_WORDS}"
    r"(?:,?\s{0,3}(?:\\text\{\s{0,3}(?:and|or)\s{0,3}\}|and|or|&|,|;|、|和|或|\\quad|\\cup|∪|\\;|\\,)){1,3}\s{0,3}"
    rf"{_WORDS}"
    # The start of the second formula, and whose value it is.
    r"(?:\\?\$\$?|\\\(|\\\[)?\s{0,3}(?:\\?[A-Za-z]{1,8}(?:_\{?[0-9A-Za-z]{1,4}\}?)?\s{0,3}=)?\s{0,3}(?:\\?\$)?"
    r"|[\s$]{0,8}"
)
_UNION = re.compile(r"\\cup|∪")


class Box(NamedTuple):
    """A box: from `start` to `end`, with its content from `inner` to `inner_end`."""

    start: int
    inner: int
    inner_end: int
    end: int


class Boxes(NamedTuple):
    """The boxes of a text: `closed` in the order in which they open, and where the last that was cut off begins."""

    closed: tuple[Box, ...]
    cut: int | None


def find_boxes(text: str) -> Boxes:
    """All boxes of a text, in linear time."""
    starts = [position for name in ("boxed", "fbox", "framebox") if (position := text.find(name)) > 0]
    if not starts:
        return Boxes((), None)
    depth = 0
    pending: list[tuple[int, int, int]] = []
    closed: list[Box] = []
    cut = None
    for token in _TOKEN.finditer(text, max(0, min(starts) - 2)):
        piece = token.group()
        if token["box"] is not None:
            if token["brace"] is not None:
                pending.append((depth, token.start(), token.end()))
                depth += 1
                continue
            value = _UNBRACED.match(text, token.end())
            if value is not None:
                closed.append(Box(token.start(), value.start("value"), value.end("value"), value.end()))
        elif piece.startswith("{"):
            depth += len(piece)
        elif piece.startswith("}"):
            lowest = max(0, depth - len(piece))
            while pending and pending[-1][0] >= lowest:
                outside, start, inner = pending.pop()
                # The box's own brace is the one that brings the depth back to `outside`.
                inner_end = token.start() + depth - outside - 1
                closed.append(Box(start, inner, inner_end, inner_end + 1))
            depth = lowest
    if pending:
        cut = pending[-1][1]
    return Boxes(tuple(sorted(closed)), cut)


def boxed_answer(text: str, boxes: Boxes, max_chars: int) -> str | None:
    """The content of the last box that has one, with those that stand beside it; None where there is none.

    Of nested boxes the inner one counts. "x = [3] or x = [4]" is "3,4", and boxes joined by a union are one.
    """
    filled = _filled(text, boxes, max_chars)
    if not filled:
        return None
    last = filled[-1]
    beside = [last]
    union = False
    for box in reversed(filled[:-1]):
        if box.end > beside[0].start:
            break
        gap = text[box.end : beside[0].start]
        if len(gap) > _GAP_CHARS or _GAP.fullmatch(gap) is None:
            break
        union = union or _UNION.search(gap) is not None
        beside.insert(0, box)
    contents = [text[box.inner : box.inner_end].strip() for box in beside]
    distinct = list(dict.fromkeys(contents))
    answer = ("\\cup" if union else ",").join(distinct)
    return answer if len(answer) <= max_chars else contents[-1]


def _filled(text: str, boxes: Boxes, max_chars: int) -> list[Box]:
    """The last boxes that hold an answer: not empty, no box within them; as many as one answer may have."""
    filled: list[Box] = []
    later = len(text) + 1
    for box in reversed(boxes.closed):
        nested = box.inner <= later < box.inner_end
        later = box.start
        content = "" if nested or box.inner_end - box.inner > max_chars else text[box.inner : box.inner_end].strip()
        if content and not content.startswith(("\\boxed", "...", "\\ldots", "\\dots")):
            filled.insert(0, box)
            if len(filled) > _MOST:
                break
        elif filled and not nested:
            break
    return filled
