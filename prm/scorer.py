"""The scorer: a process reward model over a search tree, computing only what a new step adds."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from prm.codec import PrmCodec
from prm.contents import ContentSession
from search.ahead import AheadBuffer
from search.errors import ScoringError
from search.parts import Shared
from search.protocols import Engine
from search.tree import Node, SearchTree
from search.types import NodeId, Prefix, Segment, Usage


class PrmScorer(Shared["PrmSession"]):
    """Scores each step when it is written, on an engine that keeps the path above it cached.

    Siblings often say the same to the last token. They are asked about once, and share what is cached for them.
    """

    scores_ahead = True

    def __init__(self, engine: Engine, codec: PrmCodec) -> None:
        """Read `engine`'s model through `codec`."""
        super().__init__()
        self.engine = engine
        self.codec = codec

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The one engine, as "prm"."""
        return {"prm": self.engine}

    def _session(self, tree: SearchTree) -> PrmSession:
        return PrmSession(self.engine, self.codec, tree)


class PrmSession(ContentSession):
    """What is known of one tree, by content.

    Nodes are told apart by their keys, which forks of the tree share with it.
    """

    def __init__(self, engine: Engine, codec: PrmCodec, tree: SearchTree) -> None:
        """Read `engine`'s model through `codec`."""
        super().__init__()
        # A name of its own: one engine may serve as policy and as reward model, with other ids under equal keys.
        self._buffer = AheadBuffer(engine, f"{tree.id}/prm")
        self.codec = codec
        self._segments: dict[int, Segment] = {}
        self._contents: dict[tuple[int, tuple[int, ...], str], int] = {}
        self._nodes: dict[int, int] = {}
        self._users: defaultdict[int, set[int]] = defaultdict(set)
        self._asked: set[int] = set()  # contents on the paths that the search itself asked about

    def _content(self, tree: SearchTree, node_id: NodeId) -> int:
        return self._numbered(tree.path(node_id))[-1]

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
        first: dict[int, NodeId] = {}
        contents = [self._content(tree, node) for node in nodes]
        for content, node in zip(contents, nodes, strict=True):
            first.setdefault(content, node)
        read = await asyncio.gather(*(self._buffer.read(self._prefix(tree, node), "hidden") for node in first.values()))
        vectors = dict(zip(first, read, strict=True))
        return tuple(vectors[content] for content in contents)

    def _prefix(self, tree: SearchTree, node_id: NodeId) -> Prefix:
        path = tree.path(node_id)
        contents = self._numbered(path)
        if tree.ahead is None:
            self._asked.update(contents)
        segments = (self._segment(tree, node, content) for node, content in zip(path, contents, strict=True))
        return Prefix(self._buffer.tree, tuple(segments), tree.ahead)

    def _numbered(self, path: Sequence[Node]) -> list[int]:
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

    def _segment(self, tree: SearchTree, node: Node, content: int) -> Segment:
        """A content as the model reads it, encoded once; its number is its key in the engine."""
        if (segment := self._segments.get(content)) is None:
            ids = self.codec.prompt_ids(tree) if node.parent is None else self.codec.step_ids(tree, node)
            segment = self._segments[content] = Segment(content, ids)
        return segment

    def usage(self) -> Mapping[str, Usage]:
        """What the engine did for the tree, as "prm"."""
        return {"prm": self._buffer.usage()}

    def num_unique_tokens(self) -> int:
        """Tokens of all that was asked about so far and of the paths above, each shared one once."""
        return sum(len(segment.ids) for content, segment in self._segments.items() if content in self._asked)

    async def release(self, keys: Collection[int] | None) -> None:
        """Free what is cached for these nodes, or for the whole tree; the count of unique tokens stays."""
        if keys is None:
            await self._buffer.release()
            return
        gone: set[int] = set()
        for key in keys:
            content = self._nodes.get(key)
            if content is not None and key in self._users[content]:
                self._users[content].remove(key)
                if not self._users[content]:
                    gone.add(content)
        if gone:
            await self._buffer.release([key for content in gone for key in self._keys(content)])

    def _keys(self, content: int) -> tuple[int, ...]:
        """What the engine may hold for a content, by its keys."""
        return (content,)
