"""Codecs: what ids a process reward model reads for a tree's nodes, and how its output becomes a reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from search.errors import ConfigError
from search.protocols import Tokenizer
from search.tree import Node, SearchTree


class PrmCodec(Protocol):
    """One family of reward models. Every family here is read at the last token of a step's segment."""

    @property
    def name(self) -> str:
        """The family, as in the run record."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Token ids whose log-probabilities `reward` takes, in this order."""

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The ids of the question; at least one."""

    def step_ids(self, node: Node) -> tuple[int, ...]:
        """The ids that a step adds; the reward is read after the last one."""

    def reward(self, label_logprobs: Sequence[float]) -> float:
        """A reward in [0, 1] from the labels' log-probabilities; NaN in, NaN out."""


@dataclass(frozen=True, slots=True)
class LabelTokenCodec:
    """Reads the probability of a good against a bad label token, as Math-Shepherd (arXiv 2312.08935) does.

    The reward of a step is p(good) / (p(good) + p(bad)) of the token that would follow the step.

    Attributes:
        tokenizer: the reward model's own.
        good, bad: the label tokens' ids.
        shares_ids: the policy's tokenizer has the same content, so the tree's ids are taken as they are.
        step_tag: text put after each step where the model expects one, e.g. " ки"; empty for none.
        name: "label-tokens".
    """

    tokenizer: Tokenizer
    good: int
    bad: int
    shares_ids: bool = False
    step_tag: str = ""
    name: str = "label-tokens"

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        good_token: str = "+",
        bad_token: str = "-",
        *,
        shares_ids: bool = False,
        step_tag: str = "",
    ) -> LabelTokenCodec:
        """Look the label tokens up.

        Raises:
            ConfigError: the tokenizer splits a label token, or both are the same.
        """
        ids = []
        for token in (good_token, bad_token):
            encoded = tokenizer.encode(token)
            if len(encoded) != 1:
                raise ConfigError(
                    f"label token {token!r} is {len(encoded)} tokens for this tokenizer; it must be exactly one"
                )
            ids.append(encoded[0])
        if ids[0] == ids[1]:
            raise ConfigError(f"label tokens {good_token!r} and {bad_token!r} are the same token for this tokenizer")
        return cls(tokenizer, ids[0], ids[1], shares_ids and not step_tag, step_tag)

    @property
    def labels(self) -> tuple[int, ...]:
        """The good label, then the bad one."""
        return (self.good, self.bad)

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The policy's prompt, by its ids where they are shared, else the bare question encoded."""
        return tree.root.ids if self.shares_ids else self.tokenizer.encode(tree.question)

    def step_ids(self, node: Node) -> tuple[int, ...]:
        """The step's own ids where they are shared, else its text and the step tag encoded."""
        if self.shares_ids:
            return node.ids
        # The separator opens the segment, so that the tag, where the model is read, ends it.
        separator = " " if node.depth == 1 else "\n"
        return self.tokenizer.encode(separator + node.text.strip() + self.step_tag)

    def reward(self, label_logprobs: Sequence[float]) -> float:
        """p(good) / (p(good) + p(bad)), computed without overflow."""
        good, bad = label_logprobs
        difference = bad - good
        return 0.0 if difference > 700 else 1.0 / (1.0 + math.exp(difference))
