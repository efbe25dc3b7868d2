"""Signs of life of searches none of which has ended yet: how fast they write, and how long they may take at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from search.api import Search
from search.loop.progress import Progress
from search.loop.writer import writing_engines

FIRST_SECONDS, MOST_SECONDS = 10.0, 80.0
"""Until the first sign, and between two at most: each takes twice as long as the one before it."""


class Pulse:
    """Told of every selection as `watch`, it says how searches that run come on until the first of them has ended."""

    def __init__(self, search: Search, num_problems: int, say: Callable[[str], None]) -> None:
        """Watch searches.

        Args:
            search: whose models are loaded.
            num_problems: still to be searched.
            say: takes a short note.
        """
        self._search, self._num_problems, self._say = search, num_problems, say
        self._written: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, progress: Progress) -> None:
        """Note a tree that is searched; the first one begins the time."""
        self._written.setdefault(progress.tree.id, 0)
        if self._task is None:
            self._task = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """Say no more."""
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        begun, pause = time.monotonic(), FIRST_SECONDS
        while True:
            await asyncio.sleep(pause)
            self._say(self.note(time.monotonic() - begun))
            pause = min(2 * pause, MOST_SECONDS)

    def note(self, seconds: float) -> str:
        """What was written in so many seconds, and how long the rest takes if every solution is as long as it may be.

        A second model writes beside the first, and lookahead beyond it: there nothing is known of the most.
        """
        settings = self._search.settings
        engines = writing_engines(self._search.driver.writer)
        for tree, before in self._written.items():
            # An engine forgets a tree whose search ends, which may be before its result is here.
            self._written[tree] = max(before, sum(engine.usage(tree).sampled_tokens or 0 for engine in engines))
        written = sum(self._written.values())
        told = f"{written:,} tokens written, {written / seconds:.0f} a second"
        if not written or settings.writer != "model" or settings.lookahead:
            return told
        most = self._num_problems * settings.width * settings.max_tokens
        left = max(0, most - written) * seconds / written
        return f"{told}: up to {_time(left)} if every solution takes its {settings.max_tokens} tokens"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
