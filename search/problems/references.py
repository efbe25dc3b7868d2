r"""What can be a reference answer, out of what data sets hold: a number, a short text, or the end of a solution.

A reference that no solution can give would count every answer as wrong without a word, so all else is refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

from search.answers import stated_answer

_NOTHING = frozenset({"nan", "null", "<na>"})
_BOXES = ("\\boxed", "\\fbox")
_UNIT = re.compile(r"\s*\([^()0-9]+\)(?=\s*(?:;|$))")
_MATHEMATICS = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[A-Za-z]+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}")
_IDEOGRAPH = re.compile(r"[\u3400-\u9fff]")
_NUMBER = re.compile(r"[-+]?[$]?[0-9][0-9,]*(?:\.[0-9]+)?%?|[-+]?[0-9]+/[0-9]+")

MAX_WORDS = 12
"""A longer text outside of mathematics is prose, and so is a sentence of four words with a number in it."""


def reference_text(value: Any, *, is_solution: bool = False, has_hashes: bool = False, is_final: bool = False) -> str:
    r"""The reference answer in a field's value.

    Args:
        value: a number, a text, or a list of one or several of them.
        is_solution: the field holds whole solutions, whose answer stands in a box or after ####.
        has_hashes: the field's answers stand after ####; only a bare number may stand without.
        is_final: the field holds final answers by its name, so a list means all of them, and sentences may stay.

    Raises:
        ValueError: it is no reference; the message says what it is.
    """
    if isinstance(value, list):
        if len(value) > 1 and not is_final:
            raise ValueError(f"a list of {len(value)} answers, which may mean all of them or any of them")
        if not value:
            raise ValueError("an empty list")
        return ", ".join(reference_text(item, is_final=is_final) for item in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("null" if value is None else f"no text and no number ({str(value)[:40]!r})")
    if not isinstance(value, str):
        return _number(value)
    return _without_dollars(_read(value, is_solution, has_hashes, is_final))


def without_unit(text: str) -> str:
    """ASDiv's answers without the units that follow them in brackets: "9 (apples)" is 9."""
    return _UNIT.sub("", text) or text


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError("no finite number")
    return str(int(value)) if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15) else str(value)


def _read(text: str, is_solution: bool, has_hashes: bool, is_final: bool) -> str:
    if "####" in text:
        answer = text.rpartition("####")[2].strip()
        if not answer:
            raise ValueError("nothing after ####")
        return answer
    text = text.strip()
    if not text or text.lower() in _NOTHING:
        raise ValueError("an empty text" if not text else f"{text!r}")
    if has_hashes and not _NUMBER.fullmatch(text):
        raise ValueError("no answer after ####, where others have one")
    is_boxed = any(box in text for box in _BOXES)
    if not (is_solution or is_boxed or (_is_prose(text) and not is_final)):
        return text
    found = stated_answer(text) if is_boxed or not is_solution else None
    if found is None or (_is_prose(found) and not is_boxed):
        raise ValueError(f"a text without a final answer in it ({' '.join(text.split())[:60]!r})")
    return found


def _is_prose(text: str) -> bool:
    """Whether a text is sentences rather than an answer."""
    plain = _MATHEMATICS.sub(" ", text)
    num_words = len(_WORD.findall(plain))
    if num_words > MAX_WORDS or len(_IDEOGRAPH.findall(plain)) > 3 * MAX_WORDS:
        return True
    is_sentence = text.endswith((".", "!", "?", "。")) and any(sign.isdigit() for sign in text)
    return num_words >= 4 and (is_sentence or len(text.splitlines()) > 1)


def _without_dollars(text: str) -> str:
    inner = text
    for sign in ("$$", "$"):
        if len(text) >= 2 * len(sign) and text.startswith(sign) and text.endswith(sign):
            inner = text[len(sign) : -len(sign)].strip()
            break
    if not inner:
        raise ValueError("an empty text")
    return text if "$" in inner else inner
