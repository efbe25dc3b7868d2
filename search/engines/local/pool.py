"""The budget of KV slots: who may start, who waits, and whose cache goes when there is no room.

Trees are served in the order of their arrival, so that the oldest search ends, and gives its memory back, first.
A request may push out the cache of younger trees and of trees that nobody has used for long, never that of an older
one at work; when rows outgrow the pool the youngest row is put back and its tokens are computed again later. The
oldest request can always go on: in the end everything else gives way to it. So nothing waits for ever. What is made
ahead takes only what is free beyond a part of the pool, and is put back first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.engines.local.arena import Node
from search.engines.local.cache import TreeCache
from search.engines.local.rows import Request
from search.errors import EngineError

if TYPE_CHECKING:
    from search.engines.local.scheduler import Scheduler

_STALE_TURNS = 2048
"""A tree without work for this many forwards counts as left behind."""

GRACE_SECONDS = 0.25
"""How long a blocked request waits for older trees between their levels before it pushes one out."""


_KEPT_FREE = 0.25
"""The part of the pool that is left for requests that are wanted."""


class Pool:
    """Counts of KV slots over all trees, and the rules for a full pool.

    Attributes:
        capacity: most slots held at once; infinite without a budget.
        peak: the most slots held at once so far.
        blocked: whether the last admission left a request out for want of room while nothing ran.
    """

    def __init__(self, scheduler: Scheduler, max_kv_tokens: int | None) -> None:
        self._scheduler = scheduler
        self.capacity = math.inf if max_kv_tokens is None else max_kv_tokens
        self.peak = 0
        self.blocked = False
        self._blocked_since: float | None = None
        self._promised = self._starting = 0
        self._step_tokens = 16.0

    @property
    def num_held(self) -> int:
        """Slots that hold a token, over all trees."""
        return sum(tree.num_held for tree in list(self._scheduler.trees.values()))

    def note(self) -> None:
        """Keep the peak up to date after trees' counts rose."""
        self.peak = max(self.peak, self.num_held)

    def note_step(self, num_tokens: int) -> None:
        """Learn how long steps are; only waiting depends on it, never a result."""
        self._step_tokens += (num_tokens - self._step_tokens) / 32

    # Admission

    def begin_admission(self) -> None:
        """Start a turn's admissions."""
        self._promised = self._starting = 0
        self.blocked = False

    def check_size(self, request: Request) -> None:
        """Refuse a request that can never fit.

        Raises:
            NoRoomError: its prefix alone is larger than the pool.
        """
        needed = _num_path_tokens(request) + (request.labels is None)
        if needed > self.capacity:
            raise NoRoomError(request, needed, self.capacity)

    def admit_prefix(self, request: Request, num_missing: int, num_now: int, planned: Sequence[object]) -> None:
        """Set slots aside for `num_now` of the `num_missing` prefix tokens of a request.

        Args:
            request: whose prefix it is.
            num_missing: tokens of the path without KV.
            num_now: how many of them this turn takes.
            planned: other prefix work of this turn.

        Raises:
            BlockedError: there is no room now.
            NoRoomError: there never will be.
        """
        if self.capacity != math.inf:
            step = 0 if request.labels is not None else self._step_tokens
            self._make_room(request, num_missing + step, num_now, planned)
        self._promised += num_now

    def admit_row(self, request: Request, planned: Sequence[object]) -> None:
        """Set a slot aside for one more row; raises as `admit_prefix` does."""
        if self.capacity != math.inf:
            self._make_room(request, self._step_tokens, 1, planned)
        self._starting += 1

    def _make_room(self, request: Request, wanted: float, least: int, planned: Sequence[object]) -> None:
        """Make room for `wanted` slots; where nothing else runs, `least` will do."""
        lanes = self._scheduler.lanes
        idle = not planned and not lanes.rows and not self._starting
        rows = len(lanes.rows)
        written = int(lanes.count[:rows].sum())
        # What the running rows are going to take, judged by the steps seen so far, and at least one token each.
        wanted += self._starting * self._step_tokens + max(rows, rows * self._step_tokens - written)
        if request.last:
            if self._free() < wanted + _KEPT_FREE * self.capacity:
                self.blocked = idle
                raise BlockedError
            return
        while self._free() < wanted:
            if self._scheduler.give_way():
                continue
            victim = self._victim(request, idle)
            if victim is not None:
                self._evict(victim)
            elif idle and self._free() >= least:
                break
            elif not (idle and self._is_only_holder(request) and self._evict_own(request)):
                self._refuse(request, least, idle)
        self._blocked_since = None

    def _refuse(self, request: Request, least: int, idle: bool) -> None:
        if idle and self._is_only_holder(request):
            raise NoRoomError(request, _num_path_tokens(request) + least, self.capacity)
        if idle:
            self.blocked = True
            if self._blocked_since is None:
                self._blocked_since = time.monotonic()
        raise BlockedError

    # Rows

    def fit_rows(self) -> None:
        """Before a forward: see to it that every live row has a slot for its token."""
        if self.capacity == math.inf:
            return
        self._promised = self._starting = 0
        scheduler = self._scheduler
        while scheduler.lanes.rows and self._free() < len(scheduler.lanes.rows):
            if scheduler.give_way():
                continue
            rows = scheduler.lanes.rows
            oldest = min(rows, key=lambda row: row.request.order).request
            victim = self._victim(oldest, idle=len(rows) == 1, grace=False)
            if victim is not None:
                self._evict(victim)
            elif len(rows) > 1:
                scheduler.preempt(max(rows, key=lambda row: (row.request.order, row.node.key)))
            elif not self._evict_own(oldest):
                needed = int(scheduler.lanes.position[0]) + 1
                scheduler.fail(oldest, NoRoomError(oldest, needed, self.capacity).error)

    # Eviction

    def _free(self) -> float:
        return self.capacity - self.num_held - self._promised

    def _victim(self, request: Request, idle: bool, grace: bool = True) -> TreeCache | None:
        """The tree without running rows whose cache goes first; None if none may go for this request."""
        now = self._scheduler.now
        own = request.tree
        trees = [
            tree
            for tree in self._scheduler.trees.values()
            if tree is not own and tree.num_held and not tree.rows and tree.used < now
        ]
        stale = [tree for tree in trees if now - tree.used > _STALE_TURNS]
        if stale:
            return min(stale, key=lambda tree: tree.used)
        younger = [tree for tree in trees if tree.order > own.order]
        if younger:
            return max(younger, key=lambda tree: tree.order)
        waited = self._blocked_since is not None and time.monotonic() - self._blocked_since > GRACE_SECONDS
        if trees and idle and (waited or not grace):
            return min(trees, key=lambda tree: tree.used)
        return None

    def _evict(self, tree: TreeCache) -> None:
        for node in tree.nodes.values():
            tree.forget_kv(node)
        tree.compact()

    def _evict_own(self, request: Request) -> bool:
        """Free the least recently used leaf of a request's own tree that lies on no path at work."""
        tree = request.tree
        protected: set[Node] = set()
        ends = [row.node for row in tree.rows]
        if request.parent is not None:
            ends.append(request.parent)
        if request.waiting:
            ends.append(request.waiting[0].node)
        for end in ends:
            protected.update(end.path())
        leaves = [
            node
            for node in tree.nodes.values()
            if node.num_cached
            and node not in protected
            and not any(child.num_cached for child in node.children.values())
        ]
        if not leaves:
            return False
        tree.forget_kv(min(leaves, key=lambda node: (node.used, node.key)))
        tree.compact()
        return True

    def _is_only_holder(self, request: Request) -> bool:
        trees = self._scheduler.trees.values()
        return all(not tree.num_held for tree in trees if tree is not request.tree)


def _num_path_tokens(request: Request) -> int:
    parent = request.parent
    return 0 if parent is None else parent.start + len(parent.ids)


class BlockedError(Exception):
    """There is no room for a request now."""


class NoRoomError(Exception):
    """A request can never fit in the pool."""

    def __init__(self, request: Request, needed: int, capacity: float) -> None:
        super().__init__(f"{needed} of {capacity}")
        self.request = request
        self.error = EngineError(
            f"a request needs {needed} KV tokens at least and the engine has {capacity}",
            hint="raise max_kv_tokens",
        )
