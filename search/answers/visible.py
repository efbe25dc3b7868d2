r"""What of a model's text is its answer to the reader: no control tokens, no thoughts, no program.

A model that thinks aloud writes its thoughts between tags, and what it writes in them is not what it says. Code and
what it printed are how a solution was found; the text around them says what follows.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

_END_OF_TURN = re.compile(
    r"<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|eos|end|return|assistant_end|END_OF_TURN_TOKEN)\|>"
    r"|<｜end▁of▁sentence｜>|<end_of_turn>|</s>|<eos>|\[EOS\]"
)
_THOUGHT = (
    r"(?:seed:)?think(?:ing)?|thoughts?|thought_process|reason(?:ing)?|reflection|scratch_?pad|analysis|inner_monologue"
)
_THOUGHT_TAG = re.compile(
    rf"<(?P<close>/?)(?:{_THOUGHT})\s{{0,4}}>"
    rf"|\[(?P<close2>/?)(?:think|thinking|thought|reasoning)\]"
    rf"|◁(?P<close3>/?)think▷"
    rf"|<\|(?P<word>begin|start|end)_of_(?:thought|thinking|think|reasoning)\|>"
    rf"|<\|(?P<word2>START|END)_THINKING\|>"
    rf"|<\|(?P<close4>/?)(?:think|thinking)\|>",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s{0,4}(?P<name>\w{1,20})(?:(?!<\|)[^\n]){0,80}<\|message\|>")
_FENCE = re.compile(r"^[ \t>]{0,16}(?P<mark>`{3,16}|~{3,16})[ \t]{0,8}(?P<tag>[^\s`]{0,30})[^\n`]*$", re.MULTILINE)
_PROSE_TAGS = frozenset(("latex", "tex", "math", "markdown", "md"))
_CODE = re.compile(r"print|import|def |return|console|[^=!<>]=[^=]|;\s*$|>>>|#|//", re.MULTILINE)
_SHORT_CHARS = 200
"""An unlabelled fence that is no longer and holds no code sets off an answer, as many models do."""


class Visible(NamedTuple):
    """A text as it is read.

    Attributes:
        text: without thoughts, control tokens and code.
        ended: the model ended it itself; else it may have been cut off anywhere.
        after_code: code is the last thing in it, so its last sentence is no conclusion.
    """

    text: str
    ended: bool
    after_code: bool


def visible(text: str) -> Visible:
    """What a solution says to its reader; empty where a thought was never closed. Linear in the text's length."""
    text, ended = _one_turn(_last_channel(text))
    spoken = _without_thoughts(text)
    return Visible("", ended, False) if spoken is None else _without_code(spoken, ended)


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last of a pattern's matches."""
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _last_channel(text: str) -> str:
    """What stands in the final channel, where a model writes to several (the harmony format)."""
    last = last_match(_CHANNEL, text)
    if last is None:
        return text
    return text[last.end() :] if last["name"] == "final" else ""


def _one_turn(text: str) -> tuple[str, bool]:
    """The text up to the first end of a turn that ends anything, and whether there was one."""
    for token in _END_OF_TURN.finditer(text):
        if text[: token.start()].strip():
            return text[: token.start()], True
    return text, False


def _without_thoughts(text: str) -> str | None:
    """What follows the last thought; None where the last thought is open."""
    last = last_match(_THOUGHT_TAG, text)
    if last is None:
        return text
    word = (last["word"] or last["word2"] or "").lower()
    closes = word == "end" or any(last[name] for name in ("close", "close2", "close3", "close4"))
    return text[last.end() :] if closes else None


def _without_code(text: str, ended: bool) -> Visible:
    pieces: list[str] = []
    read_to = 0
    opening: re.Match[str] | None = None
    after_code = False
    for fence in _FENCE.finditer(text):
        if opening is None:
            pieces.append(text[read_to : fence.start()])
            opening = fence
            continue
        if fence["tag"] or fence["mark"][0] != opening["mark"][0] or len(fence["mark"]) < len(opening["mark"]):
            continue
        body = text[opening.end() : fence.start()]
        kept = _is_prose(opening["tag"].lower(), body)
        pieces.append(body if kept else "\n")
        after_code = not kept and not text[fence.end() :].strip()
        opening, read_to = None, fence.end()
    if opening is not None:
        return Visible("".join(pieces), ended, True)
    return Visible("".join([*pieces, text[read_to:]]), ended, after_code)


def _is_prose(tag: str, body: str) -> bool:
    return tag in _PROSE_TAGS or (
        tag in ("", "text", "txt", "plaintext") and len(body) <= _SHORT_CHARS and _CODE.search(body) is None
    )
