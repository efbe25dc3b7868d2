"""ETS and ETS-KV on trees small enough to work out by hand; reasons, notes, and what is refused."""

import random

import numpy as np
import pytest

from ets import EtsKv, EtsPaper
from ets.policy import paper_coverage
from ets.problem import PruneSolution
from search.errors import ConfigError, PolicyError, SolverError
from search.policies import Rebase
from search.tree import SearchTree
from search.types import ROOT, Expansion, FinishReason, Step


def grow(tree, parent, *rewards, num_tokens=5, angles=None):
    """Children of `parent` with these rewards, open, and with embeddings at these angles in degrees."""
    ids = []
    for position, reward in enumerate(rewards):
        node = tree.add_child(parent)
        tree.write(Step(node, tuple(range(num_tokens)), f"s{node}\n\n", FinishReason.STOP, "m"))
        if reward is not None:
            tree.set_reward(node, reward)
        if angles is not None:
            angle = np.radians(angles[position])
            tree[node].features["embedding"] = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
        ids.append(node)
    return ids


def select(policy, tree, width):
    selection = policy.select(tree, width, random.Random(0))
    return {e.node: e.num_children for e in selection.expansions}, dict(selection.reasons), selection.note


def two_branches(angles=(None, None)):
    """Root with branches a and b; rewards 0.9, 0.8, 0.1 below a and 0.5 below b."""
    tree = SearchTree("t", (1, 2), "prompt")
    a, b = grow(tree, ROOT, 0.5, 0.5, num_tokens=6)
    return tree, [*grow(tree, a, 0.9, 0.8, 0.1, angles=angles[0]), *grow(tree, b, 0.5, angles=angles[1])]


def test_ets_kv_by_hand():
    tree, (best, good, bad, lone) = two_branches()
    assert Rebase().select(tree, 8, random.Random(0)).expansions == (
        Expansion(best, 5),
        Expansion(good, 3),
    ), "weights 1, 0.607, 0.018, 0.135: 8 / 1.76 -> 5, then 3 * 0.607 / 0.76 -> 3"
    counts, reasons, note = select(EtsKv(), tree, 8)
    assert (counts, note) == ({best: 5, good: 3}, "")
    assert reasons == {
        bad: "ets-kv: REBASE allocated 0 of 8 children, and it has 1 node of its own (5 tokens)",
        lone: "ets-kv: REBASE allocated 0 of 8 children, and it has 2 nodes of its own (11 tokens)",
    }
    # At T = 1 REBASE gives 6, 5, 2, 3 of 16: 3 / 16 is less than the two nodes of seven that the lone leaf needs.
    counts, reasons, _ = select(EtsKv(temperature=1.0), tree, 16)
    assert set(counts) == {best, good}
    assert sum(counts.values()) == 16, "the full width goes to what is kept"
    assert reasons[lone] == "ets-kv: its 3 of 16 children do not pay for 2 nodes of its own (11 tokens)"
    # A node costs less: the lone branch stays.
    assert lone in select(EtsKv(temperature=1.0, node_cost_weight=0.6), tree, 16)[0]


def test_token_cost_prefers_short_steps():
    tree = SearchTree("t", (1, 2), "prompt")
    long = grow(tree, ROOT, 0.5, num_tokens=60)
    short = grow(tree, ROOT, 0.5, 0.5, num_tokens=10)
    assert set(select(EtsKv(), tree, 3)[0]) == {*long, *short}, "a third each, a quarter the node"
    counts, reasons, _ = select(EtsKv(node_cost="tokens"), tree, 3)
    assert set(counts) == set(short), "60 of 82 tokens are more than a third"
    assert reasons[long[0]].endswith("do not pay for 1 node of its own (60 tokens)")


def test_no_cost_is_rebase():
    rng = random.Random(1)
    tree = SearchTree("t", (1, 2), "prompt")
    for branch in grow(tree, ROOT, 0.5, 0.5, 0.5):
        grow(tree, branch, *[rng.random() for _ in range(6)], angles=[10.0 * i for i in range(6)])
    for width in (1, 7, 18, 40):
        expected = Rebase().select(tree, width, rng).expansions
        for policy in (
            EtsKv(node_cost_weight=0.0),
            EtsPaper(node_cost_weight=0.0),
            EtsKv(node_cost_weight=0, solver="tree"),
        ):
            assert policy.select(tree, width, rng).expansions == expected


def test_coverage_keeps_another_cluster():
    # The lone leaf says something else; the bad one repeats the best.
    tree, (best, good, bad, lone) = two_branches(angles=((0, 0, 1), (90,)))
    plain = EtsPaper(coverage_weight=0.0, temperature=1.0)
    assert plain.features == frozenset() and set(select(plain, tree, 16)[0]) == {best, good}
    covering = EtsPaper(temperature=1.0)
    assert covering.features == {"embedding"}
    counts, reasons, note = select(covering, tree, 16)
    assert set(counts) == {best, good, lone} and note == ""
    assert reasons == {
        bad: "ets-paper: its 2 of 16 children do not pay for 1 node of its own (5 tokens); "
        f"says what node {best} says, which is kept (distance 0.00)"
    }


def test_a_cluster_that_is_not_worth_it():
    tree, (*_, lone) = two_branches(angles=((0, 0, 1), (90,)))
    counts, reasons, _ = select(EtsPaper(coverage_weight=0.05, temperature=1.0), tree, 16)
    assert lone not in counts
    assert reasons[lone].endswith("; it is a cluster of its own")


