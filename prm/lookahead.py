"""Lookahead: a step is judged by where the policy would go from it, some greedy steps further on.

As in the lookahead search of Snell et al. (arXiv 2408.03314): the deterministic rollout's end is scored in the step's
place, and with the method "beam" this is their lookahead search. Differs: it is a scorer, so any method may have it;
and steps that say the same share one rollout.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from prm.contents import ContentSession
from search.errors import ConfigError, ContextOverflowError
from search.protocols import Engine, Scorer, ScorerSession
from search.support.streams import closing
from search.tree import SearchTree
from search.types import ROOT, Child, FinishReason, NodeId, NodeStatus, Sampling, Step, Usage

_OVER = (FinishReason.EOS, FinishReason.CONTEXT)


class LookaheadScorer:
    """Scores each step by the reward of the step that the policy comes to after it, greedily.

    What is written for that is counted, as the model "lookahead" and with the tokens of the policy; it enters no tree.
    A step that ends its trajectory is scored as it is.
    """

    def __init__(self, scorer: Scorer, engine: Engine, sampling: Sampling, num_steps: int) -> None:
        """Look ahead of `scorer`.

        Args:
            scorer: gives the rewards.
            engine: the policy model, in whose ids the trees are.
            sampling: of a step, as the search has it; its temperature is not used.
            num_steps: how many steps to look ahead, at least 1.

        Raises:
            ConfigError: fewer.
        """
        if num_steps < 1:
            raise ConfigError(f"lookahead must be at least 1 step, not {num_steps}")
        self._scorer, self.engine, self.num_steps = scorer, engine, num_steps
        self.sampling = replace(sampling, temperature=0.0, top_p=1.0)

    @property
    def needs_logprobs(self) -> bool:
        """As the scorer behind it."""
        return bool(getattr(self._scorer, "needs_logprobs", False))

    @property
    def engines(self) -> Mapping[str, Engine]:
        """Those of the scorer behind it, and the policy's as "lookahead"."""
        return {**self._scorer.engines, "lookahead": self.engine}

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[LookaheadSession]:
        """Beside the tree, in one of its own."""
        root = tree.root
        beside = SearchTree(f"{tree.id}/lookahead", root.ids, root.text, tree.question, root.seed)
        # The search's own tree may be read by the scorer's model as well, for its embeddings.
        async with self._scorer.open(tree) as above, self._scorer.open(beside) as scorer:
            try:
                yield LookaheadSession(self, beside, above, scorer)
            finally:
                await self.engine.release(beside.id)


class LookaheadSession(ContentSession):
    """A lookahead in one tree, and the tree beside it: its steps, each text once, and the rollouts below them."""

    def __init__(self, part: LookaheadScorer, beside: SearchTree, above: ScorerSession, scorer: ScorerSession) -> None:
        """Look ahead in `beside`, which `scorer` scores; `above` is its session of the search's own tree."""
        super().__init__()
        self._engine, self._sampling, self._num_steps = part.engine, part.sampling, part.num_steps
        self._tree, self._above, self._scorer = beside, above, scorer
        self._said: dict[tuple[NodeId, tuple[int, ...], str], NodeId] = {}
        # Of each node of the search's tree, by its key, its place here; and of each place the keys of those nodes.
        self._places: dict[int, NodeId] = {}
        self._users: defaultdict[NodeId, set[int]] = defaultdict(set)
        self._greedy: dict[NodeId, NodeId | None] = {}  # the greedy step below a node; None where there is none
        self._over: set[NodeId] = set()  # nodes that end a solution
        # So that the greedy step below a node is written once.
        self._writing: defaultdict[NodeId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def _ask(self, tree: SearchTree, node_id: NodeId) -> float:
        """The reward of where a node's path leads, as the scorer behind it gives it."""
        place = self._content(tree, node_id)
        rolled = [] if tree[node_id].status is NodeStatus.FINISHED else await self._roll(place)
        (reward,) = await self._scorer.score(self._tree, [rolled[-1] if rolled else place])
        await self._free([each for each in rolled if not self._users[each]])
        return reward

    def _content(self, tree: SearchTree, node_id: NodeId) -> NodeId:
        """Where a node stands in the tree beside."""
        at = ROOT
        for node in tree.path(node_id)[1:]:
            at = self._add(at, Step(at, node.ids, node.text, FinishReason.STOP, node.writer, logprobs=node.logprobs))
            self._places[node.seed] = at
            self._users[at].add(node.seed)
        return at

    def _add(self, above: NodeId, step: Step) -> NodeId:
        """The node below `above` that says what a step says."""
        said = (above, step.ids, step.text)
        if said not in self._said:
            node = self._said[said] = self._tree.add_child(above)
            self._tree.write(replace(step, node=node))
        return self._said[said]

    async def _roll(self, place: NodeId) -> list[NodeId]:
        """Write on greedily from a place; the nodes of it."""
        rolled: list[NodeId] = []
        for _ in range(self._num_steps):
            above = rolled[-1] if rolled else place
            async with self._writing[above]:
                if above not in self._greedy:
                    self._greedy[above] = await self._write(above)
            node = self._greedy[above]
            if node is None:
                break
            rolled.append(node)
        return rolled

    async def _write(self, above: NodeId) -> NodeId | None:
        """The greedy step below a node; None where there is none."""
        if above in self._over:
            return None
        tree = self._tree
        child = Child(tree.child_seed(above, len(tree.children(above))), 0)
        try:
            async with closing(self._engine.generate(tree.prefix(above), [child], self._sampling)) as steps:
                written = [step async for step in steps]
        except ContextOverflowError:
            return None
        if not written or not written[0].ids or written[0].finish is FinishReason.ABORT:
            return None
        (step,) = written
        node = self._add(above, Step(above, step.ids, step.text, step.finish, "lookahead", logprobs=step.logprobs))
        if step.finish in _OVER:
            self._over.add(node)
        return node

    def usage(self) -> Mapping[str, Usage]:
        """What was read, as the scorer behind it says, and what was written, as "lookahead"."""
        return {**self._scorer.usage(), "lookahead": self._engine.usage(self._tree.id)}

    def num_unique_tokens(self) -> int:
        """Tokens of all that was scored, rollouts included."""
        return self._scorer.num_unique_tokens()

    async def release(self, keys: Collection[int]) -> None:
        """Free what is cached for these nodes."""
        await self._above.release(keys)
        gone = []
        for key in keys:
            if (place := self._places.get(key)) is not None:
                self._users[place].discard(key)
                if not self._users[place]:
                    gone.append(place)
        await self._free(gone)

    async def _free(self, places: Collection[NodeId]) -> None:
        if keys := self._tree.keys(places):
            await self._scorer.release(keys)
            await self._engine.release(self._tree.id, keys)
