"""Writing ahead saves turns and changes nothing else, whatever goes wrong; all engines: `test_speculation_contract`."""

import asyncio
import math
import random
from collections import Counter
from dataclasses import asdict, replace
from functools import partial

import pytest
from fake_engine import FakeEngine
from markov import LabelModel, hashed_reward, story_model
from routing import PROBLEM, PROMPT, Parts
from virtual_clock import Embedded, timed

from ets import Ets, EtsKv
from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search.errors import ConfigError, EngineError
from search.loop.driver import Driver, Limits
from search.loop.writer import ModelWriter
from search.parts import Stateless
from search.policies import Beam, BestOfN, Dvts, Mcts, ParticleFilter, Rebase
from search.support.streams import closing
from search.types import FinishReason, NodeStatus

METHODS = [Beam(), Dvts(), Rebase(), ParticleFilter(), Mcts(num_leaves=2), EtsKv(), Ets()]
TICK = 0.01
"""Seconds of a token."""

OWN_FIGURES = {"tokens_thrown", "kv_tokens_engine_peak", "kv_tokens_prm_peak"}
"""What says what the machine did: how much was thrown away, and what it really held."""


def make_scorer(**options):
    engine = FakeEngine(LabelModel(), **options)
    return PrmScorer(engine, LabelTokenCodec(engine.tokenizer, PrmConfig()))


def features(policy):
    return [Embedded()] if policy.features else []


def model_driver(policy, speculate, *, width=10, engine=None, scorer="prm", **options):
    engine = engine or FakeEngine(story_model(answer=0.15), seconds_per_token=TICK)
    scorer = make_scorer() if scorer == "prm" else scorer
    return Driver(policy, ModelWriter(engine), scorer, width=width, features=features(policy), speculate=speculate,
                  **options)  # fmt: skip


def solve(driver, problem=PROBLEM):
    return timed(driver.solve(problem, PROMPT))


def same(outcome):
    """All that a search is and cost, its seconds left out."""
    left_out = ("features", "seconds_write", "seconds_score")
    nodes = [{name: value for name, value in asdict(node).items() if name not in left_out} for node in outcome.tree]
    figures = {k: v for k, v in asdict(outcome.stats).items() if not k.startswith("seconds") and k not in OWN_FIGURES}
    models = {
        role: {k: v for k, v in asdict(cost).items() if k not in ("seconds", "ahead_tokens")}
        for role, cost in outcome.models.items()
    }
    return nodes, outcome.notes, outcome.selections, figures, models


CASES = [(policy, True) for policy in METHODS] + [(Rebase(), False), (Mcts(), False)]


@pytest.mark.parametrize(("policy", "scored"), CASES, ids=lambda part: getattr(part, "name", str(part)))
def test_the_same_tree_and_figures_in_fewer_turns(policy, scored):
    scorer = "prm" if scored else None
    (plain, slow), (ahead, fast) = (solve(model_driver(policy, share, scorer=scorer)) for share in (None, 1.0))
    assert same(ahead) == same(plain)
    assert fast < slow
    assert plain.stats.tokens_thrown == 0 and ahead.stats.tokens_thrown < 0.5 * ahead.stats.policy_tokens
    cost = ahead.models["policy"]
    assert cost.sampled_tokens == cost.kept_tokens and cost.thrown_tokens == ahead.stats.tokens_thrown


@pytest.mark.parametrize("kind", ["never", "always", "random", "rsd", "judge", "arbitrage", "oracle"])
def test_under_a_router_the_draft_writes_ahead_and_nothing_else_does(kind):
    outcomes, seconds, target_calls = [], [], []
    for share in (None, 1.0):
        parts = Parts(seconds=TICK)
        parts.draft.model = story_model(right=0.2, answer=0.1)
        driver = parts.driver(kind, policy=Rebase(), width=8, scorer=parts.scorer(), speculate=share)
        outcome, took = solve(driver)
        outcomes.append(outcome)
        seconds.append(took)
        target_calls.append(parts.target.num_calls("generate"))
    plain, ahead = outcomes
    assert same(ahead) == same(plain)
    if kind == "always":
        assert ahead.models["draft"].sampled_tokens == ahead.models["draft"].ahead_tokens == 0
    else:
        assert target_calls[0] == target_calls[1] and ahead.models["target"].ahead_tokens == 0
        assert seconds[1] < seconds[0]


class Chaos(FakeEngine):
    """Whatever is asked ahead may fail, come to nothing, or take as long as it likes; what is wanted may be late."""

    def __init__(self, luck, *arguments, **options):
        super().__init__(*arguments, **options)
        self.luck = luck
        self.wronged = Counter()

    async def _befalls(self, prefix):
        kind = self.luck.choice(["", "", "slow"] if prefix.ahead is None else ["", "", "error", "slow", "abort"])
        self.wronged[kind, prefix.ahead is not None] += 1
        if kind == "error":
            raise EngineError("chaos")
        if kind == "slow":
            await asyncio.sleep(20 * TICK * self.luck.random())
        return kind

    async def generate(self, prefix, children, sampling):
        kind = await self._befalls(prefix)
        async with closing(super().generate(prefix, children, sampling)) as made:
            async for step in made:
                yield replace(step, ids=step.ids[:1], finish=FinishReason.ABORT) if kind == "abort" else step

    async def label_logprobs(self, prefix, labels):
        if await self._befalls(prefix) == "abort":
            return (math.nan,) * len(labels)
        return await super().label_logprobs(prefix, labels)


