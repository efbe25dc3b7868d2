"""A search method of one's own: expand every leaf whose path is at least half as good as the best one.

Usage: python examples/own_policy.py

With this line in `METHODS` of search/catalogue.py it has a name of its own, `--method half-as-good --option share=0.4`:

    "half-as-good": Method("own_policy:HalfAsGood"),
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from search import Problem, Search, SearchTree
from search.allocate import even_split
from search.mini import problem
from search.types import Expansion, Pace, Reduce, Selection


@dataclass(frozen=True)
class HalfAsGood:
    """Keeps the leaves within a share of the best reward, and splits the width evenly over them.

    What is a field is an option of the method; `reduce`, which every method with a name has, is `--search-reduce`.
    """

    name: ClassVar[str] = "half-as-good"
    pace: ClassVar[Pace] = "level"  # it compares leaves, so it is asked when all that it ordered is written and scored
    features: ClassVar[frozenset[str]] = frozenset()
    share: float = 0.5
    reduce: Reduce = "prod"

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        rewards = {leaf.id: tree.path_reward(leaf.id, self.reduce) for leaf in tree.leaves()}
        best = max(rewards.values())
        kept = sorted((leaf for leaf in rewards if rewards[leaf] >= self.share * best), key=lambda leaf: -rewards[leaf])
        counts = even_split(width, len(kept))
        return Selection(
            tuple(Expansion(leaf, count) for leaf, count in zip(kept, counts, strict=True) if count),
            {leaf: f"{self.name}: {rewards[leaf]:.2f} against {best:.2f}" for leaf in rewards},
        )


def main() -> None:
    made = problem("test", 3)
    with Search(method=HalfAsGood(), width=12) as search:
        result = search.solve(Problem(made.id, made.text, made.answer))
    print(f"{result.method}: {result.answer}, {'right' if result.correct else 'wrong'}")
    for node in result.tree:
        if node.status == "pruned":
            print(f"pruned {node.text.strip()!r}: {node.reason}")


if __name__ == "__main__":
    main()
