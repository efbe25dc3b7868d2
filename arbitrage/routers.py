"""Routers: who decides whether a draft's step stays or the target writes it."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Literal, NamedTuple

from arbitrage.drafts import StepScorer
from arbitrage.models import ModelView
from search.errors import ConfigError, ScoringError
from search.protocols import Engine, Scorer
from search.tree import SearchTree
from search.types import Decision, NodeId, Prefix, Segment, Step, Usage

Needs = frozenset[Literal["draft", "target"]]

KINDS: Mapping[str, str] = {
    "never": "never",
    "always": "always",
    "random": "random:P (share escalated, 0 to 1)",
    "rsd": "rsd:DELTA (least reward of a draft that stays, 0 to 1)",
    "judge": "judge:K (least rating by the target of a draft that stays, 0 to 9)",
    "arbitrage": "arbitrage:TAU (highest estimate of a draft that stays, 0 to 1)",
    "oracle": "oracle:TAU (advantage above which the target's step is taken, 0 to 1)",
}
"""Kinds of routers by name, each with how it is written."""

DEFAULTS: Mapping[str, float] = {"random": 0.5, "rsd": 0.7, "judge": 7.0, "arbitrage": 0.5, "oracle": 0.0}
"""Thresholds where none is given: those of the papers."""

JUDGE_QUESTION = "Rate this step from 0 to 9:"


class RouterSpec(NamedTuple):
    """A router as it is named: its kind and its threshold; 0 for a kind without one."""

    kind: str
    threshold: float

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.kind}:{self.threshold:g}" if self.kind in DEFAULTS else self.kind


def parse_router(text: str) -> RouterSpec:
    """A router's name taken apart.

    Raises:
        ConfigError: unknown kind, or a threshold out of range; says what is accepted.
    """
    kind, colon, value = text.partition(":")
    accepted = ", ".join(KINDS.values())
    if kind not in KINDS:
        raise ConfigError(f"unknown router {text!r}; known: {accepted}")
    if kind not in DEFAULTS:
        if colon:
            raise ConfigError(f"router {text!r}: {kind} takes no threshold")
        return RouterSpec(kind, 0.0)
    try:
        threshold = float(value) if colon else DEFAULTS[kind]
    except ValueError:
        raise ConfigError(f"router {text!r}: the threshold must be a number; accepted: {KINDS[kind]}") from None
    if not 0 <= threshold <= (9 if kind == "judge" else 1):
        raise ConfigError(f"router {text!r}: the threshold {threshold:g} is out of range; accepted: {KINDS[kind]}")
    return RouterSpec(kind, threshold)


class _Plain:
    """What routers without a model of their own have in common."""

    needs: Needs = frozenset({"draft"})

    @property
    def engines(self) -> Mapping[str, Engine]:
        """None of its own."""
        return {}

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """Nothing."""
        return {}

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Holds nothing."""


class Never(_Plain):
    """The draft alone."""

    name = "never"

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Never escalate."""
        return Decision(False)


class Always(_Plain):
    """The target alone: the draft is not even asked."""

    name = "always"
    needs: Needs = frozenset()

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Always escalate."""
        return Decision(True)


class RandomRouter(_Plain):
    """Escalates a share of the steps without looking at them: the control at an equal budget."""

    def __init__(self, share: float) -> None:
        """Escalate with probability `share`; each node's own seed decides."""
        self.share = share

    @property
    def name(self) -> str:
        """With its share."""
        return f"random:{self.share:g}"

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Decide by the node's seed."""
        assert draft is not None
        return Decision(random.Random(f"route/{tree[draft.node].seed}").random() < self.share)


