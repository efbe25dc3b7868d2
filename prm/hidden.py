"""The reward model's own view of a step as its embedding: no second model, and next to no computing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from prm.scorer import PrmScorer
from search.tree import Node, SearchTree


class HiddenFeature:
    """The node feature "embedding": the reward model's last hidden state at the end of the node's step.

    Unlike a text's embedding it knows the path above: one sentence below two parents has two vectors. The engine has
    read the step already when it scored it, so that nothing, or one token, is computed again.
    """

    name: ClassVar[str] = "embedding"

    def __init__(self, scorer: PrmScorer) -> None:
        """Read the hidden states of `scorer`'s model; its engine must give them, as the local one does."""
        self.scorer = scorer

    async def compute(self, tree: SearchTree, nodes: Sequence[Node]) -> Sequence[object]:
        """One vector for each node, in order, (hidden_size,) each.

        Raises:
            EngineError: the engine does not give hidden states, or could not be asked.
        """
        async with self.scorer.open(tree) as session:  # the one that scores it
            vectors = await session.hidden(tree, [node.id for node in nodes])
        return [np.asarray(vector, dtype=np.float32) for vector in vectors]
