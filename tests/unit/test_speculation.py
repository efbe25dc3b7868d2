"""Writing ahead changes the clock and nothing else: every method, writer and engine, and whatever goes wrong ahead."""

from dataclasses import asdict

import pytest
from routing import PROBLEM, PROMPT
from virtual_clock import timed

from ets import Ets, EtsKv
from ets.embedders.tfidf import TfidfEmbedder
from prm import LabelTokenCodec, PrmScorer
from search.driver import Driver
from search.engines.fake import FakeEngine
from search.engines.markov import BAD, GOOD, LabelModel, story_model
from search.policies import Beam, Dvts, Mcts, ParticleFilter, Rebase
from search.writer import ModelWriter

METHODS = [Beam(), Dvts(), Rebase(), ParticleFilter(), Mcts(num_leaves=2), EtsKv(), Ets()]
ids = pytest.mark.parametrize("policy", METHODS, ids=lambda policy: policy.name)
TICK = 0.01
"""Seconds of a token."""

OWN_FIGURES = {"tokens_thrown", "kv_tokens_engine_peak", "kv_tokens_prm_peak"}
"""What says what the machine did: how much was thrown away, and what it really held."""


def make_scorer(**options):
    engine = FakeEngine(LabelModel(), **options)
    return PrmScorer(engine, LabelTokenCodec.build(engine.tokenizer, GOOD, BAD, shares_ids=True))


class Embedded:
    """The embeddings of a level without a thread, which the virtual clock would not see."""

    name = "embedding"

    async def compute(self, tree, nodes):
        return list(TfidfEmbedder().embed([node.text.strip() for node in nodes]))


def features(policy):
    return [Embedded()] if policy.features else []


def model_driver(policy, speculate, *, width=16, engine=None, scorer="prm", **options):
    engine = engine or FakeEngine(story_model(answer=0.1), seconds_per_token=TICK)
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


@ids
@pytest.mark.parametrize("scored", [True, False])
def test_the_same_tree_and_figures_in_fewer_turns(policy, scored):
    scorer = "prm" if scored else None
    (plain, slow), (ahead, fast) = (solve(model_driver(policy, share, scorer=scorer)) for share in (None, 1.0))
    assert same(ahead) == same(plain)
    assert fast < slow
    assert plain.stats.tokens_thrown == 0 and ahead.stats.tokens_thrown < 0.5 * ahead.stats.policy_tokens
