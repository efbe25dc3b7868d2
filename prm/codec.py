"""The seam of codecs: what ids a reward model reads for a tree's nodes, and how its output becomes a reward."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, Self

from prm.checkpoint import Checkpoint, PrmConfig
from search.errors import ConfigError, ScoringError
from search.protocols import Engine, Scorer, Tokenizer, Writer
from search.tree import Node, SearchTree

Reads = Literal["labels", "head"]
"""What a reward is made from: log-probabilities of label tokens, or the outputs of the checkpoint's reward head."""


class PrmCodec(Protocol):
    """One family of reward models. Every family here is read at the last token of a step's segment."""

    @property
    def name(self) -> str:
        """The family, as in the run record and on the command line."""

    @property
    def reads(self) -> Reads:
        """What `reward` takes."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Token ids whose log-probabilities `reward` takes, in this order; empty for a head."""

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The ids of the question; at least one."""

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The ids that a step adds to the path above it; the reward is read after the last one."""

    def reward(self, outputs: Sequence[float]) -> float:
        """A reward in [0, 1] from the labels' log-probabilities or the head's outputs; NaN in, NaN out."""


class PrmFamily(PrmCodec, ABC):
    """A codec's class: how a checkpoint of its family is recognised, and what its codec is made of.

    Attributes:
        outputs: how many outputs a reward head of the family may have; empty for label tokens.
        writes_bos: whether the family puts the start token before a text itself, whatever the tokenizer does.
        tokenizer: the reward model's own.
        config: how the checkpoint says it is read.
        start: ids of what the tokenizer puts before every text; empty for nothing.
    """

    outputs: ClassVar[tuple[int, ...]] = ()
    writes_bos: ClassVar[bool] = False

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """The codec of a checkpoint.

        Raises:
            ConfigError: the tokenizer does not have what the family reads.
        """
        self.tokenizer, self.config = tokenizer, config
        self.start = tokenizer.encode(config.bos_token) if config.bos_token else ()

    @classmethod
    @abstractmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """Why a checkpoint is of this family, in words; empty where it is not."""


class ScorerParts(NamedTuple):
    """What a scorer of a name of its own may be made of.

    Attributes:
        name: as its class's `read` accepted it.
        engine: of the checkpoint that it loads; None where it loads none.
        writer: writes the trees; None where nothing writes.
        weights: the fingerprint of the policy's files; None where they are not at hand.
        options: the settings that its entry of the catalogue names.
    """

    name: str
    engine: Engine | None
    writer: Writer | None
    weights: str | None
    options: Mapping[str, object]


class NamedScorer(Scorer, Protocol):
    """A scorer's class that is known by a name of its own, e.g. `confidence:tail`, not by a checkpoint's files."""

    @classmethod
    def read(cls, name: str) -> PrmConfig:
        """How it is read.

        Raises:
            ConfigError: there is none of this name; says which there are.
        """

    @classmethod
    def build(cls, parts: ScorerParts) -> Self:
        """The scorer.

        Raises:
            ConfigError: an engine that it needs is not there, or does not fit.
        """


class LabelCodec(PrmFamily):
    """What families share that read a good and a bad label token, each of which must be one token of its own."""

    reads: ClassVar[Reads] = "labels"

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look the labels up."""
        super().__init__(tokenizer, config)
        self._labels = label_ids(tokenizer, config.good_token, config.bad_token)

    @property
    def labels(self) -> tuple[int, int]:
        """The good label, then the bad one."""
        return self._labels

    def reward(self, outputs: Sequence[float]) -> float:
        """p(good) / (p(good) + p(bad)), computed without overflow."""
        return label_reward(outputs)


class HeadCodec(PrmFamily):
    """What families share that read a reward head."""

    reads: ClassVar[Reads] = "head"
    labels: ClassVar[tuple[int, ...]] = ()

    def reward(self, outputs: Sequence[float]) -> float:
        """The sigmoid of the head's one output, or the share of class 1 of its two.

        Raises:
            ScoringError: the head has another number of outputs.
        """
        if len(outputs) == 1:
            return two_way(0.0, outputs[0])
        if len(outputs) == 2:
            return two_way(outputs[0], outputs[1])
        raise ScoringError(f"the reward head has {len(outputs)} outputs; a step's reward is read from 1 or 2")


def one_token(tokenizer: Tokenizer, text: str, what: str) -> int:
    """The id of the one token that a text is.

    Raises:
        ConfigError: it is none or several; `what` says what it was to be.
    """
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise ConfigError(f"{what} {text!r} is {len(ids)} tokens for this tokenizer; it must be exactly one")
    return ids[0]


def label_ids(tokenizer: Tokenizer, good: str, bad: str) -> tuple[int, int]:
    """The ids of a good and a bad label.

    Raises:
        ConfigError: the tokenizer splits one of them, or both are the same to it.
    """
    ids = (one_token(tokenizer, good, "label token"), one_token(tokenizer, bad, "label token"))
    if ids[0] == ids[1]:
        raise ConfigError(f"label tokens {good!r} and {bad!r} are the same token for this tokenizer")
    return ids


def two_way(bad: float, good: float) -> float:
    """Softmax's share of `good`, computed without overflow."""
    difference = bad - good
    return 0.0 if difference > 700 else 1.0 / (1.0 + math.exp(difference))


def label_reward(logprobs: Sequence[float]) -> float:
    """p(good) / (p(good) + p(bad)) from the log-probabilities of the good label and the bad one."""
    good, bad = logprobs
    return two_way(bad, good)
