"""How searches end over the fake engine: limits, faults, cancelling, and set-ups that are refused."""

import asyncio

import pytest
from driving import LONG, PROBLEM, PROMPT, make_driver, make_scorer, run
from fake_engine import FakeEngine, Fault
from virtual_clock import timed

from search.errors import ConfigError, PolicyError, ScoringError
from search.loop.driver import Limits
from search.parts import Stateless
from search.policies import BestOfN, Rebase
from search.types import ROOT, Expansion, NodeStatus, Sampling, Selection


def test_limits_end_trajectories_with_their_reason():
    by_depth = run(make_driver(scorer=make_scorer(), limits=Limits(max_depth=1)))
    assert {node.reason for node in by_depth.tree.leaves(NodeStatus.FINISHED)} <= {"limit of 1 steps", "end of text"}
    by_tokens = run(make_driver(scorer=make_scorer(), limits=Limits(max_tokens=6)))
    for node in by_tokens.tree.leaves(NodeStatus.FINISHED):
        assert node.num_path_tokens - len(by_tokens.tree.root.ids) <= 6
    assert any(n.reason == "limit of 6 tokens" for n in by_tokens.tree)


def test_a_step_at_its_own_token_limit_goes_on_in_the_next_step():
    outcome = run(make_driver(BestOfN(), width=2, sampling=Sampling(max_new_tokens=1), limits=Limits(max_tokens=40)))
    assert all(len(node.ids) == 1 for node in outcome.tree if node.id != ROOT)
    assert outcome.stats.depth > 3


def test_the_time_limit_stops_a_search_and_names_itself():
    driver = make_driver(engine=FakeEngine(seconds_per_token=0.05), limits=Limits(max_seconds=0.2), width=2)
    outcome, seconds = timed(driver.solve(PROBLEM, PROMPT))
    stopped = [node for node in outcome.tree if "limit of 0.2 seconds" in node.reason]
    assert stopped and seconds == pytest.approx(0.2, abs=0.05)
    assert not outcome.tree.leaves(NodeStatus.PENDING) and not outcome.tree.leaves(NodeStatus.OPEN)


@pytest.mark.parametrize("pace", ["level", "leaf"])
def test_trajectories_whose_next_steps_are_all_being_written_end_where_they_stood(pace):
    """Between two levels everything is pending: nothing was left of a search that its time limit ended there."""
    policy = {"level": Rebase(), "leaf": BestOfN()}[pace]
    engine = FakeEngine(LONG, seconds_per_token=0.05)
    driver = make_driver(policy, engine=engine, scorer=make_scorer(), limits=Limits(max_seconds=1.23), width=4)
    outcome, _ = timed(driver.solve(PROBLEM, PROMPT))
    tree, ended = outcome.tree, outcome.tree.leaves(NodeStatus.FINISHED)
    stood = [node for node in ended if tree.children(node.id)]
    assert stood and {node.reason for node in stood} == {"limit of 1.23 seconds"}
    assert all(tree[child].status is NodeStatus.PRUNED for node in stood for child in tree.children(node.id))
    assert tree.num_finished == len(ended) and not any(
        tree[above.id] in stood for one in ended for above in tree.path(one.id)[:-1]
    )
    assert tree.root.status is NodeStatus.EXPANDED and outcome.lost == () and outcome.error is None


def test_the_time_limit_with_a_slow_scorer_leaves_no_unscored_vote():
    driver = make_driver(scorer=make_scorer(seconds_per_call=30), limits=Limits(max_seconds=0.2), width=2)
    outcome, _ = timed(driver.solve(PROBLEM, PROMPT))
    assert not outcome.tree.leaves(NodeStatus.FINISHED) and outcome.lost == ()
    assert all("limit of 0.2 seconds" in n.reason for n in outcome.tree if n.id != ROOT)


