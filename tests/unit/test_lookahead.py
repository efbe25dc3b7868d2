"""Lookahead: a step has the reward of where the policy goes from it, and what that costs is counted."""

import asyncio

import pytest
from fake_engine import FakeEngine
from markov import hashed_reward
from test_driver import LONG, PROBLEM, make_scorer, run

from prm.lookahead import LookaheadScorer
from search.errors import ConfigError
from search.loop.driver import Driver, Limits
from search.loop.writer import ModelWriter
from search.policies import Beam
from search.types import ROOT, Child, FinishReason, NodeStatus, Prefix, Sampling, Segment


def searched(num_steps, width=8, **options):
    engine, scorer = FakeEngine(LONG), make_scorer()
    ahead = LookaheadScorer(scorer, engine, Sampling(), num_steps)
    outcome = run(Driver(Beam(), ModelWriter(engine), ahead, width=width, **options), PROBLEM)
    return outcome, engine, scorer


def greedy_end(ids, num_steps):
    """Ids at the end of so many greedy steps after these, each asked for by itself."""

    async def write():
        engine, written = FakeEngine(LONG), tuple(ids)
        for number in range(num_steps):
            prefix, sampling = Prefix(f"t{number}", (Segment(1, written),)), Sampling(temperature=0.0)
            (step,) = [one async for one in engine.generate(prefix, [Child(2, 0)], sampling)]
            written += step.ids
            if step.finish is FinishReason.EOS:
                break
        return written

    return asyncio.run(write())


@pytest.mark.parametrize("num_steps", [1, 3])
def test_a_step_has_the_reward_of_where_it_leads(num_steps):
    outcome, _, scorer = searched(num_steps)
    tree, codec = outcome.tree, scorer.codec
    nodes = [node for node in tree if node.id != ROOT]
    assert {node.status for node in nodes} >= {NodeStatus.EXPANDED, NodeStatus.FINISHED}
    seen = []
    for node in nodes[:12] + tree.leaves(NodeStatus.FINISHED)[:2]:
        ids = [token for each in tree.path(node.id) for token in each.ids]
        end = tuple(ids) if node.status is NodeStatus.FINISHED else greedy_end(ids, num_steps)
        assert node.reward == pytest.approx(hashed_reward(end)), "read at the rollout's end"
        seen.append(end != tuple(ids))
    assert any(seen) and not all(seen) and codec.reads == "labels"


def test_what_it_writes_is_counted_and_given_back():
    outcome, engine, scorer = searched(2)
    tree, stats, cost = outcome.tree, outcome.stats, outcome.models["lookahead"]
    own = sum(len(node.ids) for node in tree) - len(tree.root.ids)
    assert outcome.models["policy"].sampled_tokens == own
    assert cost.sampled_tokens > 0 and stats.policy_tokens == own + cost.sampled_tokens
    assert stats.prm_tokens == outcome.models["prm"].computed_tokens > 0
    for name in (tree.id, f"{tree.id}/lookahead"):
        assert engine.usage(name).num_calls == 0, "closed"
    assert scorer.engine.usage(f"{tree.id}/lookahead/prm").num_calls == 0


def test_it_repeats():
    one, other = searched(2)[0].tree, searched(2)[0].tree
    assert [(node.ids, node.reward, node.status) for node in one] == [
        (node.ids, node.reward, node.status) for node in other
    ]


def test_steps_that_say_the_same_share_their_rollout():
    outcome, _, _ = searched(1, width=32, limits=Limits(max_depth=2))
    firsts = [outcome.tree[child] for child in outcome.tree.children(ROOT)]
    assert len({node.ids for node in firsts}) < len(firsts)
    assert len({(node.ids, node.reward) for node in firsts}) == len({node.ids for node in firsts})
    going_on = {node.ids for node in firsts if node.status is not NodeStatus.FINISHED}
    assert outcome.models["lookahead"].num_calls == len(going_on)


def test_no_step_ahead_is_refused():
    with pytest.raises(ConfigError, match="lookahead must be at least 1 step, not 0"):
        LookaheadScorer(make_scorer(), FakeEngine(LONG), Sampling(), 0)
