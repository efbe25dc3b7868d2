"""The servers behind one engine: every tree stays on one of them, and leaves it only when it fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

DOWN_SECONDS = 15.0
"""How long a server that failed gets no new trees where another one works."""


@dataclass(eq=False, slots=True)
class Worker(Generic[T]):
    """One server.

    Attributes:
        transport: how it is asked.
        trees: the trees that are on it now.
        down_until: on the monotonic clock; in the past for one that works.
    """

    transport: T
    trees: set[str] = field(default_factory=set)
    down_until: float = 0.0


class Workers(Generic[T]):
    """Which server serves which tree."""

    def __init__(self, transports: Sequence[T]) -> None:
        """Share trees among servers; at least one."""
        self.all = tuple(Worker(transport) for transport in transports)
        self._of: dict[str, Worker[T]] = {}

    def of(self, tree: str) -> Worker[T]:
        """The server of a tree: the one it had, unless only that is down; new trees go where fewest are."""
        worker = self._of.get(tree)
        if worker is None or (self._is_down(worker) and not all(map(self._is_down, self.all))):
            best = min(self.all, key=lambda one: (self._is_down(one), len(one.trees)))
            if worker is not None:
                worker.trees.discard(tree)
            worker = self._of[tree] = best
            best.trees.add(tree)
        return worker

    def failed(self, worker: Worker[T]) -> None:
        """A request to this server failed in a way that another server may not."""
        worker.down_until = time.monotonic() + DOWN_SECONDS

    def worked(self, worker: Worker[T]) -> None:
        """A request to this server came through."""
        worker.down_until = 0.0

    def forget(self, tree: str) -> None:
        """A tree is done."""
        worker = self._of.pop(tree, None)
        if worker is not None:
            worker.trees.discard(tree)

    def _is_down(self, worker: Worker[T]) -> bool:
        return worker.down_until > time.monotonic()