def test_the_cluster_distance_is_a_setting():
    tree, (*_, lone) = two_branches(angles=((0, 0, 1), (30,)))
    assert lone in select(EtsPaper(temperature=1.0), tree, 16)[0], "0.134 apart"
    assert lone not in select(EtsPaper(temperature=1.0, cluster_distance=0.2), tree, 16)[0]


def test_the_papers_coverage_by_width():
    widths = {1: 1.5, 4: 1.5, 16: 1.5, 32: 1.5, 33: 1.4, 64: 1.4, 128: 1.4, 129: 1.45, 256: 1.45, 4096: 1.45}
    assert {width: paper_coverage(width) for width in widths} == widths


def test_the_coverage_follows_the_searchs_width_and_not_what_is_left_of_it(monkeypatch):
    tree = SearchTree("t", (1, 2), "prompt")
    ended = grow(tree, ROOT, *[0.5] * 60)
    for node in ended:
        tree.finish(node, "end of text")
    grow(tree, ROOT, 0.5, 0.4, angles=(0, 90))
    seen = []
    monkeypatch.setattr("ets.policy.paper_coverage", lambda width: seen.append(width) or 1.0)
    select(EtsPaper(coverage_weight=None), tree, 4)
    assert seen == [64]


@pytest.mark.parametrize("policy", [EtsPaper(), EtsKv(), EtsKv(solver="tree"), EtsPaper(solver="pulp")])
def test_the_root_gets_the_whole_width(policy):
    tree = SearchTree("t", (1, 2), "prompt")
    assert select(policy, tree, 16) == ({ROOT: 16}, {}, "")


def test_without_a_scorer_everything_is_even():
    tree = SearchTree("t", (1, 2), "prompt")
    nodes = grow(tree, ROOT, None, None, None)
    assert select(EtsKv(), tree, 6)[0] == dict.fromkeys(nodes, 2)


def test_a_solver_without_an_optimum_leaves_rebases_allocation_and_a_note(monkeypatch):
    class Refusing:
        def solve(self, problem):
            raise SolverError(f"{problem.num_leaves} leaves are too many")

    tree, leaves = two_branches(angles=((0, 45, 90), (45,)))
    more = grow(tree, ROOT, *[0.2] * 14, angles=range(0, 140, 10))
    policy = EtsPaper()
    monkeypatch.setattr("ets.policy.make_solver", lambda name, seconds: Refusing())
    counts, reasons, note = select(policy, tree, 16)
    expected = Rebase().select(tree, 16, random.Random(0))
    assert counts == {e.node: e.num_children for e in expected.expansions}
    assert reasons.keys() == expected.reasons.keys()
    assert reasons[more[-1]] == "ets-paper: REBASE allocated 0 of 16 children"
    assert note == "solver highs: failed, 18 leaves are too many; went on with REBASE's allocation"
    assert leaves[0] in counts


def test_a_timeout_is_noted(monkeypatch):
    class Slow:
        def solve(self, problem):
            return PruneSolution((), float("-inf"), "time limit", "highs", message="Time limit reached")

    tree, _ = two_branches()
    policy = EtsKv()
    monkeypatch.setattr("ets.policy.make_solver", lambda name, seconds: Slow())
    counts, _, note = select(policy, tree, 8)
    assert sum(counts.values()) == 8
    assert note == "solver highs: time limit, Time limit reached; went on with REBASE's allocation"


def test_embeddings_that_are_missing_or_not_finite():
    tree, (best, *_) = two_branches(angles=((0, 0, 1), (90,)))
    tree[best].features["embedding"] = np.array([np.nan, 1.0])
    assert select(EtsPaper(), tree, 8)[2] == "1 leaves with an embedding that is not finite, each text a cluster"
    del tree[best].features["embedding"]
    with pytest.raises(PolicyError, match=f"ets-paper: node {best} has no embedding"):
        select(EtsPaper(), tree, 8)


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (EtsPaper, {"node_cost_weight": -1.0}, "node_cost_weight must be a number of at least 0, not -1.0"),
        (EtsPaper, {"coverage_weight": -0.5}, "coverage_weight must be a number of at least 0, not -0.5"),
        (EtsPaper, {"coverage_weight": float("nan")}, "coverage_weight must be a number"),
        (EtsPaper, {"cluster_distance": 3.0}, r"cluster_distance must be in \[0, 2\], not 3.0"),
        (EtsPaper, {"solver": "tree"}, "solver tree takes no coverage; set coverage_weight to 0"),
        (EtsPaper, {"solver": "cbc"}, "unknown solver 'cbc'; known: highs, pulp"),
        (EtsKv, {"node_cost_weight": float("inf")}, "node_cost_weight must be a number"),
        (EtsKv, {"node_cost": "bytes"}, "node_cost must be one of uniform, tokens, not 'bytes'"),
        (EtsKv, {"temperature": 0.0}, "temperature must be a positive number, not 0.0"),
        (EtsKv, {"reduce": "max"}, "reduce must be one of last, min, mean, prod, not 'max'"),
        (EtsKv, {"solver_seconds": 0.0}, "solver_seconds must be a positive number, not 0.0"),
        (EtsKv, {"solver": "hihgs"}, "did you mean highs"),
    ],
)
def test_wrong_options_are_refused(policy, options, message):
    with pytest.raises(ConfigError, match=message):
        policy(**options)
    EtsPaper(solver="tree", coverage_weight=0.0)
