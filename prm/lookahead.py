"""Lookahead: a step is judged by where the policy would go from it, some greedy steps further on.

As in the lookahead search of Snell et al. (arXiv 2408.03314): the deterministic rollout's end is scored in the step's
place, and with the method "beam" this is their lookahead search. Differs: it is a scorer, so any method may have it;
and steps that say the same share one rollout.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from search.errors import ConfigError, ContextOverflowError
from search.protocols import Engine, Scorer
from search.support.streams import closing
from search.tree import Node, SearchTree
from search.types import ROOT, Child, FinishReason, NodeId, NodeStatus, Sampling, Step, Usage

_OVER = (FinishReason.EOS, FinishReason.CONTEXT)


@dataclass(slots=True)
class _Beside:
    """A tree beside a search's own: its steps, each text once, and the rollouts below them.

    Attributes:
        tree: nodes by what they say.
        places: of each node of the search's tree, by its key.
        users: of each place, the keys of those nodes.
        rewards: of places that were looked ahead from.
        locks: of each place, so that it is looked ahead from once.
        greedy: the greedy step below a node; None where there is none.
        over: nodes that end a solution.
        writing: locks of nodes whose greedy step is being written.
    """

    tree: SearchTree
    places: dict[int, NodeId] = field(default_factory=dict)
    users: defaultdict[NodeId, set[int]] = field(default_factory=lambda: defaultdict(set))
    rewards: dict[NodeId, float] = field(default_factory=dict)
    locks: defaultdict[NodeId, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    greedy: dict[NodeId, NodeId | None] = field(default_factory=dict)
    over: set[NodeId] = field(default_factory=set)
    writing: defaultdict[NodeId, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _said: dict[tuple[NodeId, tuple[int, ...], str], NodeId] = field(default_factory=dict)

    def place(self, path: Sequence[Node]) -> NodeId:
        """Where the last node of a path stands here."""
        at = ROOT
        for node in path[1:]:
            at = self.add(at, Step(at, node.ids, node.text, FinishReason.STOP, node.writer, logprobs=node.logprobs))
            self.places[node.seed] = at
            self.users[at].add(node.seed)
        return at

    def add(self, above: NodeId, step: Step) -> NodeId:
        """The node below `above` that says what a step says."""
        said = (above, step.ids, step.text)
        if said not in self._said:
            node = self._said[said] = self.tree.add_child(above)
            self.tree.write(replace(step, node=node))
        return self._said[said]


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
        self._scorer, self._engine, self._num_steps = scorer, engine, num_steps
        self._sampling = replace(sampling, temperature=0.0, top_p=1.0)
        self._trees: dict[str, _Beside] = {}

    @property
    def needs_logprobs(self) -> bool:
        """As the scorer behind it."""
        return bool(getattr(self._scorer, "needs_logprobs", False))

    @property
    def engines(self) -> Mapping[str, Engine]:
        """Those of the scorer behind it, and the policy's as "lookahead"."""
        return {**self._scorer.engines, "lookahead": self._engine}

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """Rewards in [0, 1] of where each node's path leads, in order.

        Raises:
            ScoringError, EngineError: as the scorer behind it, or the policy's engine.
        """
        return tuple(await asyncio.gather(*(self._score(tree, node) for node in nodes)))

    async def _score(self, tree: SearchTree, node: NodeId) -> float:
        beside = self._beside(tree)
        place = beside.place(tree.path(node))
        async with beside.locks[place]:
            if place not in beside.rewards:
                over = tree[node].status is NodeStatus.FINISHED
                rolled = [] if over else await self._roll(beside, place)
                (beside.rewards[place],) = await self._scorer.score(beside.tree, [rolled[-1] if rolled else place])
                await self._free(beside, [each for each in rolled if not beside.users[each]])
        return beside.rewards[place]

    async def _roll(self, beside: _Beside, place: NodeId) -> list[NodeId]:
        """Write on greedily from a place; the nodes of it."""
        rolled: list[NodeId] = []
        for _ in range(self._num_steps):
            above = rolled[-1] if rolled else place
            async with beside.writing[above]:
                if above not in beside.greedy:
                    beside.greedy[above] = await self._write(beside, above)
            node = beside.greedy[above]
            if node is None:
                break
            rolled.append(node)
        return rolled

    async def _write(self, beside: _Beside, above: NodeId) -> NodeId | None:
        """The greedy step below a node; None where there is none."""
        if above in beside.over:
            return None
        tree = beside.tree
        child = Child(tree.child_seed(above, len(tree.children(above))), 0)
        try:
            async with closing(self._engine.generate(tree.prefix(above), [child], self._sampling)) as steps:
                made = [step async for step in steps]
        except ContextOverflowError:
            return None
        if not made or not made[0].ids or made[0].finish is FinishReason.ABORT:
            return None
        (step,) = made
        node = beside.add(above, Step(above, step.ids, step.text, step.finish, "lookahead", logprobs=step.logprobs))
        if step.finish in _OVER:
            beside.over.add(node)
        return node

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What was read, as the scorer behind it says, and what was written, as "lookahead"."""
        beside = self._beside(tree).tree
        return {**self._scorer.usage(beside), "lookahead": self._engine.usage(beside.id)}

    def num_unique_tokens(self, tree: SearchTree) -> int:
        """Tokens of all that was scored, rollouts included."""
        return self._scorer.num_unique_tokens(self._beside(tree).tree)

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes, or for the whole tree."""
        beside = self._beside(tree)
        await self._scorer.release(tree, nodes)
        if nodes is None:
            del self._trees[tree.id]
            await self._scorer.release(beside.tree, None)
            await self._engine.release(beside.tree.id, None)
            return
        gone = []
        for node in nodes:
            place = beside.places.get(tree[node].seed)
            if place is not None:
                beside.users[place].discard(tree[node].seed)
                if not beside.users[place]:
                    gone.append(place)
        await self._free(beside, gone)

    async def _free(self, beside: _Beside, places: Collection[NodeId]) -> None:
        if places:
            await self._scorer.release(beside.tree, places)
            await self._engine.release(beside.tree.id, beside.tree.keys(places))

    def _beside(self, tree: SearchTree) -> _Beside:
        if tree.id not in self._trees:
            root = tree.root
            beside = SearchTree(f"{tree.id}/lookahead", root.ids, root.text, tree.question, root.seed)
            self._trees[tree.id] = _Beside(beside)
        return self._trees[tree.id]
