"""The rolling frontier: what it selects by hand, and that nothing of a search depends on who was faster."""

import asyncio
import random
from dataclasses import replace

import pytest
from fake_engine import FakeEngine, Fault
from test_driver import LONG, PROBLEM, PROMPT, make_scorer, shape
from test_policies import grow, new_tree
from virtual_clock import timed

from ets import Ets
from ets.embedders import make_embedder
from search.answers.graders import PlainGrader
from search.api import Search
from search.config import SearchSettings
from search.decision.stopping import Decided
from search.engines.local import LocalEngine
from search.engines.virtual import Recall, VirtualEngine
from search.engines.virtual_time import VirtualClock
from search.errors import ConfigError
from search.loop.driver import Driver
from search.loop.pacing import WINDOW_TOKENS
from search.loop.writer import ModelWriter
from search.policies import Rebase, Rolling
from search.problems.data import load_problems
from search.setup.registry import make_policy, model_path
from search.types import ROOT, FinishReason, NodeStatus, Step


def select(policy, tree, width):
    selection = policy.select(tree, width, random.Random(0))
    return {one.node: one.num_children for one in selection.expansions}, dict(selection.reasons)


def test_a_leaf_is_weighed_against_what_is_being_written():
    tree = new_tree()
    tree.add_child(ROOT)
    tree.add_child(ROOT)
    good, bad, fair = grow(tree, ROOT, 0.6, 0.1, 0.5)
    counts, reasons = select(Rolling(Rebase()), tree, 3)
    # Those that are being written stand at the mean of their siblings and of the prompt's 1, 0.55: of 5 children the
    # best has 2, they have the others. Three are free, of which one stays for those that are better.
    assert counts == {good: 2}
    assert reasons == dict.fromkeys((bad, fair), "rebase: allocated 0 of 5 children")


def test_a_leaf_gets_no_more_than_is_free():
    tree = new_tree()
    for _ in range(7):
        tree.add_child(ROOT)
    (good,) = grow(tree, ROOT, 1.0)
    assert select(Rolling(Rebase()), tree, 1) == ({good: 1}, {})


def same_step(tree, parent, text, reward, num_tokens=5):
    node = tree.add_child(parent)
    tree.write(Step(node, tuple(range(num_tokens)), text, FinishReason.STOP, "m"))
    tree.set_reward(node, reward)
    tree[node].features["embedding"] = (1.0, 0.0) if text == "a" else (0.0, 1.0)
    return node


def test_a_step_that_says_what_another_said_before_leaves_it_its_width():
    tree = new_tree()
    tree.root.features["embedding"] = (0.5, 0.5)
    first = same_step(tree, ROOT, "a", 0.5)
    tree.add_child(first)
    other = same_step(tree, ROOT, "b", 0.5)
    tree.add_child(other)
    again = same_step(tree, ROOT, "a", 0.5)
    counts, reasons = select(Rolling(Ets(node_cost_weight=3.0)), tree, 1)
    assert counts == {first: 1}
    assert again in reasons


def test_a_step_whose_children_are_far_ahead_gets_no_more():
    tree = new_tree()
    tree.root.features["embedding"] = (0.5, 0.5)
    first = same_step(tree, ROOT, "a", 0.5)
    tree.add_child(first)
    again = same_step(tree, ROOT, "a", 0.5, num_tokens=50)
    counts, reasons = select(Rolling(Ets(node_cost_weight=3.0)), tree, 1)
    assert counts == {} and again in reasons


def test_a_step_that_ends_first_pays_no_more_than_those_that_are_still_written():
    """Steps of which nothing had come yet cost nothing, so whatever ended before the last was pruned for its price."""
    tree = new_tree()
    for _ in range(7):
        tree.add_child(ROOT)
    tree.root.features["embedding"] = (0.5, 0.5)
    first = same_step(tree, ROOT, "a", 1.0, num_tokens=40)
    assert select(Rolling(Ets()), tree, 1) == ({first: 1}, {})


class Jittery(FakeEngine):
    """An engine whose steps come when they like, and which tells of some how far they are, and of others never."""

    def __init__(self, chance, **options):
        super().__init__(LONG, **options)
        self.chance = random.Random(chance)

    async def generate(self, prefix, children, sampling):
        steps = [step async for step in super().generate(prefix, children, sampling)]
        self.chance.shuffle(steps)
        for step in steps:
            await asyncio.sleep(self.chance.random() * 30)
            yield step

    async def longer_than(self, tree, key, num_tokens):
        await asyncio.Event().wait()


def ets():
    return Rolling(Ets()), [make_embedder("tfidf")]


def solve(engine, method=ets, width=8, **options):
    policy, features = method()
    driver = Driver(policy, ModelWriter(engine), make_scorer(), width=width, features=features, **options)
    return timed(driver.solve(PROBLEM, PROMPT))[0]


