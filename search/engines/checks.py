"""What every engine refuses before it does anything: a server may die of an id that its model does not have."""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import ContextOverflowError, EngineError
from search.types import Child, EngineInfo, Prefix


def check_prefix(info: EngineInfo, prefix: Prefix, room: int) -> None:
    """Hold a prefix against a model.

    Args:
        info: what the model is.
        prefix: to be read.
        room: tokens that must fit after it.

    Raises:
        ContextOverflowError: they do not.
        EngineError: it is empty, or has ids that the model does not have.
    """
    num_tokens = prefix.num_tokens
    if not num_tokens:
        raise EngineError("the prefix has no tokens", endpoint=info.model)
    for segment in prefix.segments:
        check_ids(info, segment.ids, f"segment {segment.key}: token")
    if num_tokens + room > info.context_tokens:
        raise ContextOverflowError(
            f"a prefix of {num_tokens} tokens leaves no room in a context of {info.context_tokens}", endpoint=info.model
        )


def check_ids(info: EngineInfo, ids: Sequence[int], what: str) -> None:
    """Refuse ids that a model does not have, with `EngineError`; `what` says what they are."""
    if ids and not (min(ids) >= 0 and max(ids) < info.vocab_size):
        raise EngineError(f"{what} id outside the vocabulary of {info.vocab_size}", endpoint=info.model)


def check_children(info: EngineInfo, prefix: Prefix, children: Sequence[Child]) -> None:
    """Refuse children whose key is another's or stands in their prefix, with `EngineError`."""
    seen = {segment.key for segment in prefix.segments}
    for child in children:
        if child.key in seen:
            raise EngineError(
                f"child key {child.key} is taken: each child needs its own, and none of its prefix's keys",
                endpoint=info.model,
            )
        seen.add(child.key)
