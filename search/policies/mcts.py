"""Monte Carlo tree search: goes on at any depth, wherever good and little-tried steps are."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from search.errors import ConfigError
from search.policies.common import check_count, check_reduce
from search.tree import SearchTree
from search.types import ROOT, Expansion, NodeId, NodeStatus, Pace, Reduce, Selection

_LEFT_OUT = (NodeStatus.FAILED, NodeStatus.PRUNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mcts:
    """Tree search by UCT (Kocsis and Szepesvari 2006) over the steps' rewards.

    Each round goes down from the prompt to `num_leaves` open leaves and gives each `num_children` children; all other
    leaves wait. On the way down it takes the child of the highest value + exploration * sqrt(ln N / n): the value is
    the mean reward over the n paths that end at or below the child, and N is the sum of n over the siblings. Of equals
    the lower node id comes first. A leaf chosen in this round counts as one more path of its own value, so that the
    next goes elsewhere. The search ends when `width` trajectories have ended; what waits then is pruned.

    Differs: a step's reward stands for its value, as in TS-LLM (arXiv 2309.17179); no rollouts are played, and no
    priors of the policy are used.

    Attributes:
        num_children: children of each leaf that is expanded.
        num_leaves: leaves to expand in one round; 1 is the search step by step.
        exploration: c >= 0; 0 is greedy.
        reduce: which reward of a path is its value.
    """

    name: ClassVar[str] = "mcts"
    pace: ClassVar[Pace] = "level"
    features: ClassVar[frozenset[str]] = frozenset()

    num_children: int = 4
    num_leaves: int = 1
    exploration: float = 0.5
    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        check_count("num_children", self.num_children)
        check_count("num_leaves", self.num_leaves)
        if not 0 <= self.exploration < float("inf"):
            raise ConfigError(f"exploration must be a number of at least 0, not {self.exploration}")
        check_reduce(self.reduce)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Expand the leaves that UCT comes to; the others wait."""
        counts, sums, num_open = self._statistics(tree)
        expansions: list[Expansion] = []
        while width and num_open[ROOT] and len(expansions) < self.num_leaves:
            path = self._descend(tree, counts, sums, num_open)
            leaf = path[-1]
            expansions.append(Expansion(leaf, min(self.num_children, width)))
            width -= expansions[-1].num_children
            value = sums[leaf] / counts[leaf] if counts[leaf] else 1.0
            for node in path:
                counts[node] += 1
                sums[node] += value
                num_open[node] -= 1
        chosen = {expansion.node for expansion in expansions}
        waiting = frozenset(leaf.id for leaf in tree.leaves()) - chosen
        return Selection(tuple(sorted(expansions, key=lambda one: one.node)), waiting=waiting)

    def _statistics(self, tree: SearchTree) -> tuple[list[int], list[float], list[int]]:
        """For each node: the scored paths that end at or below it, the sum of their rewards, and its open leaves."""
        counts, sums, num_open = [0] * len(tree), [0.0] * len(tree), [0] * len(tree)
        for node in reversed(tree.nodes):
            num_open[node.id] += node.status is NodeStatus.OPEN
            if node.id != ROOT and node.status not in _LEFT_OUT:
                counts[node.id] += 1
                sums[node.id] += tree.path_reward(node.id, self.reduce)
            if node.parent is not None:
                counts[node.parent] += counts[node.id]
                sums[node.parent] += sums[node.id]
                num_open[node.parent] += num_open[node.id]
        return counts, sums, num_open

    def _descend(
        self, tree: SearchTree, counts: Sequence[int], sums: Sequence[float], num_open: Sequence[int]
    ) -> list[NodeId]:
        """The path to the open leaf that UCT comes to."""
        path = [ROOT]
        while tree[path[-1]].status is not NodeStatus.OPEN:
            children = tree.children(path[-1])
            tried = math.log(max(1, sum(counts[child] for child in children)))

            def bound(child: NodeId, tried: float = tried) -> float:
                return sums[child] / counts[child] + self.exploration * math.sqrt(tried / counts[child])

            path.append(max((child for child in children if num_open[child]), key=bound))
        return path
