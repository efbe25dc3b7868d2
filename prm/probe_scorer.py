"""The scorer of a probe: each step's reward is read off the state that the policy itself has at the step's end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from prm.checkpoint import PrmConfig
from prm.probe import Probe, probe_folder, read_config, read_probe
from search.errors import ConfigError, ScoringError
from search.protocols import Engine, StateWriter, Writer
from search.tree import SearchTree
from search.types import NodeId, Usage


@dataclass(slots=True)
class _TreeState:
    """Rewards by what a path says; steps that say the same below the same path have one and the same reward."""

    numbers: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)
    rewards: dict[int, float] = field(default_factory=dict)
    locks: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def content(self, tree: SearchTree, node_id: NodeId) -> int:
        """The number of what the path to a node says."""
        number = -1
        for node in tree.path(node_id)[1:]:
            number = self.numbers.setdefault((number, node.ids), len(self.numbers))
        return number


class ProbeScorer:
    """Scores steps in the writer's own tree, on its own engine: no second model, no second cache.

    Of a step's tokens the last has gone through no model when it is written. It is computed for the probe and kept for
    the step's children, which start from it; only steps that are never continued cost that one position more. It
    counts as the policy's: what is the probe's own is zero.

    Attributes:
        scores_ahead: tells the search that steps written ahead may be scored.
    """

    scores_ahead = True

    def __init__(self, probe: Probe, writer: StateWriter) -> None:
        """Score what `writer` writes; its model must be the probe's, see `ProbeConfig.check`."""
        self.probe = probe
        self._writer = writer
        self._trees: defaultdict[str, _TreeState] = defaultdict(_TreeState)

    @classmethod
    def read(cls, name: str) -> PrmConfig:
        """How the probe "probe:FOLDER" is read.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        config = read_config(probe_folder(name))
        if config.target:
            raise ConfigError(
                f"prm {name}: this probe routes between {config.policy} and {config.target}; --router {name}"
            )
        return PrmConfig("probe", f"it reads layer {config.layer} of the policy's own states", reduce=config.reduce)

    @classmethod
    def build(
        cls,
        name: str,
        engine: Engine | None,
        writer: Writer | None,
        weights: str | None,
        options: Mapping[str, object],
    ) -> Self:
        """The scorer of what a writer writes.

        Raises:
            ConfigError: nothing writes, two models do, or it is another model than the probe's.
        """
        del engine, options
        if writer is None:
            raise ConfigError(f"prm {name} scores what its policy writes, and nothing else; ets probe eval measures it")
        if not isinstance(writer, StateWriter):
            raise ConfigError(
                f"prm {name} reads the states of the one model that writes; draft and target, or a writer without "
                "`states`, have none"
            )
        probe = read_probe(probe_folder(name))
        (policy,) = writer.engines.values()
        probe.config.check(policy.info, policy.tokenizer.fingerprint, weights)
        return cls(probe, writer)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """None of its own."""
        return {}

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """Rewards in [0, 1] of these nodes' own steps, in order.

        Raises:
            ScoringError: the state is of another width, or holds what is no number; names the node's path.
            EngineError: the policy's engine could not be asked, or gives no hidden states.
        """
        return tuple(await asyncio.gather(*(self._score(tree, node) for node in nodes)))

    async def _score(self, tree: SearchTree, node: NodeId) -> float:
        state = self._trees[tree.id]
        content = state.content(tree, node)
        if tree.ahead is not None and content not in state.rewards:
            return await self._ask(tree, node)
        async with state.locks[content]:
            if content not in state.rewards:
                state.rewards[content] = await self._ask(tree, node)
        return state.rewards[content]

    async def _ask(self, tree: SearchTree, node: NodeId) -> float:
        state = await self._writer.states(tree, node, self.probe.layers)
        try:
            return self.probe.reward(state)
        except ScoringError as error:
            path, problem = "/".join(str(one.id) for one in tree.path(node)), tree.id.rpartition("#")[0]
            raise ScoringError(f"problem {problem}: the policy's state at node {path} has {error}") from None

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """Nothing of its own; what it reads counts as the policy's."""
        del tree
        return {}

    def num_unique_tokens(self, tree: SearchTree) -> int:
        """No token is read by another model."""
        del tree
        return 0

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Forget a whole tree; of nodes nothing is held."""
        if nodes is None:
            self._trees.pop(tree.id, None)
            # The writer does so with its own trees; one that was made to look ahead in it has never heard of.
            await self._writer.release(tree, None)
