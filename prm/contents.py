"""What steps say is judged once: those that say the same below the same path have one and the same reward."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence

from search.tree import SearchTree
from search.types import NodeId


class ContentSession(ABC):
    """A scorer at work on one tree; two nodes whose paths say the same are one content, and one number.

    Judged apart, in other batches, two rewards could differ in their last digit, and a tie would fall this way or that
    with what happens to run beside.
    """

    def __init__(self) -> None:
        """Nothing is judged."""
        self._rewards: dict[int, float] = {}
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    @abstractmethod
    def _content(self, tree: SearchTree, node_id: NodeId) -> int:
        """The number of what the path to a node says."""

    @abstractmethod
    async def _ask(self, tree: SearchTree, node_id: NodeId) -> float:
        """The reward of a node's step."""

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """Rewards in [0, 1] of these nodes' own steps, in order.

        Raises:
            ScoringError: what came out is no reward; names the node's path.
            EngineError: a model could not be asked.
        """
        return tuple(await asyncio.gather(*(self._score(tree, node) for node in nodes)))

    async def _score(self, tree: SearchTree, node: NodeId) -> float:
        content = self._content(tree, node)
        if tree.ahead is not None and content not in self._rewards:
            return await self._ask(tree, node)
        async with self._locks[content]:
            if content not in self._rewards:
                self._rewards[content] = await self._ask(tree, node)
        return self._rewards[content]
