"""What of one tree is in its server's cache: a cold prefix is sent once, and whoever shares it waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from search.types import Prefix


@dataclass(eq=False, slots=True)
class _Segment:
    """A segment that was sent: `computing` until the server has it, then None."""

    ids: tuple[int, ...]
    parent: int | None
    computing: asyncio.Event | None


class Warmth:
    """Segments of one tree that its server holds, or is computing.

    A server's cache is shared by content, but only once it is filled: of two requests that arrive cold together each
    computes the whole prefix. So the second one waits here for the first.
    """

    def __init__(self) -> None:
        """Everything is cold."""
        self._segments: dict[int, _Segment] = {}

    def holds(self, prefix: Prefix) -> bool:
        """Whether all of `prefix` is held."""
        parent = None
        for segment in prefix.segments:
            known = self._segments.get(segment.key)
            if known is None or known.computing is not None or known.ids != segment.ids or known.parent != parent:
                return False
            parent = segment.key
        return True

    @asynccontextmanager
    async def computing(self, prefix: Prefix) -> AsyncIterator[int]:
        """Have what is cold of `prefix` computed inside the block; gives the number of its cold tokens.

        Waits first for others that compute a part of it. What was cold counts as held once the block ends well.
        """
        while (busy := self._busy(prefix)) is not None:
            await busy.wait()
        cold: list[tuple[int, _Segment]] = []
        parent = None
        for segment in prefix.segments:
            held = self._segments.get(segment.key)
            if cold or held is None or held.ids != segment.ids or held.parent != parent:
                cold.append((segment.key, _Segment(segment.ids, parent, asyncio.Event())))
            parent = segment.key
        self._segments.update(cold)
        done = False
        try:
            yield sum(len(one.ids) for _, one in cold)
            done = True
        finally:
            for key, one in cold:
                if not done and self._segments.get(key) is one:
                    del self._segments[key]
                assert one.computing is not None, "only its owner ends it"
                one.computing.set()
                one.computing = None

    def wrote(self, prefix: Prefix, key: int, ids: tuple[int, ...]) -> None:
        """A step that the server wrote is in its cache, all but its last token."""
        self._segments[key] = _Segment(ids, prefix.segments[-1].key, None)

    def forget(self, keys: Collection[int] | None = None) -> None:
        """These keys, or all, are no longer known to be held; what is being computed goes on."""
        for key in tuple(self._segments) if keys is None else keys:
            self._segments.pop(key, None)

    def _busy(self, prefix: Prefix) -> asyncio.Event | None:
        """Waits to be over, of the last segment of `prefix` that somebody computes; None if nobody does."""
        for segment in reversed(prefix.segments):
            known = self._segments.get(segment.key)
            if known is not None and known.computing is not None and known.ids == segment.ids:
                return known.computing
        return None
