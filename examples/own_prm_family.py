"""A family of reward models of one's own: what a checkpoint is known by, what it reads, and how that is a reward.

Usage: python examples/own_prm_family.py

With this line in `PRM_FAMILIES` of search/catalogue.py its checkpoints are recognised, `--prm PATH`:

    "calibrated": "own_prm_family:CalibratedCodec",
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prm import PrmConfig, PrmScorer
from prm.checkpoint import Checkpoint
from prm.codec import LabelCodec, two_way
from search import Problem, Search, SearchSettings
from search.mini import problem
from search.protocols import Tokenizer
from search.setup.registry import make_engine
from search.tree import Node, SearchTree

TEMPERATURE = 2.0


class CalibratedCodec(LabelCodec):
    """Label tokens of a model that is too sure: its odds are read at a temperature. It reads the policy's own ids."""

    name: ClassVar[str] = "calibrated"

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        assert config.shares_ids, "it was trained on the policy's ids"
        super().__init__(tokenizer, config)

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        return checkpoint.by_name(("calibrated", "prm"))

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        return tree.root.ids

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        return node.ids

    def reward(self, outputs: Sequence[float]) -> float:
        good, bad = outputs
        return two_way(bad / TEMPERATURE, good / TEMPERATURE)


def main() -> None:
    engine = make_engine("local", "mini:prm", SearchSettings(), None)
    scorer = PrmScorer(engine, CalibratedCodec(engine.tokenizer, PrmConfig()))
    made = problem("test", 3)
    with Search(prm=scorer, method="ets", width=8) as search:
        result = search.solve(Problem(made.id, made.text, made.answer))
    print(f"{result.answer}, {'right' if result.correct else 'wrong'}")
    for one in result.trajectories:
        print(one.answer, [round(reward or 0, 3) for reward in one.rewards])


if __name__ == "__main__":
    main()
