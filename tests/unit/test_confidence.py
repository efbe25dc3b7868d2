"""Confidence as a reward: its numbers, where they come from, and what is said where they are missing."""

import math
from dataclasses import replace

import pytest
from fake_engine import FakeEngine
from markov import story_model
from scoring import rewards_of

from prm.confidence import CONFIDENCES, GROUP_TOKENS, ConfidenceScorer
from search.api import Search
from search.errors import ConfigError, ScoringError
from search.protocols import Scorer
from search.results.record import tree_from_record, tree_record
from search.setup.registry import make_engine, runs_on_engine
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Step

NAME = "confidence:mean-logprob"


def scored(name: str, logprobs: tuple[float, ...] | None) -> float:
    tree = SearchTree("p#0", (1,), "question")
    node = tree.add_child(ROOT)
    tree.write(Step(node, (2,) * len(logprobs or ()), "text", FinishReason.STOP, "writer", logprobs=logprobs))
    (reward,) = rewards_of(ConfidenceScorer(name), tree, [node])
    return reward


def test_the_reward_is_the_inverse_perplexity_of_the_step():
    assert scored(NAME, (math.log(0.5), math.log(0.125))) == pytest.approx(0.25)
    assert scored(NAME, (0.0,)) == 1.0
    assert scored(NAME, (-math.inf, 0.0)) == 0.0
    assert scored(NAME, (-1e9,)) == 0.0


def test_groups_are_windows_of_the_step():
    sure, unsure = (-0.1,) * 30, (-2.0,) * GROUP_TOKENS
    assert scored("confidence:lowest-group", (*sure, *unsure, *sure)) == pytest.approx(math.exp(-2.0))
    assert scored("confidence:tail", (*unsure, *sure)) == pytest.approx(math.exp(-0.1))
    for name in ("confidence:lowest-group", "confidence:tail"):
        assert scored(name, (-1.0, -3.0)) == pytest.approx(math.exp(-2.0)), "a short step is one group"


def test_a_step_without_log_probabilities_names_its_writer():
    with pytest.raises(ScoringError, match="'writer' gave no log-probabilities"):
        scored(NAME, None)


def test_names():
    assert isinstance(ConfidenceScorer(NAME), Scorer)
    assert ConfidenceScorer.read(NAME).reduce == "mean"
    with pytest.raises(ConfigError, match=r"unknown confidence 'confidence:x'; known: confidence:mean-logprob"):
        Search(prm="confidence:x")
    with pytest.raises(ConfigError, match="prm_codec 'trl' means nothing"):
        Search(prm=NAME, prm_codec="trl")
    with pytest.raises(ConfigError, match="embedder prm needs a reward model"):
        Search(prm=NAME, embedder="prm")
    settings = Search(prm=NAME).settings
    assert (settings.vote, settings.reduce, settings.search_reduce) == ("weighted", "mean", "mean")
    assert not runs_on_engine(NAME)
    with pytest.raises(ConfigError, match="no model to load"):
        make_engine("local", NAME, settings, None)


@pytest.mark.parametrize("method", ["best-of-n", "beam", "dvts", "rebase", "particle", "ets", "ets-kv"])
@pytest.mark.parametrize("name", CONFIDENCES)
def test_every_method_searches_by_it(method, name):
    # A search that stops when it is decided leaves steps behind that nobody wrote.
    with Search(FakeEngine(story_model()), f"confidence:{name}", method, 8, until="spent") as search:
        result = search.solve("How many?")
    steps = [node for node in result.tree if node.parent is not None]
    for node in steps:
        assert node.logprobs is not None
        assert len(node.logprobs) == len(node.ids)
        assert node.reward == pytest.approx(math.exp(CONFIDENCES[name](node.logprobs)))
    assert result.stats.prm_tokens == result.stats.prm_unique_tokens == 0
    assert set(result.models) == {"policy"}
    again = tree_from_record(tree_record(result.tree))
    for node, read in zip(result.tree, again, strict=True):
        assert (read.logprobs is None) == (node.logprobs is None)
        assert read.logprobs is None or read.logprobs == pytest.approx(node.logprobs, abs=5e-6)


def test_log_probabilities_are_kept_for_it_alone():
    with Search(FakeEngine(story_model()), None, "best-of-n", 2, vote="majority") as search:
        assert all(node.logprobs is None for node in search.solve("How many?").tree)


def test_an_engine_that_gives_none_is_named():
    class Silent(FakeEngine):
        async def generate(self, prefix, children, sampling):
            async for step in super().generate(prefix, children, sampling):
                yield replace(step, logprobs=None)

    with Search(Silent(story_model()), NAME, "best-of-n", 2) as search:  # noqa: SIM117
        with pytest.raises(ScoringError, match=r"prm confidence:mean-logprob: the engine of 'policy' gave no"):
            search.solve("How many?")


def test_the_mini_family_is_searched_by_it():
    with Search(prm=NAME, method="rebase", width=4) as search:
        result = search.solve("Ada has 3 apples and buys 4 more. How many apples does Ada have?")
    rewards = [node.reward for node in result.tree if node.parent is not None]
    assert all(reward is not None and 0 < reward <= 1 for reward in rewards)
    assert len(set(rewards)) > 1


@pytest.mark.parametrize("prm", [None, NAME])
@pytest.mark.parametrize("method", ["best-of-n", "beam", "rebase", "ets"])
def test_steps_that_are_less_sure_than_asked_are_given_up_and_counted(method, prm):
    given = {"method": method, "width": 8, "until": "spent", "max_depth": 6}
    measure = CONFIDENCES["mean-logprob" if prm else "lowest-group"]
    with Search(FakeEngine(story_model(answer=0.2)), prm, **given, min_confidence=0.4) as search:
        result = search.solve("How many?")
        ahead = Search(FakeEngine(story_model(answer=0.2)), prm, **given, min_confidence=0.4, speculate=1.0)
        with ahead:
            again = ahead.solve("How many?")
    given_up = [node for node in result.tree if node.reason.startswith("confidence ")]
    assert 0 < len(given_up) == result.stats.num_hopeless < len(result.tree) - 1
    for node in result.tree:
        if node.parent is not None and node.logprobs:
            sure = math.exp(measure(node.logprobs)) >= 0.4
            assert (node in given_up) == (not sure and node.status is not NodeStatus.FINISHED)
            assert node not in given_up or (node.status is NodeStatus.PRUNED and node.reward is None)
    assert [(node.ids, node.status) for node in again.tree] == [(node.ids, node.status) for node in result.tree]
    assert f"{given_up[0].reason}" == f"confidence {math.exp(measure(given_up[0].logprobs)):.3g}, below 0.4"
