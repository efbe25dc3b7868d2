r"""The answer that a person would read in a solution.

In this order: the last complete `\boxed{...}`; what the last announcement announces ("the answer is", "**Answer:**",
"####", other languages' words for it); the number to which the closing sentence comes. Thoughts, code and what follows
the end of the turn are not read. Where a text was cut off there is no answer rather than a number on the way to one.
"""

from __future__ import annotations

from search.answers.boxes import boxed_answer, find_boxes
from search.answers.phrases import MAX_ANSWER_CHARS, announced_answer
from search.answers.prose import conclusion
from search.answers.visible import Visible, visible

_TAIL_CHARS = 200_000
"""An announcement stands in the end of a text."""


def read_answer(text: str) -> str | None:
    """The answer of a solution, stripped; None where it gives none. Any text is taken, in linear time."""
    seen = visible(text)
    answer, is_open = _stated(seen)
    if answer is not None or is_open or seen.after_code:
        return answer
    return conclusion(seen.text, seen.ended)


def stated_answer(text: str) -> str | None:
    """The answer that a text boxes or announces: as `read_answer`, but nothing is made of mere sentences.

    For references, of which some are whole solutions and most are the answer alone.
    """
    return _stated(visible(text))[0]


def _stated(seen: Visible) -> tuple[str | None, bool]:
    """The answer, and whether the text breaks off where it was about to give one."""
    boxes = find_boxes(seen.text)
    answer = boxed_answer(seen.text, boxes, MAX_ANSWER_CHARS)
    if answer is not None:
        return answer, False
    answer, cut = announced_answer(seen.text[-_TAIL_CHARS:])
    return answer, answer is None and (cut or boxes.cut is not None)
