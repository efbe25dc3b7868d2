"""Confidence as a reward: what the writer's own probabilities of its tokens say of a step; no model, no training.

The raw material is the log-probability of every written token in the writer's own distribution (temperature 1, no
nucleus). DeepConf (arXiv 2508.15260) steers by the lowest and by the last group of tokens. Differs: its groups have
2,048 tokens of a long thought and average the likeliest tokens' log-probabilities; a group here is 16 tokens of a step,
and the written token alone counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from prm.checkpoint import PrmConfig
from prm.codec import ScorerParts
from search.errors import ConfigError, ScoringError
from search.parts import Stateless
from search.tree import SearchTree
from search.types import NodeId

PREFIX = "confidence:"
"""What the name of such a reward begins with, e.g. "confidence:mean-logprob"."""

GROUP_TOKENS = 16


def mean_logprob(logprobs: Sequence[float]) -> float:
    """The mean log-probability of a step's tokens; its exponential is the inverse of the step's perplexity."""
    return math.fsum(logprobs) / len(logprobs)


def lowest_group(logprobs: Sequence[float]) -> float:
    """The least mean over consecutive tokens: where the writer was least sure."""
    last = max(0, len(logprobs) - GROUP_TOKENS)
    return min(mean_logprob(logprobs[first : first + GROUP_TOKENS]) for first in range(last + 1))


def tail(logprobs: Sequence[float]) -> float:
    """The mean over the last tokens: how sure the writer was where the step ends."""
    return mean_logprob(logprobs[-GROUP_TOKENS:])


CONFIDENCES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean-logprob": mean_logprob,
    "lowest-group": lowest_group,
    "tail": tail,
}
"""By name: from the log-probabilities of a step's tokens, at least one, to a number up to 0; the reward is its
exponential, in [0, 1]."""


class ConfidenceScorer(Stateless):
    """Scores each step by the log-probabilities that its writer kept; runs no model and holds nothing.

    Attributes:
        needs_logprobs: tells the search to have its writer keep them.
        scores_ahead: tells it that steps written ahead may be scored.
    """

    needs_logprobs = True
    scores_ahead = True

    def __init__(self, name: str) -> None:
        """Score by a confidence.

        Args:
            name: e.g. "confidence:mean-logprob".

        Raises:
            ConfigError: unknown.
        """
        self.read(name)
        self.name = name
        self._confidence = CONFIDENCES[name.removeprefix(PREFIX)]

    @classmethod
    def read(cls, name: str) -> PrmConfig:
        """How a confidence is read: there is no checkpoint to find it out from.

        Raises:
            ConfigError: unknown.
        """
        if name.removeprefix(PREFIX) not in CONFIDENCES:
            raise ConfigError(f"unknown confidence {name!r}; known: {', '.join(PREFIX + one for one in CONFIDENCES)}")
        # A judgement of each step by itself: no step's confidence says anything of the ones before.
        return PrmConfig("confidence", "it is computed from the policy's own log-probabilities", reduce="mean")

    @classmethod
    def build(cls, parts: ScorerParts) -> Self:
        """The scorer; it needs its name alone, as the numbers come with the steps."""
        return cls(parts.name)

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """Rewards in [0, 1] of these nodes' own steps, in order.

        Raises:
            ScoringError: a step came without log-probabilities.
        """
        return tuple(self.reward(tree, node) for node in nodes)

    def reward(self, tree: SearchTree, node_id: NodeId) -> float:
        """The reward of one step, as of `score`."""
        node = tree[node_id]
        if node.logprobs is None:
            raise ScoringError(
                f"prm {self.name}: the engine of {node.writer!r} gave no log-probabilities with its step; local, "
                "sglang and openai engines do, one of your own must where Sampling.logprobs is set"
            )
        # A server that leaves end tokens out gives no number for a step of nothing else.
        return math.exp(min(0.0, self._confidence(node.logprobs))) if node.logprobs else 1.0
