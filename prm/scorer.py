"""The scorer: a process reward model over a search tree, computing only what a new step adds."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from prm.codec import PrmCodec
from search.errors import ScoringError
from search.protocols import Engine
from search.tree import Node, SearchTree
from search.types import NodeId, Prefix, Segment, Usage


class _TreeState:
    """What is known of one tree: nodes as the model reads them, and the rewards of their contents."""

    __slots__ = ("_contents", "locks", "rewards", "segments")

    def __init__(self) -> None:
        self.segments: dict[NodeId, Segment] = {}
        self.rewards: dict[int, float] = {}
        self.locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._contents: dict[tuple[int, tuple[int, ...], str], int] = {}

    def content(self, path: Sequence[Node]) -> int:
        """A number that two paths share exactly if they say the same."""
        above = -1
        for node in path:
            above = self._contents.setdefault((above, node.ids, node.text), len(self._contents))
        return above


class PrmScorer:
    """Scores each step when it is written, on an engine that keeps the path above it cached.

    Siblings often say the same to the last token. They are asked about once, and so have one and the same reward:
    computed apart, in other batches, two rewards could differ in their last digit, and a tie would fall this way or
    that with what happens to run beside.
    """

    def __init__(self, engine: Engine, codec: PrmCodec) -> None:
        """Read `engine`'s model through `codec`."""
        self.engine = engine
        self.codec = codec
        self._trees: defaultdict[str, _TreeState] = defaultdict(_TreeState)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The one engine, as "prm"."""
        return {"prm": self.engine}

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """Rewards in [0, 1] of these nodes' own steps, in order.

        Raises:
            ScoringError: a reward is NaN or outside [0, 1]; names the node's path and its text.
            EngineError: the model could not be asked.
        """
        return tuple(await asyncio.gather(*(self._score(tree, node) for node in nodes)))

    async def _score(self, tree: SearchTree, node_id: NodeId) -> float:
        state = self._trees[tree.id]
        content = state.content(tree.path(node_id))
        async with state.locks[content]:
            if content not in state.rewards:
                state.rewards[content] = await self._ask(tree, node_id)
        return state.rewards[content]

    async def _ask(self, tree: SearchTree, node_id: NodeId) -> float:
        prefix = self._prefix(tree, node_id)
        if self.codec.reads == "labels":
            outputs = await self.engine.label_logprobs(prefix, self.codec.labels)
        else:
            outputs = await self.engine.read(prefix, "head")
        reward = self.codec.reward(outputs)
        if math.isnan(reward) or not 0.0 <= reward <= 1.0:
            path = "/".join(str(node.id) for node in tree.path(node_id))
            text = tree[node_id].text.strip()
            raise ScoringError(
                f"problem {tree.id.rpartition('#')[0]}: the reward model gave {reward} for node {path} "
                f"({text[:80]!r}); a reward must be a number from 0 to 1"
            )
        return reward

    async def hidden(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[tuple[float, ...], ...]:
        """The model's last hidden state at the end of each node's own step, in order; equal paths are read once.

        Raises:
            EngineError: the engine does not give it, or could not be asked.
        """
        state = self._trees[tree.id]
        first: dict[int, NodeId] = {}
        contents = [state.content(tree.path(node)) for node in nodes]
        for content, node in zip(contents, nodes, strict=True):
            first.setdefault(content, node)
        read = await asyncio.gather(*(self.engine.read(self._prefix(tree, node), "hidden") for node in first.values()))
        vectors = dict(zip(first, read, strict=True))
        return tuple(vectors[content] for content in contents)

    def _prefix(self, tree: SearchTree, node_id: NodeId) -> Prefix:
        return Prefix(self._tree_name(tree), tuple(self._segment(tree, node.id) for node in tree.path(node_id)))

    def _segment(self, tree: SearchTree, node_id: NodeId) -> Segment:
        """A node as the model reads it; encoded once."""
        known = self._trees[tree.id].segments
        if (segment := known.get(node_id)) is None:
            node = tree[node_id]
            ids = self.codec.prompt_ids(tree) if node.parent is None else self.codec.step_ids(tree, node)
            segment = known[node_id] = Segment(node_id, ids)
        return segment

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What the engine did for a tree, as "prm"."""
        return {"prm": self.engine.usage(self._tree_name(tree))}

    def num_unique_tokens(self, tree: SearchTree) -> int:
        """Tokens of all nodes asked about so far and of the paths above them, each shared one once."""
        return sum(len(segment.ids) for segment in self._trees[tree.id].segments.values())

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes, or for the whole tree; the count of unique tokens stays till then."""
        if nodes is None:
            self._trees.pop(tree.id, None)
        await self.engine.release(self._tree_name(tree), nodes)

    @staticmethod
    def _tree_name(tree: SearchTree) -> str:
        # A name of its own: one engine may serve as policy and as reward model, with other ids under equal keys.
        return f"{tree.id}/prm"
