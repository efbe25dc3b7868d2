r"""The answer that a person would read in a solution.

In this order: the last complete `\boxed{...}`; what the last announcement announces ("the answer is", "**Answer:**",
"####", other languages' words for it); the number to which the closing sentence comes. Thoughts, code and what follows
the end of the turn are not read. Where a text was cut off there is no answer rather than a number on the way to one.
"""

from __future__ import annotations

import re

from search.answers.boxes import boxed_answer, find_boxes
from search.answers.phrases import MAX_ANSWER_CHARS, announced_answer
from search.answers.prose import conclusion
from search.answers.visible import Visible, visible

_NEXT_PROBLEM = re.compile(
    r"\n[ \t#*]{0,8}(?:question|problem|exercise|example|user|human|q)\b[ \t]{0,3}[0-9]{0,3}[*]{0,2}[ \t]{0,3}[:.]",
    re.IGNORECASE,
)
_MOST_PROBLEMS = 3
_TAIL_CHARS = 200_000
"""An announcement stands in the end of a text."""


def read_answer(text: str) -> str | None:
    """The answer of a solution, stripped; None where it gives none. Any text is taken, in linear time."""
    seen = visible(text)
    answer, is_open = _stated(_first_solution(seen))
    if answer is not None or is_open or seen.after_code:
        return answer
    return conclusion(seen.text, seen.ended)


def stated_answer(text: str) -> str | None:
    """The answer that a text boxes or announces: as `read_answer`, but nothing is made of mere sentences.

    For references, of which some are whole solutions and most are the answer alone.
    """
    return _stated(visible(text))[0]


def _first_solution(seen: Visible) -> Visible:
    """What stands before the next problem, where a model goes on with one after its answer."""
    for number, following in enumerate(_NEXT_PROBLEM.finditer(seen.text)):
        before = seen._replace(text=seen.text[: following.start()])
        if _stated(before)[0] is not None:
            return before
        if number == _MOST_PROBLEMS:
            break
    return seen


def _stated(seen: Visible) -> tuple[str | None, bool]:
    """The answer, and whether the text breaks off where it was about to give one."""
    boxes = find_boxes(seen.text)
    answer = boxed_answer(seen.text, boxes, MAX_ANSWER_CHARS)
    if answer is not None:
        return answer, False
    answer, cut = announced_answer(seen.text[-_TAIL_CHARS:])
    return answer, answer is None and (cut or boxes.cut is not None)
