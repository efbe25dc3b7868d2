"""Chains under a router: what draft and target wrote, step by step, as searches and records of searches have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arbitrage.walks import TARGET
from search.results.record import NodeRecord
from search.tree import Node


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One step of a chain.

    Attributes:
        escalated: whether the target's step was taken.
        draft_tokens: of the draft's step; 0 where it was not asked.
        target_tokens: of the target's; 0 where it was not asked.
    """

    escalated: bool
    draft_tokens: int
    target_tokens: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One problem under one router.

    Attributes:
        prompt_tokens: of the prompt.
        steps: from the first to the last.
        correct: whether its answer is right.
    """

    prompt_tokens: int
    steps: tuple[ChainStep, ...]
    correct: bool

    @classmethod
    def of(cls, nodes: Sequence[Node | NodeRecord], correct: bool | None) -> Chain:
        """From the nodes of a search of width 1, the prompt's first."""
        prompt, *written = nodes
        steps = (
            ChainStep(True, node.dropped_tokens, len(node.ids))
            if node.writer == TARGET
            else ChainStep(False, len(node.ids), 0)
            for node in written
        )
        return cls(len(prompt.ids), tuple(steps), correct is True)
