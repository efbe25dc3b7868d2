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

_SETTLED_LOOKS = 3
"""Looks that must have found new tokens, since prompts were read, before a time is reckoned by their rate."""


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
        self._computed: dict[str, int] = {}
        self._begun = (0.0, 0)
        self._looks = 0
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
        begun, due, pause = time.monotonic(), FIRST_SECONDS, FIRST_SECONDS
        while True:
            await asyncio.sleep(FIRST_SECONDS / 2)
            seconds, settled = time.monotonic() - begun, self._looks >= _SETTLED_LOOKS
            note = self.note(seconds)
            if seconds >= due or settled != (self._looks >= _SETTLED_LOOKS):
                self._say(note)
                pause = min(2 * pause, MOST_SECONDS)
                due = seconds + pause

    def note(self, seconds: float) -> str:
        """What was written in so many seconds, and how long the rest takes if every solution is as long as it may be.

        The rate is that since the prompts were read, and nothing is reckoned by it before it has settled. A second
        model writes beside the first, and lookahead beyond it: there nothing is known of the most.
        """
        settings = self._search.settings
        self._look(seconds)
        written, (since, before) = sum(self._written.values()), self._begun
        if not self._looks:
            return "still reading prompts" + (f", {written:,} tokens written" if written else "")
        rate = (written - before) / (seconds - since)
        told = f"{written:,} tokens written, {rate:.0f} a second"
        if self._looks < _SETTLED_LOOKS or settings.writer != "model" or settings.lookahead:
            return told
        left = max(0, self._num_problems * settings.width * settings.max_tokens - written) / rate
        return f"{told}: up to {_time(left)} if every solution takes its {settings.max_tokens} tokens"

    def _look(self, seconds: float) -> None:
        """Count what is written; prompts are read while some tree has nothing and most that is computed is prompts."""
        waiting = not all(self._written.values())
        written, computed = sum(self._written.values()), sum(self._computed.values())
        for tree, before in self._written.items():
            # An engine forgets a tree whose search ends, which may be before its result is here.
            used = [engine.usage(tree) for engine in writing_engines(self._search.driver.writer)]
            self._written[tree] = max(before, sum(one.sampled_tokens or 0 for one in used))
            self._computed[tree] = max(self._computed.get(tree, 0), sum(one.computed_tokens or 0 for one in used))
        new = sum(self._written.values()) - written
        if (waiting and sum(self._computed.values()) - computed > 2 * new) or not written + new:
            self._begun, self._looks = (seconds, written + new), 0
        elif new:
            self._looks += 1


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
