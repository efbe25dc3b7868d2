"""The KV slots that a server really holds, asked while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

INTERVAL_SECONDS = 0.5
_FIRST_SECONDS = 0.05


class LoadWatch:
    """Asks again and again while there is work, and stops by itself when there is none."""

    def __init__(self, look: Callable[[], Awaitable[bool]]) -> None:
        """`look` asks the servers that work, and says whether any does."""
        self._look = look
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Work has come."""
        if self._task is None or self._task.done() or self._task.get_loop().is_closed():
            self._task = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None and not self._task.done() and not self._task.get_loop().is_closed():
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def _watch(self) -> None:
        pause = _FIRST_SECONDS
        while True:
            await asyncio.sleep(pause)
            if not await self._look():
                return
            pause = min(2 * pause, INTERVAL_SECONDS)
