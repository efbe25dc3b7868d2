"""The driver over the fake engine: every method, costs and seeds, in whatever order its steps come."""

import asyncio
import itertools
import random

import pytest
from driving import LONG, PROBLEM, PROMPT, make_driver, make_scorer, run
from fake_engine import FakeEngine, Fault
from virtual_clock import timed

from search.loop.driver import Limits
from search.policies import Beam, BestOfN, Dvts, Mcts, ParticleFilter, Rebase
from search.tree import SearchTree, derive_seed
from search.types import ROOT, Expansion, NodeStatus, Problem, Selection

POLICIES = [BestOfN(), Beam(), Dvts(), Rebase(), ParticleFilter()]


def shape(tree: SearchTree):
    return [(node.parent, node.ids, node.reward, node.status, node.reason) for node in tree]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("width", [1, 4, 16])
def test_every_method_ends_with_all_nodes_accounted_for(policy, width):
    outcome = run(make_driver(policy, scorer=make_scorer(), width=width))
    tree, stats = outcome.tree, outcome.stats
    assert {node.status for node in tree} <= {NodeStatus.EXPANDED, NodeStatus.FINISHED, NodeStatus.PRUNED}
    assert all(node.reason for node in tree if node.status is not NodeStatus.EXPANDED)
    assert 1 <= stats.num_finished <= width
    assert len(tree.children(ROOT)) == width
    assert all(node.reward is not None for node in tree if node.id != ROOT)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_each_unique_token_is_computed_once_and_nothing_stays_held(policy):
    engine, scorer = FakeEngine(), make_scorer()
    outcome = run(make_driver(policy, engine=engine, scorer=scorer, width=16))
    stats, tree = outcome.stats, outcome.tree
    assert stats.unique_tokens == sum(len(node.ids) for node in tree)
    leaves = sum(1 for node in tree if not tree.children(node.id))
    assert stats.computed_tokens == stats.unique_tokens - leaves
    assert stats.prm_tokens == stats.prm_unique_tokens <= stats.unique_tokens
    # Where no leaf waits, steps that are still being written are in the engine and not yet in the tree.
    if policy.pace == "level":
        assert stats.kv_tokens_engine_peak == stats.kv_tokens_ledger_peak > 0
    assert stats.kv_tokens_engine_peak >= stats.kv_tokens_ledger_peak > 0
    assert engine.usage(tree.id).kv_tokens_held == 0
    assert scorer.engine.usage(f"{tree.id}/prm").kv_tokens_held == 0


def test_the_remaining_width_shrinks_by_one_for_each_finished_trajectory():
    widths = []

    class Spy(Rebase):
        def select(self, tree, width, rng):
            widths.append((width, tree.num_finished))
            return super().select(tree, width, rng)

    run(make_driver(Spy(), scorer=make_scorer(), width=16))
    assert len(widths) > 2
    assert all(width + finished == 16 for width, finished in widths)


def test_kv_figures_of_a_known_tree():
    """Two kept leaves below one parent: the shared tokens count once; before pruning all candidates count."""
    outcome = run(make_driver(Beam(num_keep=1), scorer=make_scorer(), width=4, limits=Limits(max_depth=2)))
    tree, stats = outcome.tree, outcome.stats
    (kept,) = outcome.selections[0].kept
    assert stats.kv_tokens_mean == stats.kv_tokens_peak == len(tree.root.ids) + len(tree[kept].ids)
    candidates = [n for n in tree.children(ROOT) if tree[n].status is not NodeStatus.FINISHED]
    assert stats.kv_tokens_code == len(tree.root.ids) + sum(len(tree[n].ids) for n in candidates)


def test_results_do_not_depend_on_what_runs_beside():
    alone = run(make_driver(scorer=make_scorer(), width=16))

    async def together():
        driver = make_driver(scorer=make_scorer(seconds_per_call=0.001), width=16)
        others = [Problem(f"q{i}", PROMPT) for i in range(5)]
        outcomes = await asyncio.gather(*(driver.solve(problem, PROMPT) for problem in [*others, PROBLEM]))
        return outcomes[-1]

    assert shape(asyncio.run(together()).tree) == shape(alone.tree)


def test_another_seed_gives_another_search_and_the_same_seed_the_same():
    first, again, other = (run(make_driver(scorer=make_scorer(), seed=seed)) for seed in (0, 0, 1))
    assert shape(first.tree) == shape(again.tree) != shape(other.tree)


def test_seeds_differ_for_every_node_problem_and_run():
    drawn = [derive_seed(*parts) for parts in itertools.product((0, 1), ("p", "q"), range(50))]
    assert len(set(drawn)) == len(drawn) and all(0 <= seed < 2**64 for seed in drawn)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_seed_follows_from_the_run_the_problem_and_the_path_alone(policy):
    """Not from what was created before: the same path in another method's tree, at another width, is the same step."""
    known = {}
    for method, width in ((policy, 8), (policy, 3), (Rebase(), 16)):
        tree = run(make_driver(method, scorer=make_scorer(), width=width)).tree
        for node in tree:
            path = tuple(
                tree.children(above.id).index(below.id) for above, below in itertools.pairwise(tree.path(node.id))
            )
            assert known.setdefault(path, (node.seed, node.ids)) == (node.seed, node.ids)
    assert len({seed for seed, _ in known.values()}) == len(known)


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("width", [1, 8])
def test_flat_sampling_takes_as_many_token_steps_as_its_longest_solution(width, scored):
    """No chain waits for another's step, nor for its own score: not one token step is lost."""

    def solved(policy):
        scorer = make_scorer(seconds_per_call=0.1) if scored else None
        engine = FakeEngine(LONG, seconds_per_token=1)
        return timed(make_driver(policy, engine=engine, scorer=scorer, width=width).solve(PROBLEM, PROMPT))

    class Patient(BestOfN):
        """The same chains, but each waits for the others of its level."""

        pace = "level"

    outcome, seconds = solved(BestOfN())
    tree = outcome.tree
    lengths = [leaf.num_path_tokens - tree.root.num_path_tokens for leaf in tree.leaves(NodeStatus.FINISHED)]
    assert max(node.depth for node in tree) > 2 and len(lengths) == width
    assert seconds == pytest.approx(max(lengths) + (0.1 if scored else 0))
    levelled, waited = solved(Patient())
    moved = levelled.tree.sort()  # the same chains, numbered level by level until here
    others = [
        tuple(tuple(sorted(moved[node] for node in nodes)) for nodes in (one.candidates, one.kept))
        for one in levelled.selections
    ]
    assert shape(levelled.tree) == shape(tree)
    assert others == [(one.candidates, one.kept) for one in outcome.selections]
    assert waited > seconds or width == 1