def virtually(capacity=None, method=ets, width=8, **options):
    recall = Recall(FakeEngine(LONG))
    policy, features = method()
    try:
        with asyncio.Runner(loop_factory=VirtualClock) as runner:
            engine = VirtualEngine(runner.get_loop(), recall, capacity)
            driver = Driver(policy, ModelWriter(engine), make_scorer(), width=width, features=features, **options)
            return runner.run(driver.solve(PROBLEM, PROMPT)), runner.get_loop().time()
    finally:
        recall.close()


@pytest.mark.parametrize("options", [{}, {"stopping": lambda: Decided("weighted", "last", PlainGrader())}])
def test_a_search_does_not_depend_on_who_was_faster(options):
    known, _ = virtually(**options)
    assert any(node.status is NodeStatus.PRUNED for node in known.tree)
    assert len({node.depth for node in known.tree.leaves(NodeStatus.FINISHED)}) > 1
    assert any(one.cluster_distance is not None for one in known.selections), "as the policy says it on levels"
    others = [solve(Jittery(chance), **options) for chance in range(4)]
    others += [solve(FakeEngine(LONG), **options), virtually(capacity=3, **options)[0]]
    for other in others:
        assert shape(other.tree) == shape(known.tree)
        assert other.selections == known.selections and other.notes == known.notes


def test_no_step_waits_for_more_than_its_window():
    """The whole search takes as long as its longest path and a window for each of its steps, and no more."""
    outcome, ticks = virtually(method=lambda: (Rolling(Rebase()), []), width=16)
    tree = outcome.tree
    longest = max(node.num_path_tokens for node in tree) - tree.root.num_path_tokens
    _, level_ticks = virtually(method=lambda: (Rebase(), []), width=16)
    assert longest <= ticks < level_ticks
    assert ticks <= longest + WINDOW_TOKENS * max(node.depth for node in tree) + 32


def test_a_step_that_fails_is_kept_and_the_others_go_on():
    outcome = solve(FakeEngine(LONG, faults=[Fault("generate", 3)]))
    assert outcome.stats.num_failed and outcome.stats.num_finished
    assert not outcome.tree.leaves() and not outcome.tree.leaves(NodeStatus.PENDING)


def test_every_token_is_accounted_for():
    outcome = solve(engine := FakeEngine(LONG), width=16)
    stats, tree = outcome.stats, outcome.tree
    assert stats.policy_tokens == sum(len(node.ids) for node in tree) - len(tree.root.ids)
    assert stats.num_finished <= 16 and stats.unique_tokens >= stats.computed_tokens
    assert engine.usage(tree.id).kv_tokens_held == 0


def test_without_seeds_what_has_come_has_come():
    """A server that draws as it likes repeats nothing, so nothing waits for it."""

    class Unseeded(Jittery):
        @property
        def info(self):
            return replace(super().info, seeds="none")

    outcome = solve(Unseeded(1))
    assert outcome.stats.num_finished >= 1 and not outcome.tree.leaves(NodeStatus.PENDING)


def test_the_setting_makes_it_and_refuses_methods_without_a_frontier():
    policy = make_policy(SearchSettings(method="ets-kv", frontier="rolling"), "last")
    assert policy.name == "ets-kv-rolling" == SearchSettings(method="ets-kv", frontier="rolling").method_name
    with pytest.raises(
        ConfigError, match="frontier rolling: method beam has none; those that have: rebase, ets, ets-kv"
    ):
        make_policy(SearchSettings(method="beam", frontier="rolling"), "last")


def test_the_local_engine_tells_how_far_its_steps_are_and_writes_the_same_tree():
    """Two problems side by side in real time, and one of them in virtual time, on the mini family."""
    settings = {"width": 4, "frontier": "rolling", "until": "spent"}
    problems = load_problems("mini:dev", 2)
    told = []

    class Told(LocalEngine):
        async def longer_than(self, tree, key, num_tokens):
            await super().longer_than(tree, key, num_tokens)
            told.append(num_tokens)

    search = Search(**settings)
    policy, prm = (model.load(model_path(f"mini:{name}")) for model, name in ((Told, "target"), (LocalEngine, "prm")))
    search.use(policy, prm)
    real = {one.problem.id: one for one in search.solve_many(problems)}
    assert told and all(one.method == "ets-rolling" for one in real.values())
    recalls = [Recall(policy), Recall(prm)]
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        virtual = Search(**settings)
        virtual.use(*(VirtualEngine(runner.get_loop(), recall) for recall in recalls))
        one = runner.run(virtual.asolve(problems[0]))
        known = real[problems[0].id].tree
        assert [(node.ids, node.status) for node in one.tree] == [(node.ids, node.status) for node in known]
    for recall in recalls:
        recall.close()
    search.close()
