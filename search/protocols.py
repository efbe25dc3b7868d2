"""The seams: what a policy, an engine, a writer, a scorer and a router must do, and nothing of how."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, TypeVar, runtime_checkable

from search.tree import Node, SearchTree
from search.types import (
    Child,
    Decision,
    EngineInfo,
    Generation,
    NodeId,
    Pace,
    Prefix,
    Sampling,
    Selection,
    Step,
    StepFailure,
    Usage,
    WriteJob,
)


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back, as one model sees it."""

    @property
    def fingerprint(self) -> str:
        """A hash of the tokenizer's content: equal for two models that give every text the same ids."""

    @property
    def start(self) -> str:
        """The special token that this model's texts begin with, as text; empty for none."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a text."""

    @property
    def controls(self) -> frozenset[str]:
        """Texts of control tokens that `encode` recognises and `decode` leaves out; two characters or more each."""

    @property
    def tags(self) -> frozenset[str]:
        """The same of those that `decode` shows, e.g. `<think>`."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`; nothing is added, special tokens written out in `text` are recognised."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object] = {}) -> str | None:
        """The prompt for a conversation, ready for the assistant's turn; None without a chat template.

        Args:
            messages: the turns, each with a role and a content.
            options: variables of the template's own, e.g. `enable_thinking`.

        Raises:
            ConfigError: the template takes no such conversation, e.g. none with a system message, or knows no such
                option.
        """


@runtime_checkable
class Engine(Protocol):
    """A model that continues prefixes and reads label probabilities, keeping its KV cache between calls.

    A key names its ids within its tree: a segment that comes with other ids than the engine holds under that key
    replaces them and drops what hung below. Segments the engine does not hold are computed, in one pass, once,
    however many requests wait for them.
    """

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""

    def generate(self, prefix: Prefix, children: Sequence[Child], sampling: Sampling) -> AsyncIterator[Generation]:
        """Write one step for each child after `prefix`; steps come in the order in which they end.

        Closing the iterator, or cancelling the task that reads it, stops the rows still being written. What a
        finished step computed stays cached under its child's key until released.

        Raises:
            ContextOverflowError: `prefix` leaves no room in the context.
            EngineError: the engine cannot do it; `retryable` says whether later may be better.
        """

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """Natural-log probabilities of each id in `labels` as the token after `prefix`.

        The full vocabulary is the normaliser. The prefix stays cached under its segments' keys.

        Raises:
            ContextOverflowError: `prefix` is longer than the context.
            EngineError: as for `generate`.
        """

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """Numbers at the last token of `prefix`; what is cached and computed is as for `label_logprobs`.

        Args:
            prefix: read at its last token.
            what: "head": the raw outputs of the checkpoint's own reward head (1 for a value or a
                sequence-classification head, 2 for a token classification); "hidden": hidden states.
            layers: whose hidden states, counted from 1, one after the other; the last one's is after the final norm,
                and stands for an empty `layers`.

        Raises:
            ContextOverflowError: `prefix` is longer than the context.
            EngineError: the engine or its checkpoint has no such thing, or as for `generate`.
        """

    def usage(self, tree: str) -> Usage:
        """What was done for a tree since it was first seen or last closed; zeros for an unknown tree."""

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Give back the cache of these keys and all below them, or close the whole tree (None).

        Unknown keys and trees are ignored. Engines that cannot free memory do nothing. Closing also forgets the
        tree's usage.
        """

    async def aclose(self) -> None:
        """Stop, and free everything. Calls in flight end with `EngineError`."""


@runtime_checkable
class CachingEngine(Engine, Protocol):
    """An engine whose cache outlives its trees, so that a run may find prompts there that another one computed."""

    async def flush_cache(self) -> None:
        """Empty that cache.

        Raises:
            EngineError: it cannot be emptied now.
        """


@runtime_checkable
class PacedEngine(Engine, Protocol):
    """An engine that can tell how far a step is while it is being written."""

    async def longer_than(self, tree: str, key: int, num_tokens: int) -> None:
        """Return when the step being written under `key` has more than `num_tokens` tokens.

        Never returns where it gets not so long: who waits hears of its end elsewhere, and cancels.
        """


@runtime_checkable
class Policy(Protocol):
    """A search method: spends a budget on the leaves of a tree. Pure: it changes nothing and keeps no state.

    It says of the open leaves which to expand, which to prune and which to let wait, and is asked again as its `pace`
    says. A method that works level by level lets none wait: all its leaves then have one depth.
    """

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def pace(self) -> Pace:
        """When it is asked."""

    @property
    def features(self) -> frozenset[str]:
        """Names of the node features that must stand in `Node.features` of every open leaf before `select`."""

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Choose which open leaves get how many children.

        Args:
            tree: its open leaves are the candidates; at the start this is the root alone. At pace "leaf" some may not
                be scored yet, and others are being written.
            width: children to hand out, at least 1: the search's width less the trajectories that have ended and the
                steps that are being written.
            rng: the only source of chance, seeded from (run seed, problem id, number of the selection). At pace "leaf"
                that number depends on who was faster, so what is drawn from it does too.

        Returns:
            Expansions of open leaves, each at most once and with at least one child, `width` children at most
            altogether; at least one where nothing is being written. All other open leaves that are not said to wait
            are pruned. At pace "rolling" nodes may get more children below which some are being written.
        """


class Session(Protocol):
    """A writer, a scorer or a router at work on one tree.

    What it holds for the tree it holds itself, and leaving the `async with` in which it was opened gives that back.
    """

    def usage(self) -> Mapping[str, Usage]:
        """What the part's engines did for the tree so far, by role."""

    async def release(self, keys: Collection[int], /) -> None:
        """Free what is cached for the nodes of these keys (`SearchTree.keys`) and all below; ignores unknown ones."""


