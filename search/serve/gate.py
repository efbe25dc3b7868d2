"""How many searches run side by side, and how many wait for their turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from search.serve.errors import ApiError, stopping

_WEIGHT = 0.1
"""Of the newest search in the running mean of their seconds."""


class Gate:
    """Lets so many in, has so many wait in order, and turns the rest away."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        """Both are counts of searches; `max_waiting` may be 0."""
        self.max_running, self.max_waiting = max_running, max_waiting
        self.running = self.waiting = 0
        self._places = asyncio.Semaphore(max_running)
        self._closed = False
        self._mean_seconds = 1.0

    @asynccontextmanager
    async def admit(self, until: float | None = None) -> AsyncIterator[float]:
        """Wait for a turn, and hold it in the block; gives the seconds waited.

        Args:
            until: when to stop waiting, in the loop's time; None: never.

        Raises:
            ApiError: 429, as many wait as may, or `until` came first; 503, the gate is closed.
        """
        arrived = time.perf_counter()
        try:
            async with asyncio.timeout_at(until):
                await self._enter()
        except TimeoutError:
            raise self._busy("the deadline came before its turn", "deadline") from None
        begun = time.perf_counter()
        try:
            yield begun - arrived
            self._mean_seconds += _WEIGHT * (time.perf_counter() - begun - self._mean_seconds)
        finally:
            self.running -= 1
            self._places.release()

    def close(self) -> None:
        """Let nobody in any more; who waits is turned away."""
        self._closed = True
        for _ in range(self.waiting):
            self._places.release()

    async def _enter(self) -> None:
        if self._closed:
            raise stopping()
        if self.running + self.waiting >= self.max_running + self.max_waiting:
            raise self._busy("this is as many as this server takes", "queue_full")
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        if self._closed:
            raise stopping()
        self.running += 1

    def _busy(self, reason: str, code: str) -> ApiError:
        seconds = math.ceil(max(1.0, self._mean_seconds * (self.waiting + 1) / self.max_running))
        return ApiError(
            429,
            f"{self.running} searches run and {self.waiting} wait: {reason}; try again in {seconds} s",
            kind="rate_limit_error",
            code=code,
            headers={"Retry-After": str(seconds)},
        )
