"""Recorded levels under draws of their rewards: what each method keeps of them, and what that is good for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.protocols import FeatureProvider, Policy
from search.studies.recorded import SEPARATION
from search.studies.recorded_levels import Level
from search.support.statistics import auc
from search.tree import derive_seed
from search.types import NodeId

Allocation: TypeAlias = Mapping[NodeId, int]
"""Children for each kept leaf."""

Chooser: TypeAlias = Callable[[Level, int], Allocation]
"""A method at one level, in the draw of this number; its rewards stand in the level's tree."""

Rewards: TypeAlias = Mapping[NodeId, float]


class Outcome(NamedTuple):
    """What a method kept of one level, in one draw of its rewards.

    Attributes:
        kept_tokens: of the steps on the kept paths, each once.
        mass: the share of the width, as it is handed out again, on paths whose recorded continuation is right.
        survival: 1 where a kept leaf leads to a right solution, else 0.
    """

    kept_tokens: float
    mass: float
    survival: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A method over all cases.

    Attributes:
        outcomes: the fields of `Outcome`, in the order of the cases. (num_cases, 3)
    """

    outcomes: NDArray[np.float64]

    @property
    def tokens(self) -> float:
        """Kept tokens, mean over the cases."""
        return float(self.outcomes[:, 0].mean())

    def by_problem(self, problem: NDArray[np.int64]) -> NDArray[np.float64]:
        """The means of each problem's cases, (num_problems, 3).

        Args:
            problem: number of each case's problem. (num_cases,)
        """
        return np.array([self.outcomes[problem == number].mean(axis=0) for number in np.unique(problem)])


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """Every level under every draw of its rewards.

    Attributes:
        levels: as recorded.
        draws: of each level.
        problem: number of each case's problem, from 0. (num_cases,)
        auc: of the rewards within the levels of one problem; None where no level has both right and wrong candidates.
    """

    levels: tuple[Level, ...]
    draws: tuple[tuple[Rewards, ...], ...]
    problem: NDArray[np.int64]
    auc: float | None

    @classmethod
    def draw(cls, levels: Sequence[Level], seed: int, num_draws: int) -> Cases:
        """The levels with their own rewards, or with simulated ones.

        Args:
            levels: those of one problem follow each other.
            seed: of the simulation.
            num_draws: of simulated rewards.
        """
        # One draw that changes none of the rewards where they are recorded.
        draws = [({},) if level.scored else _simulated(level, seed, num_draws) for level in levels]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(level.problem for level in levels))}
        problem = [numbers[level.problem] for level, drawn in zip(levels, draws, strict=True) for _ in drawn]
        return cls(tuple(levels), tuple(draws), np.array(problem), _auc(levels, draws))

    def __iter__(self) -> Iterator[tuple[Level, int]]:
        """Each case: the level, with the draw of this number in its tree until the next one is asked for."""
        for level, draws in zip(self.levels, self.draws, strict=True):
            for number, rewards in enumerate(draws):
                for node, reward in rewards.items():
                    level.tree.set_reward(node, reward)
                yield level, number

    def embed(self, feature: FeatureProvider) -> None:
        """Give every candidate the feature, level by level as in a search."""

        async def compute() -> None:
            for level in self.levels:
                leaves = level.tree.leaves()
                for leaf, value in zip(leaves, await feature.compute(level.tree, leaves), strict=True):
                    leaf.features[feature.name] = value

        asyncio.run(compute())

    def measure(self, choose: Chooser) -> Measured:
        """What a method keeps."""
        return Measured(np.array([_outcome(level, choose(level, number)) for level, number in self]))


def by_policy(policy: Policy) -> Chooser:
    """What a search policy hands out; it may draw nothing."""

    def choose(level: Level, number: int) -> Allocation:
        selection = policy.select(level.tree, level.width, random.Random(0))
        return {expansion.node: expansion.num_children for expansion in selection.expansions}

    return choose


def _outcome(level: Level, children: Allocation) -> Outcome:
    mass = sum(count * level.right[leaf] for leaf, count in children.items()) / sum(children.values())
    survives = any(level.right[leaf] > 0 for leaf in children)
    return Outcome(level.kept_tokens(children), mass, float(survives))


def _simulated(level: Level, seed: int, num_draws: int) -> tuple[Rewards, ...]:
    """Rewards that are calibrated at even odds: the chance of a right solution after what a noisy look shows.

    The look is normal, around 0 for a wrong solution and `SEPARATION` for a right one, in between for a step that has
    led to both.
    """
    rewards = []
    for number in range(num_draws):
        rng = random.Random(derive_seed(seed, level.problem, level.depth, number))
        looks = {leaf: rng.gauss(SEPARATION * share, 1.0) for leaf, share in level.right.items()}
        rewards.append({leaf: _calibrated(look) for leaf, look in looks.items()})
    return tuple(rewards)


def _calibrated(look: float) -> float:
    return float(1 / (1 + np.exp(-SEPARATION * (look - SEPARATION / 2))))


def _auc(levels: Sequence[Level], draws: Sequence[Sequence[Rewards]]) -> float | None:
    """Mean over the levels, weighted by their pairs of right and wrong candidates."""
    weighted = []
    for level, drawn in zip(levels, draws, strict=True):
        labels = [share > 0.5 for share in level.right.values()]
        for rewards in drawn:
            scores = [rewards[leaf] if rewards else level.tree[leaf].reward or 0.0 for leaf in level.right]
            if (value := auc(scores, labels)) is not None:
                weighted.append((value, sum(labels) * (len(labels) - sum(labels))))
    if not weighted:
        return None
    return sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted)
