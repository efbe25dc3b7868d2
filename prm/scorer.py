"""The scorer: a process reward model over a search tree, computing only what a new step adds."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from prm.codec import PrmCodec
from search.ahead import AheadBuffer
from search.errors import ScoringError
from search.protocols import Engine
from search.tree import Node, SearchTree
from search.types import NodeId, Prefix, Segment, Usage


class _TreeState:
    """What is known of one tree, by content: two nodes whose paths say the same are one content, and one number.

    Nodes are told apart by their keys, which forks of the tree share with it. `asked` are the contents on the paths
    that the search itself asked about.
    """

    __slots__ = ("_contents", "_nodes", "_users", "asked", "locks", "rewards", "segments")

    def __init__(self) -> None:
        self.segments: dict[int, Segment] = {}
        self.rewards: dict[int, float] = {}
        self.locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._contents: dict[tuple[int, tuple[int, ...], str], int] = {}
        self._nodes: dict[int, int] = {}
        self._users: defaultdict[int, set[int]] = defaultdict(set)
        self.asked: set[int] = set()

    def contents(self, path: Sequence[Node]) -> list[int]:
        """The numbers of what this path says, down to each of its nodes, which use them until they are released."""
        numbers: list[int] = []
        for node in path:
            number = self._nodes.get(node.seed)
            if number is None:
                said = (numbers[-1] if numbers else -1, node.ids, node.text)
                number = self._nodes[node.seed] = self._contents.setdefault(said, len(self._contents))
            self._users[number].add(node.seed)
            numbers.append(number)
        return numbers

    def release(self, keys: Collection[int]) -> set[int]:
        """Contents that had one of the nodes of these keys as their last user."""
        gone = set()
        for key in keys:
            content = self._nodes.get(key)
            if content is not None and key in self._users[content]:
                self._users[content].remove(key)
                if not self._users[content]:
                    gone.add(content)
        return gone


class PrmScorer:
    """Scores each step when it is written, on an engine that keeps the path above it cached.

    Siblings often say the same to the last token. They are asked about once, share what is cached for them, and have
    one and the same reward: computed apart, in other batches, two rewards could differ in their last digit, and a tie
    would fall this way or that with what happens to run beside.
    """

    scores_ahead = True

    def __init__(self, engine: Engine, codec: PrmCodec) -> None:
        """Read `engine`'s model through `codec`."""
        self.engine = engine
        self._buffer = AheadBuffer(engine)
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
        content = state.contents(tree.path(node_id))[-1]
        if tree.ahead is not None and content not in state.rewards:
            return await self._ask(tree, node_id)
        async with state.locks[content]:
            if content not in state.rewards:
                state.rewards[content] = await self._ask(tree, node_id)
        return state.rewards[content]

    async def _ask(self, tree: SearchTree, node_id: NodeId) -> float:
        reward = await self._judge(tree, node_id)
        if math.isnan(reward) or not 0.0 <= reward <= 1.0:
            path = "/".join(str(node.id) for node in tree.path(node_id))
            text = tree[node_id].text.strip()
            raise ScoringError(
                f"problem {tree.id.rpartition('#')[0]}: the reward model gave {reward} for node {path} "
                f"({text[:80]!r}); a reward must be a number from 0 to 1"
            )
        return reward

    async def _judge(self, tree: SearchTree, node_id: NodeId) -> float:
        """What the model says of a node's step."""
        prefix = self._prefix(tree, node_id)
        if self.codec.reads == "labels":
            outputs = await self._buffer.label_logprobs(prefix, self.codec.labels)
        else:
            outputs = await self._buffer.read(prefix, "head")
        return self.codec.reward(outputs)

    async def hidden(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[tuple[float, ...], ...]:
        """The model's last hidden state at the end of each node's own step, in order; equal paths are read once.

        Raises:
            EngineError: the engine does not give it, or could not be asked.
        """
        state = self._trees[tree.id]
        first: dict[int, NodeId] = {}
        contents = [state.contents(tree.path(node))[-1] for node in nodes]
        for content, node in zip(contents, nodes, strict=True):
            first.setdefault(content, node)
        read = await asyncio.gather(*(self._buffer.read(self._prefix(tree, node), "hidden") for node in first.values()))
        vectors = dict(zip(first, read, strict=True))
        return tuple(vectors[content] for content in contents)

    def _prefix(self, tree: SearchTree, node_id: NodeId) -> Prefix:
        path = tree.path(node_id)
        state = self._trees[tree.id]
        contents = state.contents(path)
        if tree.ahead is None:
            state.asked.update(contents)
        segments = (self._segment(tree, node, content) for node, content in zip(path, contents, strict=True))
        return Prefix(self._tree_name(tree), tuple(segments), tree.ahead)

    def _segment(self, tree: SearchTree, node: Node, content: int) -> Segment:
        """A content as the model reads it, encoded once; its number is its key in the engine."""
        known = self._trees[tree.id].segments
        if (segment := known.get(content)) is None:
            ids = self.codec.prompt_ids(tree) if node.parent is None else self.codec.step_ids(tree, node)
            segment = known[content] = Segment(content, ids)
        return segment

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What the engine did for a tree, as "prm"."""
        return {"prm": self._buffer.usage(self._tree_name(tree))}

    def num_unique_tokens(self, tree: SearchTree) -> int:
        """Tokens of all that was asked about so far and of the paths above, each shared one once."""
        state = self._trees[tree.id]
        return sum(len(segment.ids) for content, segment in state.segments.items() if content in state.asked)

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes, or for the whole tree; the count of unique tokens stays till then."""
        if nodes is None:
            self._trees.pop(tree.id, None)
            await self._buffer.release(self._tree_name(tree), None)
        elif tree.id in self._trees and (gone := self._trees[tree.id].release(tree.keys(nodes))):
            await self._buffer.release(self._tree_name(tree), [key for content in gone for key in self._keys(content)])

    def _keys(self, content: int) -> tuple[int, ...]:
        """What the engine may hold for a content, by its keys."""
        return (content,)

    @staticmethod
    def _tree_name(tree: SearchTree) -> str:
        # A name of its own: one engine may serve as policy and as reward model, with other ids under equal keys.
        return f"{tree.id}/prm"
