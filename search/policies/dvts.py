"""Diverse verifier tree search: independent subtrees, each of which goes on from its own best leaf."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from search.allocate import ceil_sqrt, even_split, ranking
from search.policies.common import Leaf, check_count, check_reduce, open_leaves
from search.tree import SearchTree
from search.types import ROOT, Expansion, NodeId, Pace, Reduce, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Dvts:
    """DVTS (Beeching et al. 2024, "Scaling test-time compute") as in the baselines of ETS (arXiv 2502.13575).

    The root's n children are cut, in their order, into ceil(sqrt(n)) runs whose lengths differ by one at
    most; what grows below a run is a subtree. A subtree with an open leaf is live, and keeps its best open
    leaf (of equals the lowest node id), which gets the subtree's even share of the width left, the first
    ones one more. Where more subtrees live than the width has children, those with the better leaves go on.

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
        """Keep one leaf in each live subtree and split `width` over them."""
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
        kept = sorted(by_reward[:width])
        counts = {best[subtree].node: count for subtree, count in zip(kept, even_split(width, len(kept)), strict=True)}
        reasons = {}
        for leaf in leaves:
            subtree = subtree_of[tree.path(leaf.node)[1].id]
            if leaf is not best[subtree]:
                reasons[leaf.node] = f"dvts: not the best of subtree {subtree + 1}"
            elif leaf.node not in counts:
                reasons[leaf.node] = f"dvts: {len(live)} subtrees live, {width} children left, none for {subtree + 1}"
        return Selection(tuple(Expansion(node, counts[node]) for node in sorted(counts)), reasons)

    def _subtrees(self, tree: SearchTree) -> dict[NodeId, int]:
        """The subtree, from 0, of each of the root's children."""
        children = tree.children(ROOT)
        num_subtrees = min(self.num_subtrees or ceil_sqrt(len(children)), len(children))
        return {child: rank * num_subtrees // len(children) for rank, child in enumerate(children)}