@pytest.mark.parametrize("slow", range(3))
def test_a_flat_search_is_the_same_in_whatever_order_its_steps_come(slow):
    """Ids, too: an engine that answers some requests late gives the same tree as one that is quick."""

    class Uneven(FakeEngine):
        """Answers some requests late."""

        async def generate(self, prefix, children, sampling):
            await asyncio.sleep(children[0].seed % (5 + slow))
            async for made in super().generate(prefix, children, sampling):
                yield made

    plain, uneven = (
        timed(make_driver(BestOfN(), engine=kind(LONG), scorer=make_scorer()).solve(PROBLEM, PROMPT))[0]
        for kind in (FakeEngine, Uneven)
    )
    assert shape(uneven.tree) == shape(plain.tree) and uneven.selections == plain.selections
    figures = ("policy_tokens", "kv_tokens_mean", "kv_tokens_peak", "kv_tokens_code", "unique_tokens", "depth")
    assert all(getattr(uneven.stats, name) == getattr(plain.stats, name) for name in figures)


def test_a_step_that_cannot_be_scored_ends_a_chain_that_went_on_meanwhile():
    scorer = make_scorer(faults=[Fault("label_logprobs", 1)], seconds_per_call=30)
    driver = make_driver(BestOfN(), engine=FakeEngine(LONG, seconds_per_token=1), scorer=scorer, width=1)
    outcome, _ = timed(driver.solve(PROBLEM, PROMPT))
    first, *below = outcome.tree.nodes[1:]
    assert first.reason.startswith("not scored: ")
    assert below and {node.reason for node in below} == {"a step above it failed"}
    assert {node.status for node in outcome.tree.nodes[1:]} == {NodeStatus.FAILED}
    assert outcome.stats.num_finished == 0


@pytest.mark.parametrize("num_leaves", [1, 3])
def test_a_search_without_levels_runs_like_any_other(num_leaves):
    def solved(**options):
        engine, scorer = FakeEngine(LONG), make_scorer(**options)
        outcome = run(make_driver(Mcts(num_leaves=num_leaves), engine=engine, scorer=scorer, width=8))
        for one in (engine, scorer.engine):
            assert {one.usage(call.prefix.tree).kv_tokens_held for call in one.calls} == {0}
        return outcome

    outcome = solved()
    tree, stats = outcome.tree, outcome.stats
    assert shape(solved(seconds_per_call=0.001).tree) == shape(tree)
    assert stats.num_finished == 8 and {node.reason for node in tree.leaves(NodeStatus.PRUNED)} <= {"no width left"}
    assert any(len({tree[node].depth for node in one.candidates}) > 1 for one in outcome.selections)
    assert stats.computed_tokens <= stats.unique_tokens and stats.prm_tokens == stats.prm_unique_tokens
    assert stats.kv_tokens_engine_peak == stats.kv_tokens_ledger_peak
    assert stats.kv_tokens_peak <= stats.kv_tokens_ledger_peak + len(tree), "what waits is held, and counted as kept"


def test_a_policy_may_let_leaves_wait_and_is_asked_again():
    class OneAtATime:
        """Goes on with its best leaf alone; the others wait."""

        name = "one-at-a-time"
        pace = "level"
        features = frozenset()

        def select(self, tree, width, rng):
            best, *others = sorted(tree.leaves(), key=lambda leaf: (-(leaf.reward or 0), leaf.id))
            waiting = frozenset(leaf.id for leaf in others)
            return Selection((Expansion(best.id, min(width, 3)),), waiting=waiting)

    outcome = run(make_driver(OneAtATime(), scorer=make_scorer(), width=6))
    depths = [outcome.tree[node].depth for one in outcome.selections for node in one.candidates]
    assert len(set(depths)) > 1 and outcome.stats.num_finished == 6
    assert any(len(one.kept) > 1 for one in outcome.selections)
    assert {node.reason for node in outcome.tree.leaves(NodeStatus.PRUNED)} <= {"no width left"}
    assert not outcome.tree.leaves()


def test_features_are_computed_once_for_each_leaf_before_selection():
    class Lengths:
        name = "length"
        asked: list[int] = []  # noqa: RUF012

        async def compute(self, tree, nodes):
            self.asked += [node.id for node in nodes]
            return [len(node.text) for node in nodes]

    class ByLength(BestOfN):
        features = frozenset({"length"})

        def select(self, tree, width, rng: random.Random):
            assert all(leaf.features["length"] == len(leaf.text) for leaf in tree.leaves())
            return super().select(tree, width, rng)

    provider = Lengths()
    outcome = run(make_driver(ByLength(), features=[provider], width=3))
    assert len(provider.asked) == len(set(provider.asked))
    assert outcome.stats.seconds_features > 0
