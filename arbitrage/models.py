"""A model as routing uses it: a search tree in its own tokens, and the clock of its calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import replace

from search.ahead import AheadBuffer
from search.ledger import StageClock
from search.parts import Shared
from search.plain_text import encode_text
from search.protocols import Engine, Tokenizer
from search.support.streams import closing
from search.tree import SearchTree
from search.types import Child, FinishReason, Generation, NodeId, Prefix, Sampling, Segment, Step, Usage


class ModelView(Shared["ModelSession"]):
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
        super().__init__()
        self.engine = engine
        self.tree_tokenizer = tree_tokenizer
        self.shares_ids = engine.tokenizer.fingerprint == tree_tokenizer.fingerprint
        self.prompt = prompt or (lambda tree: self.tokenizer.encode(tree.root.text))

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self.engine.tokenizer

    def _session(self, tree: SearchTree) -> ModelSession:
        return ModelSession(self, tree)


class ModelSession:
    """What is known of one tree: its nodes in the model's ids, and how long the model worked for it."""

    def __init__(self, view: ModelView, tree: SearchTree) -> None:
        """View a tree, and forks of it."""
        self._view, self.engine = view, view.engine
        self._buffer = AheadBuffer(view.engine, tree.id)
        self._clock = StageClock()
        self._ids: dict[int, tuple[int, ...]] = {}

    def prefix(self, tree: SearchTree, node_id: NodeId) -> Prefix:
        """The path to a node in this model's ids."""
        if self._view.shares_ids:
            return tree.prefix(node_id)
        ids_by_seed = self._ids
        segments = []
        for node in tree.path(node_id):
            if node.seed not in ids_by_seed:
                ids_by_seed[node.seed] = self._view.prompt(tree) if node.parent is None else self._encode(node.text)
                ids_by_seed[~node.seed] = ()
            elif node.forced_tokens and ~node.seed not in ids_by_seed:
                # What stands behind a step that this model wrote.
                forced = self._view.tree_tokenizer.decode(node.ids[-node.forced_tokens :])
                ids_by_seed[~node.seed] = self._encode(forced)
            segments += [Segment(key, ids_by_seed[key]) for key in (node.seed, ~node.seed) if ids_by_seed.get(key)]
        return Prefix(tree.id, tuple(segments), tree.ahead)

    def step_ids(self, tree: SearchTree, step: Step) -> tuple[int, ...]:
        """A step in this model's ids, whoever wrote it."""
        if self._view.shares_ids:
            return step.ids
        return self._ids.get(tree[step.node].seed) or self._encode(step.text)

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
        with self._clock.running():
            return await self._buffer.read(self.step_prefix(tree, step), "hidden", layers)

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Steps as the engine writes them, in its own ids; its time is counted."""
        with self._clock.running():
            async with closing(self._buffer.generate(prefix, children, sampling)) as generations:
                async for generation in generations:
                    yield generation

    def begin(self, prefix: Prefix, child: Child, sampling: Sampling) -> None:
        """Have a step written that may be asked for later, without waiting for it."""
        self._buffer.begin(prefix, child, sampling)

    def step(self, node: NodeId, generation: Generation, writer: str) -> Step:
        """What this model wrote for a node, as a step of the tree."""
        return Step(
            node,
            self.tree_ids(generation),
            generation.text,
            generation.finish,
            writer,
            generation.seconds,
            logprobs=generation.logprobs,
        )

    def tree_ids(self, generation: Generation) -> tuple[int, ...]:
        """A step that this model wrote in the tree's ids; its own ids are kept for what it reads later."""
        if self._view.shares_ids:
            return generation.ids
        self._ids[generation.key] = generation.ids
        ids = encode_text(self._view.tree_tokenizer, generation.text, written=True)
        ends = sorted(self._view.tree_tokenizer.eos_ids)
        return (*ids, ends[0]) if generation.finish is FinishReason.EOS and ends else ids

    def forget(self, key: int) -> None:
        """The step that this model wrote for the node of this key was replaced by another."""
        self._ids.pop(key, None)
        self._ids.pop(~key, None)

    def usage(self) -> Usage:
        """What the engine did for the tree, with the seconds of its writing."""
        return replace(self._buffer.usage(), seconds=self._clock.seconds)

    async def release(self, keys: Collection[int] | None) -> None:
        """Free what the engine holds for these nodes, or for the whole tree."""
        await self._buffer.release(keys)

    def _encode(self, step: str) -> tuple[int, ...]:
        return encode_text(self._view.tokenizer, step, written=True)