S = TypeVar("S", bound=Session, covariant=True)


class Part(Protocol[S]):
    """A writer, a scorer or a router: it works on any number of trees side by side."""

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines that are its own, by role: "policy", or "draft" and "target"; "prm"; "router"."""

    def open(self, tree: SearchTree) -> AbstractAsyncContextManager[S]:
        """Begin with a tree, and forks of it (`SearchTree.fork`)."""


class WriterSession(Session, Protocol):
    """A writer at work on one tree."""

    def write(
        self, tree: SearchTree, jobs: Sequence[WriteJob], sampling: Sampling
    ) -> AsyncIterator[Step | StepFailure]:
        """Write every child of every job; results come as they are done, one for each child."""


@runtime_checkable
class PacedSession(WriterSession, Protocol):
    """One that can tell how far its steps are."""

    async def longer_than(self, key: int, num_tokens: int) -> None:
        """As `PacedEngine.longer_than`, of a node that is being written; never returns where it cannot be known."""


@runtime_checkable
class AheadSession(WriterSession, Protocol):
    """One that can write steps before it is known whether they are wanted."""

    async def write_ahead(self, tree: SearchTree, job: WriteJob, sampling: Sampling) -> Step | None:
        """Do ahead what `write` will do for the only child of a job, and keep it until then.

        Args:
            tree: a fork of the search's tree, see `SearchTree.fork`.
            job: with one child, pending in the fork.
            sampling: as for `write`.

        Returns:
            The step, if it is whole and will be just this; None if it failed, or more is to be done for it. What is
            kept is given up by `release`.

        Raises:
            EngineError: it could not be written.
        """


@runtime_checkable
class StateSession(WriterSession, Protocol):
    """One that can read the hidden states of its model where its steps end."""

    async def states(self, tree: SearchTree, node: NodeId, layers: Sequence[int]) -> tuple[float, ...]:
        """As `Engine.read` of "hidden" at the end of a written node, in the writer's own cache.

        Raises:
            EngineError: its engine gives none, or could not be asked.
        """


@runtime_checkable
class Writer(Part[WriterSession], Protocol):
    """Writes the steps of pending nodes: one model, or a draft and a target under a router.

    One whose sessions are `AheadSession`s has an attribute `writes_ahead` that is true; `gives_states` says the same of
    `StateSession`s.
    """

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose ids stand in the tree."""


class RouterSession(Session, Protocol):
    """A router at work on one tree."""

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Decide for the pending node that both steps would fill.

        Args:
            tree: where the node stands, pending; it is not changed.
            draft: the draft's step; None if not needed.
            target: the target's step for the same node; None if not needed.

        Raises:
            ScoringError, EngineError: the model behind it gave no estimate.
        """


@runtime_checkable
class Router(Part[RouterSession], Protocol):
    """Decides for each step whether the draft's stays or the target writes it.

    One that reads the tokens' log-probabilities (`Step.logprobs`) has an attribute `needs_logprobs` that is true.
    """

    @property
    def name(self) -> str:
        """As on the command line, e.g. "rsd:0.7"."""

    @property
    def needs(self) -> frozenset[Literal["draft", "target"]]:
        """Whose steps must be written before it can decide: the draft's, as a rule; both for an oracle."""


class ScorerSession(Session, Protocol):
    """A process reward model at work on one tree."""

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """Rewards in [0, 1] of the newest step of each node's path.

        Raises:
            ScoringError: something else than a number in [0, 1] came out; names the node's path.
            EngineError: the model could not be asked.
        """

    def num_unique_tokens(self) -> int:
        """Tokens of the tree as this model sees it, each shared token once: the least it could compute."""


@runtime_checkable
class Scorer(Part[ScorerSession], Protocol):
    """A process reward model over trees.

    One that reads the tokens' log-probabilities (`Node.logprobs`) has an attribute `needs_logprobs` that is true. One
    that also scores nodes of forks (`SearchTree.fork`), which it tells apart by their paths as their ids are not the
    tree's, has an attribute `scores_ahead` that is true.
    """


@runtime_checkable
class FeatureProvider(Protocol):
    """Computes a node feature that a policy declared, e.g. embeddings of the newest steps.

    One whose values depend on what else is in their call has an attribute `batch_free` that is false.
    """

    @property
    def name(self) -> str:
        """The feature's key in `Node.features`."""

    async def compute(self, tree: SearchTree, nodes: Sequence[Node]) -> Sequence[object]:
        """One value for each node, in order; batched, and off the event loop."""
