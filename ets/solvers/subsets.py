"""Exact where few clusters are open: dynamic programming up the tree, over the sets of clusters that are covered.

In a search a handful of clusters is open, and often the relaxation is fractional just there. Branch and bound then
spends tens of milliseconds on what a table of 2^K values per node settles in one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ets.problem import Floats, Ints, PruneProblem
from ets.solvers.reduction import Reduced

FEW_CLUSTERS = 6
"""Up to so many this is faster than a relaxation: a node takes 3^K additions."""

MOST_CLUSTERS = 10
"""Up to so many it is faster than branch and bound."""


class _Splits(NamedTuple):
    """Every way to split every set S in two, S = part + rest, (3^K,); `starts`: where a set's ways begin, (2^K,)."""

    part: Ints
    rest: Ints
    starts: Ints


@lru_cache(maxsize=MOST_CLUSTERS + 2)
def _splits(num_bits: int) -> _Splits:
    part = rest = np.zeros(1, dtype=np.int64)
    for bit in range(num_bits):
        part, rest = np.concatenate([part, part | 1 << bit, part]), np.concatenate([rest, rest, rest | 1 << bit])
    order = np.argsort(part | rest, kind="stable")
    part, rest = part[order], rest[order]
    return _Splits(part, rest, np.searchsorted(part | rest, np.arange(1 << num_bits)))


@dataclass(slots=True)
class _Subtree:
    """What can be kept below one ancestor that is paid for.

    Attributes:
        table: the most that can be had with at least these clusters covered, by bit set. (2^K,)
        steps: how the table came about, in order: a leaf or a child, and the table before it.
    """

    table: Floats
    steps: list[tuple[int, bool, Floats]] = field(default_factory=list)


class SubsetSolver:
    """One reduced program; `solve` gives its best open leaves.

    Where nothing is kept yet, one more bit stands for "a leaf at all", which every leaf covers.
    """

    def __init__(self, problem: PruneProblem, reduced: Reduced) -> None:
        """Take the program up."""
        self._problem, self._reduced = problem, reduced
        at_all = 1 << reduced.num_clusters if reduced.one_at_least else 0
        self._num_bits = reduced.num_clusters + reduced.one_at_least
        self._masks = [at_all | (1 << label if label >= 0 else 0) for label in reduced.clusters.tolist()]
        self._offers: dict[int, Floats] = {}
        self._subtrees: list[_Subtree] = []

    def solve(self) -> list[int]:
        """Positions among the open leaves, of the best of them."""
        nodes = self._reduced.node_parents.tolist()
        prices = self._problem.node_prices[self._reduced.nodes].tolist()
        # The last one stands for all that is paid for already; -1 finds it.
        self._subtrees = [self._nothing() for _ in range(len(nodes) + 1)]
        gains = self._reduced.gains.tolist()
        for leaf, parent in enumerate(self._reduced.parents.tolist()):
            self._add_leaf(self._subtrees[parent], leaf, gains[leaf])
        for node in range(len(nodes) - 1, -1, -1):
            offer = self._subtrees[node].table - prices[node]
            offer[0] = max(offer[0], 0.0)
            self._offers[node] = offer
            self._add_child(self._subtrees[nodes[node]], node)
        top = self._subtrees[-1].table + self._problem.cluster_value * self._num_clusters()
        if self._reduced.one_at_least:
            top[: len(top) // 2] = -np.inf
        return sorted(self._kept(self._subtrees[-1], int(top.argmax())))

    def _nothing(self) -> _Subtree:
        table = np.full(1 << self._num_bits, -np.inf)
        table[0] = 0.0
        return _Subtree(table)

    def _num_clusters(self) -> Ints:
        """Clusters in every set, (2^K,)."""
        sets = np.arange(1 << self._num_bits)
        return sum(((sets >> bit) & 1 for bit in range(self._reduced.num_clusters)), np.zeros_like(sets))

    def _add_leaf(self, below: _Subtree, leaf: int, gain: float) -> None:
        below.steps.append((leaf, True, below.table))
        less = np.arange(len(below.table)) & ~self._masks[leaf]
        below.table = np.maximum(below.table, below.table[less] + gain)

    def _add_child(self, below: _Subtree, node: int) -> None:
        below.steps.append((node, False, below.table))
        splits = _splits(self._num_bits)
        sums = self._offers[node][splits.part] + below.table[splits.rest]
        below.table = np.maximum.reduceat(sums, splits.starts)

    def _kept(self, below: _Subtree, wanted: int) -> list[int]:
        """Leaves that reach the table's value for the set `wanted`; the table's own steps, backwards."""
        kept: list[int] = []
        value = below.table[wanted]
        for index, is_leaf, before in reversed(below.steps):
            if is_leaf:
                if before[wanted] < value:
                    kept.append(index)
                    wanted &= ~self._masks[index]
            else:
                splits = _splits(self._num_bits)
                ways = np.flatnonzero(splits.part | splits.rest == wanted)
                best = ways[(self._offers[index][splits.part[ways]] + before[splits.rest[ways]]).argmax()]
                part, wanted = int(splits.part[best]), int(splits.rest[best])
                if part or self._offers[index][0] > 0.0:
                    kept += self._kept(self._subtrees[index], part)
            value = before[wanted]
        return kept
