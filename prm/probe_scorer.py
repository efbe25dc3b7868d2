"""The scorer of a probe: each step's reward is read off the state that the policy itself has at the step's end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Self

from prm.checkpoint import PrmConfig
from prm.codec import ScorerParts
from prm.contents import ContentSession
from prm.probe import Probe, probe_folder, read_config, read_probe
from search.errors import ConfigError, ScoringError
from search.parts import Engineless
from search.protocols import Engine, StateSession, Writer
from search.tree import SearchTree
from search.types import NodeId, Usage


class ProbeScorer(Engineless):
    """Scores steps in the writer's own tree, on its own engine: no second model, no second cache.

    Of a step's tokens the last has gone through no model when it is written. It is computed for the probe and kept for
    the step's children, which start from it; only steps that are never continued cost that one position more. It
    counts as the policy's: what is the probe's own is zero.

    Attributes:
        scores_ahead: tells the search that steps written ahead may be scored.
    """

    scores_ahead = True

    def __init__(self, probe: Probe, writer: Writer) -> None:
        """Score what `writer` writes; its sessions give states, of the probe's model, see `ProbeConfig.check`."""
        self.probe = probe
        self._writer = writer

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
    def build(cls, parts: ScorerParts) -> Self:
        """The scorer of what a writer writes.

        Raises:
            ConfigError: nothing writes, two models do, or it is another model than the probe's.
        """
        name, writer = parts.name, parts.writer
        if writer is None:
            raise ConfigError(f"prm {name} scores what its policy writes, and nothing else; ets probe eval measures it")
        if not getattr(writer, "gives_states", False):
            raise ConfigError(
                f"prm {name} reads the states of the one model that writes; draft and target, or a writer without "
                "`gives_states`, have none"
            )
        probe = read_probe(probe_folder(name))
        (policy,) = writer.engines.values()
        probe.config.check(policy.info, policy.tokenizer.fingerprint, parts.weights)
        return cls(probe, writer)

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[ProbeSession]:
        """In the writer's own session, where it writes the tree; a lookahead's tree it has never heard of."""
        async with self._writer.open(tree) as writer:
            assert isinstance(writer, StateSession), "its writer says so"
            yield ProbeSession(self.probe, writer)


class ProbeSession(ContentSession, Engineless):
    """A probe at work on one tree; what it reads counts as the policy's, which holds it."""

    def __init__(self, probe: Probe, writer: StateSession) -> None:
        """Read the states of `writer`."""
        super().__init__()
        self._probe, self._writer = probe, writer
        self._numbers: dict[tuple[int, tuple[int, ...]], int] = {}

    def _content(self, tree: SearchTree, node_id: NodeId) -> int:
        content = -1
        for node in tree.path(node_id)[1:]:
            content = self._numbers.setdefault((content, node.ids), len(self._numbers))
        return content

    async def _ask(self, tree: SearchTree, node_id: NodeId) -> float:
        state = await self._writer.states(tree, node_id, self._probe.layers)
        try:
            return self._probe.reward(state)
        except ScoringError as error:
            path, problem = "/".join(str(node.id) for node in tree.path(node_id)), tree.id.rpartition("#")[0]
            raise ScoringError(f"problem {problem}: the policy's state at node {path} has {error}") from None


class ReaderProbe:
    """A probe over steps that others wrote: its own model reads them, and what that takes is the probe's own work.

    Attributes:
        engines: the model that reads, as "prm".
    """

    def __init__(self, scorer: ProbeScorer, reader: Writer) -> None:
        """Have `reader` read what `scorer` is asked about; it is what that scorer was built for."""
        self._probe, self._reader = scorer.probe, reader
        self.engines: Mapping[str, Engine] = dict(zip(("prm",), reader.engines.values(), strict=True))

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[ProbeSession]:
        """In a tree of the reader's own."""
        async with self._reader.open(tree) as reader:
            assert isinstance(reader, StateSession), "it was built for one"
            yield _ReaderSession(self._probe, reader)


class _ReaderSession(ProbeSession):
    def usage(self) -> Mapping[str, Usage]:
        """What reading took, as "prm"."""
        return dict(zip(("prm",), self._writer.usage().values(), strict=True))

    async def release(self, keys: Collection[int]) -> None:
        """Free what is cached for these nodes."""
        await self._writer.release(keys)
