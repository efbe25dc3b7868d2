"""Diverse verifier tree search: independent subtrees, each of which goes on from its own best leaf."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from search.allocate import ceil_sqrt, even_split, ranking
from search.policies.common import Leaf, check_count, check_reduce, open_leaves
from search.tree import SearchTree
from search.types import ROOT, Expansion, NodeId, NodeStatus, Pace, Reduce, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Dvts:
    """DVTS (Beeching et al. 2024, "Scaling test-time compute") as in the baselines of ETS (arXiv 2502.13575).

    The root's n children are cut, in their order, into ceil(sqrt(n)) runs whose lengths differ by one at
    most; what grows below a run is a subtree. Each has an even share of the whole width, the first ones one more,
    and each trajectory that ends takes one of its own subtree's share. A subtree with an open leaf is live, and keeps
    its best open leaf (of equals the lowest node id), which gets what is left of the share. What no live subtree can
    use is spread evenly, better leaves first; a subtree whose share is used up goes on only with some of that.

    Attributes:
        num_subtrees: subtrees at most; None for ceil(sqrt(n)).
        reduce: which reward of a leaf's path ranks it.
    """

    name: ClassVar[str] = "dvts"
    pace: ClassVar[Pace] = "level"
    features: ClassVar[frozenset[str]] = frozenset()

    num_subtrees: int | None = None
    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        check_count("num_subtrees", self.num_subtrees)
        check_reduce(self.reduce)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Keep one leaf in each live subtree; `width` is what their shares have left."""
        leaves = open_leaves(tree, self.reduce)
        if [leaf.node for leaf in leaves] == [ROOT]:
            return Selection((Expansion(ROOT, width),))
        subtree_of = self._subtrees(tree)
        best: dict[int, Leaf] = {}
        for leaf in leaves:
            subtree = subtree_of[tree.path(leaf.node)[1].id]
            if subtree not in best or leaf.reward > best[subtree].reward:
                best[subtree] = leaf
        live = sorted(best)
        by_reward = [live[position] for position in ranking([best[subtree].reward for subtree in live])]
        left = self._left(tree, width, subtree_of)
        counts: dict[NodeId, int] = {}
        spare = width
        for subtree in by_reward:
            counts[best[subtree].node] = min(left[subtree], spare)
            spare -= counts[best[subtree].node]
        for subtree, more in zip(by_reward, even_split(spare, len(by_reward)), strict=True):
            counts[best[subtree].node] += more
        counts = {node: count for node, count in counts.items() if count}
        reasons = {}
        for leaf in leaves:
            subtree = subtree_of[tree.path(leaf.node)[1].id]
            if leaf is not best[subtree]:
                reasons[leaf.node] = f"dvts: not the best of subtree {subtree + 1}"
            elif leaf.node not in counts:
                reasons[leaf.node] = f"dvts: {len(live)} subtrees live, {width} children left, none for {subtree + 1}"
        return Selection(tuple(Expansion(node, counts[node]) for node in sorted(counts)), reasons)

    def _left(self, tree: SearchTree, width: int, subtree_of: Mapping[NodeId, int]) -> list[int]:
        """What each subtree's share of the whole width is less the trajectories that ended in it."""
        shares = list(even_split(width + tree.num_finished, max(subtree_of.values()) + 1))
        for ended in tree.leaves(NodeStatus.FINISHED):
            subtree = subtree_of[tree.path(ended.id)[1].id]
            shares[subtree] = max(shares[subtree] - 1, 0)
        return shares

    def _subtrees(self, tree: SearchTree) -> dict[NodeId, int]:
        """The subtree, from 0, of each of the root's children."""
        children = tree.children(ROOT)
        num_subtrees = min(self.num_subtrees or ceil_sqrt(len(children)), len(children))
        return {child: rank * num_subtrees // len(children) for rank, child in enumerate(children)}
