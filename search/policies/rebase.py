"""REBASE: every leaf gets a share of the width by the softmax of its reward."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, get_args

from search.allocate import DEFAULT_TEMPERATURE, Rounding, rebase_allocation
from search.errors import check_choice
from search.policies.common import check_positive, check_reduce, open_leaves
from search.tree import SearchTree
from search.types import Expansion, Pace, Reduce, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase:
    """REBASE (arXiv 2408.00724), reward-balanced search.

    Of equal rewards the lower node id is served first.

    Attributes:
        temperature: T of softmax(reward / T); 0.2 as in the ETS code.
        rounding: "ceil" as in the code, "round" as in the paper; see `search.allocate.rebase_allocation`.
        reduce: which reward of a leaf's path is meant.
    """

    name: ClassVar[str] = "rebase"
    pace: ClassVar[Pace] = "level"
    features: ClassVar[frozenset[str]] = frozenset()

    temperature: float = DEFAULT_TEMPERATURE
    rounding: Rounding = "ceil"
    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_choice("rounding", self.rounding, get_args(Rounding))
        check_reduce(self.reduce)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Allocate `width` over all open leaves; those that get nothing are pruned."""
        leaves = open_leaves(tree, self.reduce)
        counts = rebase_allocation([leaf.reward for leaf in leaves], width, self.temperature, self.rounding)
        return Selection(
            tuple(Expansion(leaf.node, n) for leaf, n in zip(leaves, counts, strict=True) if n),
            {
                leaf.node: f"rebase: allocated 0 of {width} children"
                for leaf, n in zip(leaves, counts, strict=True)
                if not n
            },
        )
