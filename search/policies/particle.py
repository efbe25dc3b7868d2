"""Particle filtering: open trajectories are resampled in proportion to their rewards."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal, get_args

from search.allocate import softmax
from search.errors import check_choice
from search.policies.common import check_positive, check_reduce, open_leaves
from search.tree import SearchTree
from search.types import Expansion, Pace, Reduce, Selection

Weight = Literal["logit", "reward"]
"""What a particle weighs: the odds of its reward, or the reward itself."""

Resampling = Literal["multinomial", "systematic"]
"""Independent draws, or evenly spaced ones with a single random offset (less variance)."""

EPSILON = 1e-7
"""Rewards are kept this far from 0 and 1 so that their log-odds are finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleFilter:
    """Particle filtering for inference-time scaling (arXiv 2502.01618).

    The width left is the number of particles; each draws its parent among the open leaves with probability
    softmax(logit(reward) / temperature).

    Differs: a finished trajectory keeps its slot and is neither resampled away nor copied, as the width left
    leaves it out; in the paper finished particles take part in resampling.

    Attributes:
        temperature: of the softmax; 1 as in the paper, lower is greedier.
        weight: "logit" as in the paper: odds ** (1 / temperature); "reward": reward ** (1 / temperature).
        resampling: "multinomial" as in the paper, or "systematic".
        reduce: which reward of a leaf's path is meant.
    """

    name: ClassVar[str] = "particle"
    pace: ClassVar[Pace] = "level"
    features: ClassVar[frozenset[str]] = frozenset()

    temperature: float = 1.0
    weight: Weight = "logit"
    resampling: Resampling = "multinomial"
    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_choice("weight", self.weight, get_args(Weight))
        check_choice("resampling", self.resampling, get_args(Resampling))
        check_reduce(self.reduce)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Draw `width` parents; a leaf that is never drawn is pruned."""
        leaves = open_leaves(tree, self.reduce)
        probabilities = self.probabilities([leaf.reward for leaf in leaves])
        counts = self._draw(probabilities, width, rng)
        return Selection(
            tuple(Expansion(leaf.node, n) for leaf, n in zip(leaves, counts, strict=True) if n),
            {
                leaf.node: f"particle: not among {width} draws, probability {p:.3g}"
                for leaf, n, p in zip(leaves, counts, probabilities, strict=True)
                if not n
            },
        )

    def probabilities(self, rewards: Sequence[float]) -> tuple[float, ...]:
        """The chance of each leaf to be one draw's parent."""
        clipped = [min(max(reward, EPSILON), 1 - EPSILON) for reward in rewards]
        if self.weight == "logit":
            return softmax([math.log(r) - math.log1p(-r) for r in clipped], self.temperature)
        return softmax([math.log(r) for r in clipped], self.temperature)

    def _draw(self, probabilities: Sequence[float], width: int, rng: random.Random) -> list[int]:
        counts = [0] * len(probabilities)
        if self.resampling == "multinomial":
            for position in rng.choices(range(len(counts)), weights=probabilities, k=width):
                counts[position] += 1
            return counts
        bounds = list(accumulate(probabilities))
        offset, position = rng.random(), 0
        for draw in range(width):
            while position < len(bounds) - 1 and bounds[position] * width <= draw + offset:
                position += 1
            counts[position] += 1
        return counts
