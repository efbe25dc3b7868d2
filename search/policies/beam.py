"""Beam search: the best leaves of a level share its width evenly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from search.allocate import ceil_sqrt, even_split, ranking
from search.policies.common import check_count, check_reduce, open_leaves
from search.tree import SearchTree
from search.types import Expansion, Pace, Reduce, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """Beam search over steps as in the baselines of ETS (arXiv 2502.13575): keep ceil(sqrt(width)) leaves.

    The width is what the search has left, so fewer leaves are kept as trajectories finish. Of equal rewards
    the lower node id ranks first; where the width does not divide evenly the better leaves get one more.

    Attributes:
        num_keep: leaves to keep at most; None for ceil(sqrt(width)).
        reduce: which reward of a leaf's path ranks it.
    """

    name: ClassVar[str] = "beam"
    pace: ClassVar[Pace] = "level"
    features: ClassVar[frozenset[str]] = frozenset()

    num_keep: int | None = None
    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        check_count("num_keep", self.num_keep)
        check_reduce(self.reduce)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Keep the best leaves, split `width` over them, prune the rest by rank."""
        leaves = open_leaves(tree, self.reduce)
        ranked = [leaves[position].node for position in ranking([leaf.reward for leaf in leaves])]
        num_keep = min(self.num_keep or ceil_sqrt(width), len(ranked), width)
        kept = zip(ranked, even_split(width, num_keep), strict=False)
        return Selection(
            tuple(Expansion(node, count) for node, count in sorted(kept)),
            {
                node: f"beam: rank {rank} of {len(ranked)}, {num_keep} kept"
                for rank, node in enumerate(ranked[num_keep:], num_keep + 1)
            },
        )