def under_chaos(writer, policy, share, luck=None):
    """A search whose draft and reward model are in chaos, or are not, where luck is None; and its engines."""
    story, options = story_model(answer=0.15), {"seconds_per_token": TICK}
    make = FakeEngine if luck is None else partial(Chaos, luck)
    parts = Parts()
    parts.draft, parts.prm = make(story, **options), make(LabelModel())
    driver = Driver(
        policy,
        ModelWriter(parts.draft) if writer == "model" else parts.writer(writer),
        parts.scorer(),
        width=10,
        features=features(policy),
        speculate=share,
    )
    return solve(driver)[0], (parts.draft, parts.prm)


@pytest.mark.parametrize("writer", ["model", "rsd", "oracle"])
@pytest.mark.parametrize("policy", [Rebase(), Mcts(), Ets()], ids=lambda policy: policy.name)
def test_whatever_goes_wrong_ahead_and_is_late_changes_nothing_that_is_kept(policy, writer):
    plain, _ = under_chaos(writer, policy, None)
    wronged = Counter()
    for seed in range(2):
        ahead, engines = under_chaos(writer, policy, 1.0, random.Random(seed))
        wronged += sum((engine.wronged for engine in engines), Counter())
        nodes, notes, selections, figures, _ = same(ahead)
        assert (nodes, notes, selections) == same(plain)[:3]
        asked = {key: figures[key] for key in ("unique_tokens", "prm_unique_tokens", "kv_tokens_ledger_peak")}
        assert asked == {key: same(plain)[3][key] for key in asked}
    assert all(wronged[kind] for kind in (("error", True), ("slow", True), ("abort", True), ("slow", False)))


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.11, 0.2])
def test_a_search_that_is_cancelled_or_out_of_time_leaves_nothing_behind(moment):
    async def main():
        driver = model_driver(Rebase(), 1.0)
        task = asyncio.create_task(driver.solve(PROBLEM, PROMPT))
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        limited = model_driver(Rebase(), 1.0, limits=Limits(max_seconds=moment + 0.01))
        outcome = await limited.solve(PROBLEM, PROMPT)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for part in (driver.writer, driver.scorer, limited.writer, limited.scorer):
            assert not part.engine._trees and not part._open
        return outcome

    outcome, _ = timed(main())
    assert not outcome.tree.leaves() and not outcome.tree.leaves(NodeStatus.PENDING)
    assert outcome.stats.policy_tokens >= sum(len(node.ids) for node in outcome.tree if node.id)


def test_nothing_is_written_ahead_any_more_when_the_search_is_counted():
    """A count while an engine works in a thread of its own may have a token in one figure and not in the other."""

    class Counted(FakeEngine):
        """Works in a thread: it stops soon after it is told to, and surely before it has given back."""

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.running, self.when_counted = [], []

        async def generate(self, prefix, children, sampling):
            marks = [] if prefix.ahead is None else [prefix.ahead]
            self.running += marks
            try:
                async with closing(super().generate(prefix, children, sampling)) as made:
                    async for step in made:
                        yield step
            finally:
                asyncio.get_running_loop().call_later(TICK / 2, self.stopped, marks)

        def stopped(self, marks):
            for mark in marks:
                self.running.remove(mark)

        async def release(self, tree, keys=None):
            await asyncio.sleep(TICK)
            await super().release(tree, keys)

        def usage(self, tree):
            self.when_counted.append(sum(not mark.wanted for mark in self.running))
            return super().usage(tree)

    for moment in range(1, 60):
        engine = Counted(story_model(answer=0.15), seconds_per_token=TICK)
        solve(model_driver(Rebase(), 1.0, engine=engine, limits=Limits(max_seconds=moment * TICK / 3)))
        assert engine.when_counted and not any(engine.when_counted)


def test_a_method_that_refuses_parts_of_a_level_is_searched_as_without():
    class Whole(Rebase):
        """Made for whole levels: it stumbles over anything else."""

        def select(self, tree, width, rng):
            assert tree.ahead is None, "chance and state are the search's own"
            return super().select(tree, width, rng)

    (plain, _), (ahead, _) = (solve(model_driver(Whole(), share)) for share in (None, 1.0))
    assert same(ahead) == same(plain) and ahead.stats.tokens_thrown == 0


def test_a_scorer_of_ones_own_that_knows_no_forks_is_asked_for_nothing_ahead():
    class Own(Stateless):
        """Rewards by node ids, which a fork has others of."""

        async def score(self, tree, nodes):
            assert tree.ahead is None
            return tuple(hashed_reward((node,)) for node in nodes)

    (plain, slow), (ahead, fast) = (solve(model_driver(Rebase(), share, scorer=Own())) for share in (None, 1.0))
    assert same(ahead) == same(plain) and fast < slow


def test_a_writer_that_writes_nothing_ahead_is_refused_by_name():
    writer = Parts().writer("never")

    class Plain:
        """A writer of one's own."""

        engines, tokenizer, open = writer.engines, writer.tokenizer, writer.open

    with pytest.raises(ConfigError, match="speculate: Plain has no writes_ahead"):
        Driver(Rebase(), Plain(), None, width=4, speculate=0.5)


def test_methods_that_compare_nothing_have_nothing_to_write_ahead():
    driver = model_driver(BestOfN(), 1.0)
    assert not driver.speculates and model_driver(Rebase(), 0.5).speculates
    assert solve(driver)[0].stats.tokens_thrown == 0
