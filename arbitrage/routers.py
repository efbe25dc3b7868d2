"""Routers: who decides whether a draft's step stays or the target writes it."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import ClassVar, Literal, Protocol, Self

from arbitrage.drafts import StepScorer
from arbitrage.models import ModelSession, ModelView
from search.errors import ConfigError, ScoringError
from search.parts import Engineless, Stateless
from search.protocols import Engine, Router, RouterSession, Scorer
from search.tree import SearchTree
from search.types import Decision, Prefix, Segment, Step

Needs = frozenset[Literal["draft", "target"]]

JUDGE_QUESTION = "Rate this step from 0 to 9:"


class StateProbe(Protocol):
    """Tells from what a model computed while it wrote a step; `prm.probe.Probe` is one."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Whose state it reads; empty for the last."""

    def reward(self, state: Sequence[float], logprobs: Sequence[float] | None) -> float:
        """The probability in [0, 1] of what it was trained to tell, from the state at the step's end.

        Args:
            state: at the step's last token.
            logprobs: of the step's tokens, where its model's engine keeps them.

        Raises:
            ScoringError: that cannot be read.
        """


@dataclass(frozen=True, slots=True)
class RouterParts:
    """What a router may be made of.

    Attributes:
        threshold: of its name.
        draft, target: the models that it chooses between.
        scorer: the model that judges, for a kind that has one.
        probe: of the draft's states, for a kind that reads one.
    """

    threshold: float
    draft: ModelView
    target: ModelView
    scorer: Scorer | None = None
    probe: StateProbe | None = None


class RouterClass(Router, Protocol):
    """A router's class, as the catalogue names it."""

    @classmethod
    def build(cls, parts: RouterParts) -> Self:
        """The router.

        Raises:
            ConfigError: a model does not have what it needs.
        """


class _Fixed(Stateless):
    """What routers without a threshold have in common: they decide the same for every step."""

    needs: Needs = frozenset({"draft"})
    escalates: ClassVar[bool]

    @classmethod
    def build(cls, parts: RouterParts) -> Self:
        """Without a threshold there is nothing to choose."""
        del parts
        return cls()

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Decide without a look."""
        return Decision(self.escalates)


class _Threshold:
    """What routers with a threshold have in common."""

    kind: ClassVar[str]
    needs: Needs = frozenset({"draft"})
    threshold: float

    @property
    def name(self) -> str:
        """With its threshold."""
        return f"{self.kind}:{self.threshold:g}"


class _Session:
    """A router at work on one tree: how it decides there, and what that fills."""

    def __init__(
        self, decide: Callable[[SearchTree, Step, Step | None], Awaitable[Decision]], filled: StepScorer | Engineless
    ) -> None:
        """Decide by `decide`."""
        self._decide = decide
        self.usage, self.release = filled.usage, filled.release

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Decide."""
        assert draft is not None
        return await self._decide(tree, draft, target)


class Never(_Fixed):
    """The draft alone."""

    name = "never"
    escalates = False


class Always(_Fixed):
    """The target alone: the draft is not even asked."""

    name = "always"
    needs: Needs = frozenset()
    escalates = True


class RandomRouter(_Threshold, Stateless):
    """Escalates a share of the steps without looking at them: the control at an equal budget."""

    kind = "random"

    def __init__(self, share: float) -> None:
        """Escalate with probability `share`; each node's own seed decides."""
        self.threshold = share

    @classmethod
    def build(cls, parts: RouterParts) -> Self:
        """With the threshold as the share."""
        return cls(parts.threshold)

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Decide by the node's seed."""
        assert draft is not None
        return Decision(random.Random(f"route/{tree[draft.node].seed}").random() < self.threshold)


