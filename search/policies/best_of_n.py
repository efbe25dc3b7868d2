"""Best-of-n: independent chains, none of them ever pruned."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from search.policies.common import check_reduce
from search.tree import SearchTree
from search.types import ROOT, Expansion, Pace, Reduce, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """Sample `width` chains from the prompt and write each to its end.

    With a majority vote this is self-consistency (arXiv 2203.11171), with width 1 a single chain, greedy at
    temperature 0. Rewards play no part until the vote, so no chain waits for another, nor for its own scores: all are
    written in as many token steps as the longest has tokens. A chain that failed is not replaced.

    Attributes:
        reduce: not read; it is here so that every policy takes it.
    """

    name: ClassVar[str] = "best-of-n"
    pace: ClassVar[Pace] = "leaf"
    features: ClassVar[frozenset[str]] = frozenset()

    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        check_reduce(self.reduce)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Give the root `width` children and later leaves one each; beyond the width the oldest go on."""
        nodes = [node.id for node in tree.leaves()]
        if nodes == [ROOT]:
            return Selection((Expansion(ROOT, width),))
        return Selection(
            tuple(Expansion(node, 1) for node in nodes[:width]),
            {
                node: f"best-of-n: chain {rank} of {len(nodes)}, {width} left in the width"
                for rank, node in enumerate(nodes[width:], width + 1)
            },
        )
