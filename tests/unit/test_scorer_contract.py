"""The contract of every scorer: the same tests for all, alone, inside ETS at width 16, and on steps written ahead."""

import asyncio
import math

import pytest
from critics import critic
from fake_engine import FakeEngine, Fault
from markov import LabelModel, story_model
from scoring import rewards_of
from test_probe import fake_probe
from virtual_clock import Embedded

from prm import LabelTokenCodec, PrmConfig, PrmScorer
from prm.confidence import ConfidenceScorer
from prm.probe_scorer import ProbeScorer
from search.api import Search
from search.errors import EngineError, ScoringError
from search.loop.writer import ModelWriter
from search.protocols import Scorer
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Problem, Step

PROBLEM = Problem("p", "Add 3.", "4")


def labels(faults=()):
    engine = FakeEngine(LabelModel(), faults=faults)
    return PrmScorer(engine, LabelTokenCodec(engine.tokenizer, PrmConfig()))


SCORERS = {
    "label-tokens": lambda writer, faults=(): labels(faults),
    "probe": lambda writer, faults=(): ProbeScorer(fake_probe(writer.engine), writer),
    "confidence": lambda writer, faults=(): ConfidenceScorer("confidence:tail"),
    "critic": lambda writer, faults=(): critic(LabelModel(), faults=faults),
    "critic-cot": lambda writer, faults=(): critic(LabelModel(), 3, faults=faults),
}
LOADED = ["label-tokens", "critic", "critic-cot"]


def tree_of(tokenizer, *texts):
    """A tree of siblings below the question; the log-probabilities are made up."""
    tree = SearchTree("t#0", tokenizer.encode("Add 3.\n\n"), "Add 3.\n\n", "Add 3.")
    for text in texts:
        node, ids = tree.add_child(ROOT), tokenizer.encode(text)
        tree.write(Step(node, ids, text, FinishReason.STOP, "w", logprobs=tuple(-0.1 * one for one in ids)))
    return tree


def shape(result):
    return [(node.parent, node.ids, node.reward, node.status, node.reason) for node in result.tree]


def search_with(kind, **options):
    engine = FakeEngine(story_model(right=0.3, answer=0.2))
    writer = ModelWriter(engine)
    scorer = SCORERS[kind](writer)
    search = Search(
        writer, scorer, "ets", 16, features=[Embedded()], prompt="plain", system_prompt="", max_depth=5,
        until="spent", **options,
    )  # fmt: skip
    with search:
        return search.solve(PROBLEM), scorer


@pytest.mark.parametrize("kind", SCORERS)
def test_rewards_are_numbers_that_depend_on_the_path_alone(kind):
    async def score(order):
        engine = FakeEngine()
        scorer = SCORERS[kind](ModelWriter(engine))
        assert isinstance(scorer, Scorer)
        tree = tree_of(engine.tokenizer, "Add 4.\n\n", "Take 1.\n\n", "Add 4.\n\n", "Take 9.\n\n")
        nodes = [tree.children(ROOT)[number] for number in order]
        async with scorer.open(tree) as session:
            found = dict(zip(order, await session.score(tree, nodes), strict=True))
            assert list(await session.score(tree, nodes)) == [found[number] for number in order]
        return [found[number] for number in sorted(found)]

    rewards = asyncio.run(score([0, 1, 2, 3]))
    assert all(0 <= reward <= 1 for reward in rewards)
    assert rewards[0] == rewards[2] and len(set(rewards)) == 3
    assert asyncio.run(score([3, 2, 1, 0])) == rewards


@pytest.mark.parametrize("kind", SCORERS)
def test_inside_ets_every_step_is_scored_and_nothing_is_computed_twice(kind):
    result, scorer = search_with(kind)
    written = [node for node in result.tree if node.parent is not None and node.status is not NodeStatus.FAILED]
    assert len(written) > 16 and all(node.reward is not None and 0 <= node.reward <= 1 for node in written)
    stats = result.stats
    assert stats.num_failed == 0 and stats.num_finished == 16
    assert (stats.prm_unique_tokens > 0) == (kind in LOADED)
    if kind == "critic-cot":  # what a critique is cut at is read again
        assert stats.prm_unique_tokens <= stats.prm_tokens
    else:
        assert stats.prm_tokens == stats.prm_unique_tokens
    for engine in scorer.engines.values():
        assert not engine._trees, "a search that is over holds nothing"


@pytest.mark.parametrize("kind", SCORERS)
def test_writing_ahead_changes_nothing(kind):
    (plain, _), (ahead, _) = search_with(kind), search_with(kind, speculate=1.0)
    assert shape(plain) == shape(ahead)
    assert (plain.answer, plain.tally) == (ahead.answer, ahead.tally)
    assert (plain.stats.prm_tokens, plain.stats.num_prm_calls) == (ahead.stats.prm_tokens, ahead.stats.num_prm_calls)


@pytest.mark.parametrize("kind", LOADED)
def test_an_engine_that_fails_is_an_engines_error_and_one_that_says_no_number_a_scorers(kind):
    def score(fault):
        engine = FakeEngine()
        scorer = SCORERS[kind](ModelWriter(engine), [fault])
        tree = tree_of(engine.tokenizer, "Add 4.\n\n")
        return rewards_of(scorer, tree, tree.children(ROOT))

    with pytest.raises(EngineError, match="scripted error"):
        score(Fault("label_logprobs", 1))
    with pytest.raises(ScoringError, match="gave nan"):
        score(Fault("label_logprobs", 1, "nan"))


@pytest.mark.parametrize("kind", LOADED)
def test_what_is_released_is_given_back(kind):
    async def main():
        engine = FakeEngine()
        scorer = SCORERS[kind](ModelWriter(engine))
        tree = tree_of(engine.tokenizer, "Add 4.\n\n", "Take 1.\n\n")
        (judging,) = scorer.engines.values()
        async with scorer.open(tree) as session:
            await session.score(tree, tree.children(ROOT))
            (held,) = judging._trees.values()
            before = held.usage().kv_tokens_held
            await session.release(tree.keys(tree.children(ROOT)[:1]))
            after = held.usage().kv_tokens_held
            return before, after, session.num_unique_tokens(), judging

    before, after, unique, judging = asyncio.run(main())
    assert 0 < after < before <= unique and math.isfinite(before)
    assert not judging._trees