class ProbeRouter(_Threshold, Engineless):
    """Arbitrage's router as a probe on what the draft computed of its step, so that no other model is asked.

    It reads the draft's hidden state at the step's end and its log-probabilities of the step's tokens.

    Of a step's tokens the last has gone through no model when it is written: the draft computes it for the probe, and
    goes on from there where the step stays. What it costs counts as the draft's.
    """

    kind = "probe"
    needs_logprobs = True

    def __init__(self, draft: ModelView, probe: StateProbe, threshold: float) -> None:
        """Escalate where the estimate that the target's step is better is above `threshold`."""
        self.threshold = threshold
        self._draft, self._probe = draft, probe

    @classmethod
    def build(cls, parts: RouterParts) -> Self:
        """By the probe."""
        assert parts.probe is not None, "the catalogue says that it has one"
        return cls(parts.draft, parts.probe, parts.threshold)

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[RouterSession]:
        """In the draft's own session."""
        async with self._draft.open(tree) as drafted:
            yield _Session(partial(self._decide, drafted), self)

    async def _decide(self, drafted: ModelSession, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        """Read the draft's state and compare."""
        state = await drafted.states(tree, draft, self._probe.layers)
        try:
            estimate = self._probe.reward(state, draft.logprobs)
        except ScoringError as error:
            raise ScoringError(f"router probe: the draft's state at the end of its step has {error}") from None
        return Decision(estimate > self.threshold, estimate)


class _Scored(_Threshold, ABC):
    """What routers have in common that score steps by a model, the draft's alone or both."""

    def __init__(self, scorer: Scorer, threshold: float) -> None:
        """Judge by `scorer`."""
        self.threshold = threshold
        self.needs_logprobs = bool(getattr(scorer, "needs_logprobs", False))
        self._scorer = scorer

    @classmethod
    def build(cls, parts: RouterParts) -> Self:
        """By the model that judges."""
        assert parts.scorer is not None, "the catalogue says that it has a model"
        return cls(parts.scorer, parts.threshold)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The scorer's, as "router", if it has one."""
        return dict(zip(("router",), self._scorer.engines.values(), strict=False))

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[RouterSession]:
        """With a scorer of steps in a tree beside."""
        beside = SearchTree(f"{tree.id}/router", tree.root.ids, tree.root.text, tree.question)
        async with self._scorer.open(beside) as scorer:
            steps = StepScorer(tree.root.seed, beside, scorer)
            yield _Session(partial(self._settle, steps), steps)

    @abstractmethod
    async def _settle(self, steps: StepScorer, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        """Score what is needed, settle it, and decide."""


class _DraftScored(_Scored):
    """Decides by a score of the draft's step, read before the target is asked."""

    async def _settle(self, steps: StepScorer, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        """Score the draft's step and compare."""
        scored = await steps.score(tree, draft)
        decision = self._decide(scored.score)
        if decision.escalate:
            await steps.drop(scored)
        else:
            steps.keep(tree[draft.node].seed, scored)
        return decision

    @abstractmethod
    def _decide(self, score: float) -> Decision:
        """Whether a draft's step of this score is to be written anew."""


class RsdRouter(_DraftScored):
    """RSD (arXiv 2501.19324): the draft stays if its reward by a process reward model is at least delta."""

    kind = "rsd"

    def _decide(self, score: float) -> Decision:
        return Decision(score < self.threshold, 1.0 - score)


class LearnedRouter(_DraftScored):
    """Arbitrage (arXiv 2512.05033): the draft stays if the estimate that the target is better is at most tau."""

    kind = "arbitrage"

    def _decide(self, score: float) -> Decision:
        return Decision(score > self.threshold, score)


class Oracle(_Scored):
    """Sees both steps and takes the target's where its reward is higher by more than tau: an upper bound.

    It saves nothing, so its latency is never reported.
    """

    kind = "oracle"
    needs: Needs = frozenset({"draft", "target"})

    async def _settle(self, steps: StepScorer, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        """Score both steps; the estimate is the advantage, moved from [-1, 1] to [0, 1]."""
        assert target is not None
        ours, theirs = await steps.score(tree, draft), await steps.score(tree, target)
        advantage = theirs.score - ours.score
        taken, left = (theirs, ours) if advantage > self.threshold else (ours, theirs)
        steps.keep(tree[draft.node].seed, taken)
        await steps.drop(left)
        return Decision(advantage > self.threshold, (1.0 + advantage) / 2)


class Judge(_Threshold, Engineless):
    """The target rates the draft's step from 0 to 9, in one forward and without writing (SpecReason, arXiv 2504.07891).

    The rating is the mean of the digits under their probabilities after a question; the paper reads one digit. What
    the target computes for it is counted as the target's.
    """

    kind = "judge"

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

    @classmethod
    def build(cls, parts: RouterParts) -> Self:
        """By the target."""
        return cls(parts.target, parts.threshold)

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[RouterSession]:
        """In the target's own session."""
        async with self._target.open(tree) as judge:
            yield _Session(partial(self._decide, judge), self)

    async def _decide(self, judge: ModelSession, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        """Ask for the digits' probabilities after the draft's step and the question."""
        parent = tree[draft.node].parent
        assert parent is not None
        above = judge.prefix(tree, parent)
        # A key that no node has: the node's own is free for what the target may write there.
        key = ~tree[draft.node].seed
        ids = judge.step_ids(tree, draft) + self._question
        engine = judge.engine
        try:
            logprobs = await engine.label_logprobs(
                Prefix(above.tree, (*above.segments, Segment(key, ids))), self._digits
            )
        finally:
            await engine.release(above.tree, {key})
        rating = mean_rating(logprobs)
        return Decision(rating < self.threshold, 1.0 - rating / 9)


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
