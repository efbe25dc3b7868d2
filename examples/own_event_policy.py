"""An event-wise search method of one's own: asked at every scored step, it goes on from those above the median so far.

Usage: python examples/own_event_policy.py

With this line in `METHODS` of search/catalogue.py it has a name of its own, `--method above-median`:

    "above-median": Method("own_event_policy:AboveMedian"),
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import ClassVar

from search import Problem, Search, SearchTree
from search.allocate import even_split
from search.mini import problem
from search.types import ROOT, Expansion, NodeStatus, Pace, Reduce, Selection


@dataclass(frozen=True)
class AboveMedian:
    """A step below the median of all rewards so far is pruned; the width that this frees goes to those above it."""

    name: ClassVar[str] = "above-median"
    pace: ClassVar[Pace] = "rolling"  # whenever steps are scored, while others are being written
    features: ClassVar[frozenset[str]] = frozenset()
    reduce: Reduce = "last"

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        rewards = {leaf.id: tree.path_reward(leaf.id, self.reduce) for leaf in tree.leaves() if leaf.id != ROOT}
        if not rewards:
            return Selection((Expansion(ROOT, width),))
        bar = statistics.median(node.reward for node in tree if node.reward is not None)
        kept = sorted((leaf for leaf in rewards if rewards[leaf] >= bar), key=lambda leaf: (-rewards[leaf], leaf))
        if not kept and not tree.leaves(NodeStatus.PENDING):
            kept = [max(rewards, key=lambda leaf: (rewards[leaf], -leaf))]  # something must go on
        counts = even_split(width, len(kept)) if kept else ()
        return Selection(
            tuple(Expansion(leaf, count) for leaf, count in zip(kept, counts, strict=True) if count),
            {leaf: f"{self.name}: {reward:.2f} against {bar:.2f}" for leaf, reward in rewards.items()},
        )


def main() -> None:
    made = problem("test", 3)
    with Search(method=AboveMedian(), width=12) as search:
        result = search.solve(Problem(made.id, made.text, made.answer))
    print(f"{result.method}: {result.answer}, {'right' if result.correct else 'wrong'}")
    for node in result.tree:
        if node.status == "pruned":
            print(f"pruned {node.text.strip()!r}: {node.reason}")


if __name__ == "__main__":
    main()