@pytest.mark.parametrize("reward", [2.0, -0.1, float("nan")])
def test_a_scorer_of_ones_own_is_held_to_its_range(reward):
    class Own(Stateless):
        async def score(self, tree, nodes):
            return tuple(reward for _ in nodes)

    with pytest.raises(ScoringError, match="it must be a number from 0 to 1"):
        run(make_driver(scorer=Own()))


@pytest.mark.parametrize("error", [ValueError("mine"), TimeoutError("mine")])
def test_an_error_of_a_part_comes_out_as_it_is(error):
    class Own(Stateless):
        async def score(self, tree, nodes):
            raise error

    with pytest.raises(type(error), match="mine"):
        run(make_driver(scorer=Own(), limits=Limits(max_seconds=60)))


def test_a_full_context_ends_a_trajectory():
    outcome = run(make_driver(engine=FakeEngine(context_tokens=9), width=4))
    assert all(node.num_path_tokens <= 9 for node in outcome.tree)
    assert any(node.reason == "context full" for node in outcome.tree)


def test_a_failed_request_fails_its_own_nodes_and_the_others_go_on():
    engine = FakeEngine(faults=[Fault("generate", 3)])
    outcome = run(make_driver(BestOfN(), engine=engine, width=4))
    failed = outcome.tree.leaves(NodeStatus.FAILED)
    assert len(failed) == outcome.stats.num_failed == 1 and outcome.lost == (failed[0].reason,)
    assert outcome.stats.num_finished == 3


def test_a_failed_score_fails_its_node():
    outcome = run(make_driver(scorer=make_scorer(faults=[Fault("label_logprobs", 2)])))
    (failed,) = outcome.tree.leaves(NodeStatus.FAILED)
    assert failed.reason.startswith("not scored") and failed.reward is None


def test_nan_from_the_reward_model_is_an_error_with_the_path():
    driver = make_driver(scorer=make_scorer(faults=[Fault("label_logprobs", 12, kind="nan")]))
    with pytest.raises(ScoringError, match=r"problem p1: the reward model gave nan for node 0/"):
        run(driver)
    assert run(driver).stats.num_finished > 0, "the driver is usable after an error"


def test_cancelling_frees_everything():
    engine, scorer = FakeEngine(seconds_per_token=0.02), make_scorer(seconds_per_call=0.02)
    driver = make_driver(engine=engine, scorer=scorer)

    async def cancel_midway():
        task = asyncio.create_task(driver.solve(PROBLEM, PROMPT))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        trees = {call.prefix.tree for call in [*engine.calls, *scorer.engine.calls]}
        return [one.usage(tree).kv_tokens_held for tree in trees for one in (engine, scorer.engine)]

    assert set(asyncio.run(cancel_midway())) == {0}


@pytest.mark.parametrize(
    "expansions",
    [
        [Expansion(ROOT, 9)],
        [Expansion(ROOT, 0)],
        [Expansion(ROOT, 2), Expansion(ROOT, 2)],
        [Expansion(99, 2)],
        [Expansion(-1, 2)],
        [],
    ],
)
def test_a_policy_that_breaks_its_contract_is_an_error(expansions):
    class Broken:
        name = "broken"
        pace = "level"
        features = frozenset()

        def select(self, tree, width, rng):
            return Selection(tuple(expansions))

    with pytest.raises(PolicyError, match="policy broken"):
        run(make_driver(Broken()))


def test_wrong_set_ups_are_refused():
    with pytest.raises(ConfigError, match="width 0: must be at least 1"):
        make_driver(width=0)

    class Hasty(Rebase):
        pace = "soon"

    with pytest.raises(ConfigError, match="policy rebase: its pace must be one of leaf, level, rolling, not 'soon'"):
        make_driver(Hasty())

    class Wanting(Rebase):
        features = frozenset({"embedding"})

    with pytest.raises(ConfigError, match="needs the feature 'embedding'"):
        make_driver(Wanting())
    with pytest.raises(ConfigError, match="context holds 4"):
        run(make_driver(engine=FakeEngine(context_tokens=4)))
