"""What each token of a turn attends to, as a list of small equal jobs: some queries over some slots.

Whoever computes takes its keys from its path's slots. Paths that begin alike are read once for all their readers: the
paths of a turn make a trie, and each of its edges is a job of its own for all queries below it. A query's results are
merged by log-sum-exp (cascade attention; on trees also DeFT, arXiv 2404.00242). Long edges are split, so that many
processors share them. Pure arrays; nothing here knows a model or a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPLIT_KEYS = 256
"""Most keys of a job."""
TILE_ROWS = 64
"""Queries of a job times the heads that share a key: the rows of one matrix product."""
_WORTH = 64
"""Slots that sharing an edge must save. What it costs is one more partial result a query, and a job."""

Ints = NDArray[np.int32]


class Reader(NamedTuple):
    """Consecutive queries that see one path.

    Attributes:
        first: the first query.
        num: how many.
        path: slots of the path's parts, root first; parts that readers share are the same objects.
        own: slots after these that nobody else reads.
        seen: how many of its own the first query sees; each further query sees one more.
    """

    first: int
    num: int
    path: Sequence[Ints]
    own: Ints
    seen: int


class Plan(NamedTuple):
    """The jobs of one turn.

    Attributes:
        slots: (num_slots,) what the jobs read, one after the other.
        first: (num_jobs,) where a job's keys begin in `slots`.
        lengths: (num_jobs,) how many keys.
        queries: (num_jobs, width) the queries; -1 where there are fewer.
        limits: (num_jobs, width) how many of the keys each sees, from the first on.
        parts: (num_queries, most) where a query's partial results lie in (num_jobs * width); -1 where there are fewer.
    """

    slots: Ints
    first: Ints
    lengths: Ints
    queries: Ints
    limits: Ints
    parts: Ints


def job_width(num_heads: int, num_kv_heads: int) -> int:
    """Queries of a job."""
    return max(1, TILE_ROWS * num_kv_heads // num_heads)


def make_plan(readers: Sequence[Reader], width: int, *, split: int = SPLIT_KEYS, worth: int = _WORTH) -> Plan:
    """Jobs in which every query sees each slot of its path exactly once.

    Args:
        readers: their queries are all from 0 on, each once.
        width: see `job_width`.
        split: most keys of a job.
        worth: see `_WORTH`.
    """
    jobs = _Jobs(width, split)
    # Readers that have the first `depth` parts in common, and those of these parts that no job has read yet.
    stack: list[tuple[Sequence[Reader], int, list[Ints]]] = [(readers, 0, [])]
    while stack:
        group, depth, unread = stack.pop()
        branches: dict[int, list[Reader]] = {}
        for reader in group:
            if len(reader.path) > depth:
                branches.setdefault(id(reader.path[depth]), []).append(reader)
            else:
                jobs.add_own(reader, unread)
        for members in branches.values():
            lead = members[0].path
            if len(members) == 1:
                jobs.add_own(members[0], [*unread, *lead[depth:]])
                continue
            end = depth + 1
            while all(len(one.path) > end and one.path[end] is lead[end] for one in members):
                end += 1
            edge = [*unread, *lead[depth:end]]
            if sum(map(len, edge)) * (len(members) - 1) >= worth:
                jobs.add_shared(members, edge)
                edge = []
            stack.append((members, end, edge))
    return jobs.plan(sum(reader.num for reader in readers))


class _Jobs:
    """Collects jobs."""

    def __init__(self, width: int, split: int) -> None:
        self._width, self._split = width, split
        self._slots: list[Ints] = []
        self._num_slots = 0
        self._ranges: list[tuple[int, int]] = []
        self._queries: list[Sequence[int]] = []
        self._limits: list[Sequence[int]] = []

    def add_shared(self, readers: Sequence[Reader], parts: list[Ints]) -> None:
        """All queries of some readers over slots that each of them sees."""
        queries = [query for one in readers for query in range(one.first, one.first + one.num)]
        self._add(queries, None, parts)

    def add_own(self, reader: Reader, parts: list[Ints]) -> None:
        """A reader's queries over what is left of its path and its own slots."""
        above = sum(map(len, parts)) + reader.seen
        limits = None if reader.num == 1 and reader.seen == len(reader.own) else range(above, above + reader.num)
        self._add(range(reader.first, reader.first + reader.num), limits, [*parts, reader.own])

    def _add(self, queries: Sequence[int], limits: Sequence[int] | None, parts: list[Ints]) -> None:
        """Queries over the slots of `parts`; `limits`: how many of these each sees, None for all."""
        total = sum(map(len, parts))
        self._slots.extend(parts)
        for at in range(0, len(queries), self._width):
            some = queries[at : at + self._width]
            sees = None if limits is None else limits[at : at + self._width]
            for start in range(0, total, self._split):
                num = min(self._split, total - start)
                if sees is None:
                    seen: Sequence[int] = [num] * len(some)
                else:
                    seen = [min(num, max(0, limit - start)) for limit in sees]
                    if not any(seen):
                        break
                self._ranges.append((self._num_slots + start, num))
                self._queries.append(some)
                self._limits.append(seen)
        self._num_slots += total

    def plan(self, num_queries: int) -> Plan:
        shape = (len(self._ranges), self._width)
        queries, limits = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
        for job, (some, seen) in enumerate(zip(self._queries, self._limits, strict=True)):
            queries[job, : len(some)] = some
            limits[job, : len(some)] = seen
        ranges = np.array(self._ranges, np.int32).reshape(-1, 2)
        # A query's results: its places in the jobs, in order.
        places = np.flatnonzero(limits.ravel() > 0)
        whose = queries.ravel()[places]
        order = np.argsort(whose, kind="stable")
        whose = whose[order]
        number = np.bincount(whose, minlength=num_queries)
        starts = np.cumsum(number) - number
        parts = np.full((num_queries, int(number.max())), -1, np.int32)
        parts[whose, np.arange(len(whose)) - starts[whose]] = places[order]
        return Plan(np.concatenate(self._slots), ranges[:, 0], ranges[:, 1], queries, limits, parts)
