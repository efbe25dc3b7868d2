"""Greedy chains under every router from one recording: what draft and target write after each prefix is written once.

At temperature 0 a step depends on its prefix alone, so routers that come by the same prefix share what stands below
it. Each problem has one tree; below a node hang at most the draft's step and the target's, written, scored and judged
when a router first asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from arbitrage.collect import Verdict
from arbitrage.models import ModelView
from arbitrage.routers import Judge
from arbitrage.walks import DRAFT, TARGET
from search.answers.graders import PlainGrader
from search.driver import Limits
from search.errors import EngineError
from search.protocols import Scorer
from search.streams import closing
from search.tree import SearchTree
from search.types import ROOT, Child, FinishReason, NodeId, Problem, Prompt, Sampling, Step

_OVER = (FinishReason.EOS, FinishReason.CONTEXT)


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One step of a chain.

    Attributes:
        escalated: whether the target's step was taken.
        draft_tokens: of the draft's step.
        target_tokens: of the target's; 0 where it was not asked.
        in_vain: escalated, and the target's step was scored no better.
    """

    escalated: bool
    draft_tokens: int
    target_tokens: int
    in_vain: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """One problem under one router.

    Attributes:
        prompt_tokens: of the prompt.
        steps: from the first to the last.
        correct: whether its answer is right.
    """

    prompt_tokens: int
    steps: tuple[TracedStep, ...]
    correct: bool


@dataclass(slots=True)
class _Known:
    """What a prefix's two steps were found to be."""

    steps: dict[str, tuple[NodeId, FinishReason]] = field(default_factory=dict)
    rewards: dict[str, float] = field(default_factory=dict)
    estimate: float | None = None
    rating: float | None = None


class TracedProblem:
    """One problem's tree of greedy steps; asked by several chains, one after the other."""

    def __init__(self, traces: Traces, problem: Problem, prompt: Prompt) -> None:
        """Start at the prompt."""
        self.tree = SearchTree(f"{problem.id}#trace", prompt.ids, prompt.text, problem.text)
        self.problem, self._traces = problem, traces
        self._known: dict[NodeId, _Known] = {}

    def _at(self, node: NodeId) -> _Known:
        return self._known.setdefault(node, _Known())

    async def step(self, node: NodeId, who: str) -> tuple[NodeId, FinishReason]:
        """The node of a model's step below a node, and how it ended."""
        known = self._at(node).steps
        if who not in known:
            model = self._traces.draft if who == DRAFT else self._traces.target
            child = self.tree.add_child(node)
            prefix = model.prefix(self.tree, node)
            async with closing(
                model.generate(self.tree, prefix, [Child(self.tree[child].seed, 0)], self._traces.sampling)
            ) as made:
                async for one in made:
                    self.tree.write(Step(child, model.tree_ids(self.tree, one), one.text, one.finish, who))
                    known[who] = (child, one.finish)
            if who not in known:
                raise EngineError("the engine ended without this step", endpoint=model.engine.info.model)
        return known[who]

    async def reward(self, node: NodeId, who: str) -> float:
        """The reward of a model's step below a node."""
        known = self._at(node).rewards
        if who not in known:
            child, _ = await self.step(node, who)
            (known[who],) = await self._traces.prm.score(self.tree, [child])
        return known[who]

    async def right(self, node: NodeId, who: str) -> bool:
        """Whether a checker calls a model's step below a node right."""
        child, _ = await self.step(node, who)
        verdict = self._traces.verdict
        assert verdict is not None, "only data with a checker is asked"
        return verdict(self.problem, [one.text for one in self.tree.path(child)[1:]])

    async def estimate(self, node: NodeId) -> float:
        """The learned router's estimate for the draft's step below a node."""
        known = self._at(node)
        if known.estimate is None:
            child, _ = await self.step(node, DRAFT)
            (known.estimate,) = await self._traces.router.score(self.tree, [child])
        return known.estimate

    async def rating(self, node: NodeId) -> float:
        """The target's rating of the draft's step below a node, 0 to 9."""
        known = self._at(node)
        if known.rating is None:
            child, finish = await self.step(node, DRAFT)
            made = self.tree[child]
            decision = await self._traces.judge.route(self.tree, Step(child, made.ids, made.text, finish, DRAFT), None)
            assert decision.estimate is not None
            known.rating = 9 * (1 - decision.estimate)
        return known.rating

    async def chain(self, escalates: Callable[[TracedProblem, NodeId], Awaitable[bool]]) -> Chain:
        """Follow a rule from the prompt to the end of its chain, within the limits of a search."""
        limits, tree = self._traces.limits, self.tree
        steps: list[TracedStep] = []
        node = ROOT
        while True:
            draft, finish = await self.step(node, DRAFT)
            escalated, in_vain, target_tokens, taken = await escalates(self, node), False, 0, draft
            if escalated:
                taken, finish = await self.step(node, TARGET)
                target_tokens = len(tree[taken].ids)
                in_vain = await self.reward(node, TARGET) <= await self.reward(node, DRAFT)
            steps.append(TracedStep(escalated, len(tree[draft].ids), target_tokens, in_vain))
            node = taken
            written = tree[node].num_path_tokens - tree.root.num_path_tokens
            if finish in _OVER or tree[node].depth >= limits.max_depth or written >= limits.max_tokens:
                break
        grader = PlainGrader()
        answer = grader.extract(tree.solution_text(node))
        return Chain(len(tree.root.ids), tuple(steps), grader.correct(answer, self.problem.answer or ""))


class Traces:
    """Models for recording, shared by all problems."""

    def __init__(
        self, draft: ModelView, target: ModelView, prm: Scorer, router: Scorer, verdict: Verdict | None = None
    ) -> None:
        """Record with these; greedy, within the limits that a search has by default."""
        self.draft, self.target, self.prm, self.router, self.verdict = draft, target, prm, router, verdict
        self.judge = Judge(target, 0.0)
        self.sampling = Sampling(temperature=0.0)
        self.limits = Limits()

    async def chains(
        self,
        problems: Sequence[Problem],
        prompt: Callable[[Problem], Prompt],
        rules: Sequence[tuple[Callable[[TracedProblem, NodeId], Awaitable[bool]], int]],
        *,
        concurrency: int = 64,
        report: Callable[[int], None] = lambda done: None,
    ) -> list[list[Chain]]:
        """For each rule the chains of as many problems, from the first, as stand beside it."""
        chains: list[list[Chain | None]] = [[None] * len(problems) for _ in rules]
        todo = iter(enumerate(problems))
        num_done = 0

        async def work() -> None:
            nonlocal num_done
            for number, problem in todo:
                traced = TracedProblem(self, problem, prompt(problem))
                for place, (rule, count) in enumerate(rules):
                    if number < count:
                        chains[place][number] = await traced.chain(rule)
                for part in (self.draft, self.target, self.prm, self.router):
                    await part.release(traced.tree, None)
                num_done += 1
                report(num_done)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(problems))):
                workers.create_task(work())
        return [[chain for chain in row if chain is not None] for row in chains]
