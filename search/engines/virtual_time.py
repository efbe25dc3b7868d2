"""Virtual time: an event loop whose clock stands still while anything can be done, then jumps to what is due next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Timed(Protocol):
    """Something that takes its time on a `VirtualClock`."""

    def settle(self) -> bool:
        """Do what was asked for and takes no time; whether there was anything."""

    def ticks_left(self) -> float | None:
        """Ticks until something of it is due, if nothing else happens before; None if nothing is."""

    def pass_time(self, ticks: float) -> None:
        """So many ticks have passed, at most those that were left."""


class VirtualClock(asyncio.SelectorEventLoop):
    """An event loop on which waiting costs nothing, and a time is exact: its seconds are the ticks of what runs on it.

    Time passes only when every task waits. Work for threads (`asyncio.to_thread`) is done at once on the loop's own
    thread, in no time, so that what happens, and in which order, depends on nothing but the tasks themselves.

    Attributes:
        timed: what else takes time on this clock.
    """

    def __init__(self) -> None:
        self.timed: list[Timed] = []
        self._now = 0.0
        super().__init__(_Waiting(self._wait))

    def time(self) -> float:
        """Ticks since the start."""
        return self._now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call `func` now; the future is done, in one way or the other."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _wait(self, seconds: float | None) -> None:
        """Nothing can run: settle what takes no time, or let pass what is left until the next thing is due."""
        settled = [one.settle() for one in self.timed]
        if any(settled):
            return
        left = [ticks for one in self.timed if (ticks := one.ticks_left()) is not None]
        if seconds is not None:
            left.append(seconds)
        if not left:
            raise RuntimeError("everything waits, and for nothing that time could bring")
        ticks = min(left)
        self._now += ticks
        for one in self.timed:
            one.pass_time(ticks)


class _Waiting(selectors.DefaultSelector):
    """Where the loop would wait for files or for time, it is told so instead."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        super().__init__()
        self._on_wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not found and (timeout is None or timeout > 0):
            self._on_wait(timeout)
        return found
