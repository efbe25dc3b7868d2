"""Text that is only text: what looks like a control token in a problem or a step is encoded as it is written."""

from __future__ import annotations

import re
from functools import lru_cache

from search.protocols import Tokenizer

_MARK = "\ufdd0"
"""A noncharacter, which Unicode keeps for such uses. One that a text has is escaped, so that none is lost."""
_BREAK, _LITERAL = f"{_MARK}|", f"{_MARK}="


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; what came from broken bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def protect(tokenizer: Tokenizer, text: str, *, written: bool = False) -> str:
    """`text` with a break behind the first character of whatever the tokenizer takes for a control token.

    It may go through a template, whose own control tokens stay what they are; `encode_protected` makes its ids and
    `unprotect` gives back what is to be read.

    Args:
        tokenizer: which is to read it.
        text: of a person, or of a model.
        written: a model wrote it: what decodes to nothing is text where it can be seen, but a tag may be a real one.
    """
    found = tokenizer.controls if written else tokenizer.controls | tokenizer.tags
    text = text.replace(_MARK, _LITERAL)
    return _starts(found).sub(lambda start: start[0] + _BREAK, text) if found else text


def unprotect(text: str) -> str:
    """A protected text as it is read."""
    return text.replace(_BREAK, "").replace(_LITERAL, _MARK)


def encode_protected(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The ids of a text whose parts were protected: as `Tokenizer.encode`, where nothing had to be."""
    first, *others = text.split(_BREAK)
    ids = tokenizer.encode(unprotect(first))
    for part in others:
        ids += encode_after(tokenizer, "\n", part)  # a line break is a token of its own before all that is broken
    return ids


def encode_text(tokenizer: Tokenizer, text: str, *, written: bool = False) -> tuple[int, ...]:
    """The ids of a text of a person, or of a model, in which nothing is a control token; see `protect`."""
    return encode_protected(tokenizer, protect(tokenizer, text, written=written))


def encode_after(tokenizer: Tokenizer, before: str, text: str) -> tuple[int, ...]:
    """The ids that `text` adds where `before` stands in front of it; both may be protected.

    A SentencePiece tokenizer puts a space before whatever it encodes, so a piece encoded alone is not what it is
    inside a text. Where the two texts share a token over their seam, `text` is encoded alone.
    """
    head, whole = encode_protected(tokenizer, before), encode_protected(tokenizer, before + text)
    return whole[len(head) :] if whole[: len(head)] == head else encode_protected(tokenizer, text)


@lru_cache(maxsize=64)
def _starts(controls: frozenset[str]) -> re.Pattern[str]:
    """Every character at which a control token begins, those inside another one too."""
    return re.compile(f"(?={'|'.join(map(re.escape, sorted(controls)))}).", re.DOTALL)