class ScoreRouter:
    """Decides by a score of the draft's step, read before the target is asked.

    RSD (arXiv 2501.19324) with a process reward model: the draft stays if its reward is at least delta. Arbitrage
    (arXiv 2512.05033) with a learned router: the draft stays if the estimate that the target is better is at most tau.
    """

    needs: Needs = frozenset({"draft"})

    def __init__(self, kind: Literal["rsd", "arbitrage"], scorer: Scorer, threshold: float) -> None:
        """Route by `scorer`: rewards for "rsd", estimates for "arbitrage"."""
        self.kind, self.threshold = kind, threshold
        self._steps = StepScorer(scorer)

    @property
    def name(self) -> str:
        """With its threshold."""
        return f"{self.kind}:{self.threshold:g}"

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The scorer's, as "router"."""
        return self._steps.engines

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Score the draft's step and compare."""
        assert draft is not None
        scored = await self._steps.score(tree, draft)
        if self.kind == "rsd":
            decision = Decision(scored.score < self.threshold, 1.0 - scored.score)
        else:
            decision = Decision(scored.score > self.threshold, scored.score)
        if decision.escalate:
            await self._steps.drop(tree, scored)
        else:
            self._steps.keep(tree, draft.node, scored)
        return decision

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What the scorer's engine did for a tree, as "router"."""
        return self._steps.usage(tree)

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes and all below, or for the whole tree (None)."""
        await self._steps.release(tree, nodes)


class Oracle:
    """Sees both steps and takes the target's where its reward is higher by more than tau: an upper bound.

    It saves nothing, so its latency is never reported.
    """

    needs: Needs = frozenset({"draft", "target"})

    def __init__(self, scorer: Scorer, threshold: float) -> None:
        """Compare by `scorer`'s rewards."""
        self.threshold = threshold
        self._steps = StepScorer(scorer)

    @property
    def name(self) -> str:
        """With its threshold."""
        return f"oracle:{self.threshold:g}"

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The scorer's, as "router"."""
        return self._steps.engines

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Score both steps; the estimate is the advantage, moved from [-1, 1] to [0, 1]."""
        assert draft is not None and target is not None
        ours, theirs = await self._steps.score(tree, draft), await self._steps.score(tree, target)
        advantage = theirs.score - ours.score
        taken, left = (theirs, ours) if advantage > self.threshold else (ours, theirs)
        self._steps.keep(tree, draft.node, taken)
        await self._steps.drop(tree, left)
        return Decision(advantage > self.threshold, (1.0 + advantage) / 2)

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What the scorer's engine did for a tree, as "router"."""
        return self._steps.usage(tree)

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes and all below, or for the whole tree (None)."""
        await self._steps.release(tree, nodes)


class Judge(_Plain):
    """The target rates the draft's step from 0 to 9, in one forward and without writing (SpecReason, arXiv 2504.07891).

    The rating is the mean of the digits under their probabilities after a question; the paper reads one digit. What
    the target computes for it is counted as the target's.
    """

    def __init__(self, target: ModelView, threshold: float) -> None:
        """Keep drafts rated at least `threshold`.

        Raises:
            ConfigError: the target's tokenizer has no single token for a digit.
        """
        self.threshold = threshold
        self._target = target
        # Whether the space before a digit is a token of its own is the tokenizer's affair.
        ratings = [target.tokenizer.encode(f"{JUDGE_QUESTION} {digit}") for digit in range(10)]
        same = (column[0] for column in takewhile(lambda column: len({*column}) == 1, zip(*ratings, strict=False)))
        self._question = tuple(same)
        self._digits = tuple(ids[-1] for ids in ratings)
        if {len(ids) for ids in ratings} != {len(self._question) + 1}:
            raise ConfigError("router judge: the target's tokenizer has no token of its own for each digit")

    @property
    def name(self) -> str:
        """With its threshold."""
        return f"judge:{self.threshold:g}"

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Ask for the digits' probabilities after the draft's step and the question."""
        assert draft is not None
        rating = await self._rate(tree, draft)
        return Decision(rating < self.threshold, 1.0 - rating / 9)

    async def _rate(self, tree: SearchTree, draft: Step) -> float:
        parent = tree[draft.node].parent
        assert parent is not None
        above = self._target.prefix(tree, parent)
        # A key that no node has: the node's own is free for what the target may write there.
        key = ~tree[draft.node].seed
        ids = self._target.step_ids(tree, draft) + self._question
        engine = self._target.engine
        try:
            logprobs = await engine.label_logprobs(
                Prefix(above.tree, (*above.segments, Segment(key, ids))), self._digits
            )
        finally:
            await engine.release(above.tree, {key})
        return mean_rating(logprobs)


def mean_rating(logprobs: Sequence[float]) -> float:
    """The mean digit from the digits' log-probabilities, 0 first.

    Raises:
        ScoringError: there is no number among them, or no digit is possible.
    """
    if any(map(math.isnan, logprobs)) or max(logprobs) == -math.inf:
        raise ScoringError("router judge: the target gave no probability to any digit")
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return sum(digit * weight for digit, weight in enumerate(weights)) / sum(weights)
