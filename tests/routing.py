"""A fake draft, target, reward model and router for tests: real engines over models with known logits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fake_engine import FakeEngine
from markov import STORY_VOCABULARY, LabelModel, MarkovModel, story_model

from arbitrage.models import ModelView
from arbitrage.reading import RouterConfig, RouterReader
from arbitrage.routers import RouterParts
from arbitrage.writer import DraftTargetWriter
from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search.catalogue import ROUTERS, load
from search.errors import ScoringError
from search.loop.driver import Driver
from search.policies import BestOfN
from search.protocols import Engine
from search.support.streams import closing
from search.types import Problem, Sampling

PROMPT = "Add 3.\n\n"
PROBLEM = Problem("p1", PROMPT, "4")


@dataclass(frozen=True)
class RatingStory:
    """A story model that also answers the judge's question, whose last character is a space."""

    story: MarkovModel
    vocabulary: tuple[str, ...] = STORY_VOCABULARY

    def logits(self, ids: Sequence[int]) -> Sequence[float]:
        if self.vocabulary[ids[-1]] != " ":
            return self.story.logits(ids)
        digits = {str(digit): (hash(tuple(ids)) >> digit) % 7 / 3 for digit in range(10)}
        return [digits.get(text, -math.inf) for text in self.vocabulary]


def other_vocabulary(model: MarkovModel) -> MarkovModel:
    """The same chain of texts under other ids, so that its tokenizer is another one."""
    shift = len(model.vocabulary) - 1
    turned = {last: row[::-1] for last, row in model.table.items()}
    return MarkovModel(model.vocabulary[::-1], {shift - last: row for last, row in turned.items()}, model.default[::-1])


def routed_head(ids: Sequence[int]) -> tuple[float, float]:
    """A router's two outputs that depend on the ids alone."""
    return (0.0, hash(tuple(ids)) % 13 / 3 - 2.0)


class StateSum:
    """A probe on the last layer's state that knows nothing: smooth, so that a last digit changes no decision."""

    layers = ()

    def reward(self, state: Sequence[float], logprobs: Sequence[float] | None) -> float:
        assert logprobs, "kept for the router that reads them"
        if any(map(math.isnan, state)):
            raise ScoringError("what is no number")
        return 1 / (1 + math.exp(-3 * sum(value * math.sin(5 * at + 1) for at, value in enumerate(state))))


class Parts:
    """Everything that a router may need: engines that count their calls, or any others of the same vocabulary."""

    def __init__(
        self, *, other_draft: bool = False, seconds: float = 0.0, engines: Sequence[Engine] | None = None
    ) -> None:
        if engines is not None:
            self.draft, self.target, self.prm, self.learned = engines
            return
        draft = story_model(right=0.2, answer=0.2)
        self.draft = FakeEngine(
            other_vocabulary(draft) if other_draft else draft, name="draft", seconds_per_token=seconds
        )
        self.target = FakeEngine(RatingStory(story_model(right=0.8, answer=0.4)), name="target")
        self.prm = FakeEngine(LabelModel(), name="prm", seconds_per_call=3 * seconds)
        self.learned = FakeEngine(name="learned", head=routed_head, seconds_per_call=3 * seconds)

    @property
    def engines(self) -> tuple[Engine, ...]:
        return (self.draft, self.target, self.prm, self.learned)

    def views(self) -> tuple[ModelView, ModelView]:
        return ModelView(self.draft, self.target.tokenizer), ModelView(self.target, self.target.tokenizer)

    def codec(self, engine: Engine) -> LabelTokenCodec:
        return LabelTokenCodec(engine.tokenizer, PrmConfig())

    def scorer(self) -> PrmScorer:
        return PrmScorer(self.prm, self.codec(self.prm))

    def judge(self, kind: str) -> PrmScorer | None:
        """The model behind a router, where it has one."""
        if ROUTERS[kind].judge != "router":
            return self.scorer() if ROUTERS[kind].scores else None
        config = RouterConfig("draft", "target", "prm", draft_tag="a", target_tag="b")
        return PrmScorer(self.learned, RouterReader(self.codec(self.learned), self.learned.tokenizer, config))

    def router(self, kind: str, threshold: float = 0.5):
        scaled = {"judge": 9 * threshold, "oracle": 0.0}.get(kind, threshold)
        return load(ROUTERS[kind].router).build(RouterParts(scaled, *self.views(), self.judge(kind), StateSum()))

    def writer(self, kind: str, threshold: float = 0.5, *, pipeline: bool = False) -> DraftTargetWriter:
        return DraftTargetWriter(*self.views(), self.router(kind, threshold), pipeline=pipeline)

    def driver(
        self, kind: str, *, threshold: float = 0.5, policy=None, width=1, pipeline=False, scorer=None, **options
    ):
        writer = self.writer(kind, threshold, pipeline=pipeline)
        return Driver(policy or BestOfN(), writer, scorer, width=width, **options)


ALONE = ("never", "random", "rsd", "judge", "arbitrage", "probe")
"""Routers that look at the draft's step alone."""


def solve(driver, problem=PROBLEM):
    """What a search of one problem comes to."""
    return asyncio.run(driver.solve(problem, PROMPT))


def shape(outcome):
    """All of a search's tree that what runs beside must not change."""
    return [(node.parent, node.ids, node.writer, node.status, node.estimate) for node in outcome.tree]


async def written(session, tree, jobs):
    """All steps that a writer makes for these jobs."""
    async with closing(session.write(tree, jobs, Sampling())) as made:
        return [step async for step in made]
