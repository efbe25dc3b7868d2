"""Rewards by a scorer of steps that stand in a tree, as a search asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from search.protocols import Scorer
from search.tree import SearchTree
from search.types import NodeId


def rewards_of(scorer: Scorer, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
    """The rewards of these nodes, in one session."""

    async def score() -> tuple[float, ...]:
        async with scorer.open(tree) as session:
            return await session.score(tree, nodes)

    return asyncio.run(score())
