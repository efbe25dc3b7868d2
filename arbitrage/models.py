"""A model as routing uses it: a search tree in its own tokens, and the clock of its calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import replace

from search.ahead import AheadBuffer
from search.ledger import StageClock
from search.plain_text import encode_text
from search.protocols import Engine, Tokenizer
from search.support.streams import closing
from search.tree import SearchTree
from search.types import Child, FinishReason, Generation, NodeId, Prefix, Sampling, Segment, Step, Usage


class _TreeState:
    """What is known of one tree: its nodes in this model's ids, by their keys, and how long the model worked for it."""

    __slots__ = ("clock", "ids")

    def __init__(self) -> None:
        self.clock = StageClock()
        self.ids: dict[int, tuple[int, ...]] = {}


class ModelView:
    """One engine's view of search trees whose ids may be another tokenizer's.

    Where both tokenizers have the same content the tree's ids are taken as they are. Where not, each node's text is
    encoded once and kept; a step that this model wrote keeps the ids that it wrote.
    """

    def __init__(
        self, engine: Engine, tree_tokenizer: Tokenizer, prompt: Callable[[SearchTree], tuple[int, ...]] | None = None
    ) -> None:
        """View trees through `engine`.

        Args:
            engine: the model.
            tree_tokenizer: the one whose ids stand in the trees.
            prompt: the ids of the prompt as this model is to read it, where it does not share the tokenizer; by
                default those of the text at the tree's root.
        """
        self.engine = engine
        self._buffer = AheadBuffer(engine)
        self.shares_ids = engine.tokenizer.fingerprint == tree_tokenizer.fingerprint
        self._tree_tokenizer = tree_tokenizer
        self._prompt = prompt or (lambda tree: self.tokenizer.encode(tree.root.text))
        self._trees: dict[str, _TreeState] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self.engine.tokenizer

    def prefix(self, tree: SearchTree, node_id: NodeId) -> Prefix:
        """The path to a node in this model's ids."""
        if self.shares_ids:
            return tree.prefix(node_id)
        known = self._state(tree).ids
        segments = []
        for node in tree.path(node_id):
            if node.seed not in known:
                known[node.seed] = self._prompt(tree) if node.parent is None else self._encode(node.text)
                known[~node.seed] = ()
            elif node.forced_tokens and ~node.seed not in known:  # what stands behind a step that this model wrote
                known[~node.seed] = self._encode(self._tree_tokenizer.decode(node.ids[-node.forced_tokens :]))
            segments += [Segment(key, known[key]) for key in (node.seed, ~node.seed) if known.get(key)]
        return Prefix(tree.id, tuple(segments), tree.ahead)

    def step_ids(self, tree: SearchTree, step: Step) -> tuple[int, ...]:
        """A step in this model's ids, whoever wrote it."""
        if self.shares_ids:
            return step.ids
        return self._state(tree).ids.get(tree[step.node].seed) or self._encode(step.text)

    def step_prefix(self, tree: SearchTree, step: Step) -> Prefix:
        """The path to the end of a step that a pending node of `tree` might get."""
        node = tree[step.node]
        assert node.parent is not None
        above = self.prefix(tree, node.parent)
        return replace(above, segments=(*above.segments, Segment(node.seed, self.step_ids(tree, step))))

    async def states(self, tree: SearchTree, step: Step, layers: Sequence[int]) -> tuple[float, ...]:
        """The hidden states at the end of such a step, as `Engine.read` gives them; what they take is counted.

        Raises:
            EngineError: the engine gives none, or could not be asked.
        """
        with self._state(tree).clock.running():
            return await self._buffer.read(self.step_prefix(tree, step), "hidden", layers)

    async def generate(
        self, tree: SearchTree, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Steps as the engine writes them, in its own ids; its time is counted."""
        with self._state(tree).clock.running():
            async with closing(self._buffer.generate(prefix, children, sampling)) as made:
                async for generation in made:
                    yield generation

    def begin(self, prefix: Prefix, child: Child, sampling: Sampling) -> None:
        """Have a step written that may be asked for later, without waiting for it."""
        self._buffer.begin(prefix, child, sampling)

    def tree_ids(self, tree: SearchTree, generation: Generation) -> tuple[int, ...]:
        """A step that this model wrote in the tree's ids; its own ids are kept for what it reads later."""
        if self.shares_ids:
            return generation.ids
        self._state(tree).ids[generation.key] = generation.ids
        ids = encode_text(self._tree_tokenizer, generation.text, written=True)
        ends = sorted(self._tree_tokenizer.eos_ids)
        return (*ids, ends[0]) if generation.finish is FinishReason.EOS and ends else ids

    def forget(self, tree: SearchTree, node_id: NodeId) -> None:
        """The step that this model wrote for a node was replaced by another."""
        for key in (tree[node_id].seed, ~tree[node_id].seed):
            self._state(tree).ids.pop(key, None)

    def usage(self, tree: SearchTree) -> Usage:
        """What the engine did for a tree, with the seconds of its writing."""
        return replace(self._buffer.usage(tree.id), seconds=self._state(tree).clock.seconds)

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what the engine holds for these nodes, or for the whole tree."""
        if nodes is None:
            self._trees.pop(tree.id, None)
        await self._buffer.release(tree.id, None if nodes is None else tree.keys(nodes))

    def _encode(self, step: str) -> tuple[int, ...]:
        return encode_text(self.tokenizer, step, written=True)

    def _state(self, tree: SearchTree) -> _TreeState:
        return self._trees.setdefault(tree.id, _TreeState())
