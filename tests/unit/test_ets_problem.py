"""The pruning program's arrays and values, worked out by hand."""

import numpy as np
import pytest

from ets import PruneProblem, build_problem
from search.errors import SolverError
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step


def grow(tree, parent, num_tokens, reward=0.5):
    node = tree.add_child(parent)
    tree.write(Step(node, tuple(range(num_tokens)), f"s{node}\n\n", FinishReason.STOP, "m"))
    tree.set_reward(node, reward)
    return node


def small_tree():
    """A prompt of 10 tokens; steps a (4), b (6); leaves a1 (3), a2 (2) below a, b1 (5) below b."""
    tree = SearchTree("t", range(10), "prompt")
    a, b = grow(tree, ROOT, 4), grow(tree, ROOT, 6)
    return tree, [grow(tree, a, 3), grow(tree, a, 2), grow(tree, b, 5)]


def test_uniform_cost_by_hand():
    tree, leaves = small_tree()
    problem = build_problem(tree, leaves, [0.5, 0.25, 0.25], [0, 1, 1], coverage_weight=1.5)
    assert (problem.num_leaves, problem.num_nodes, problem.num_clusters) == (3, 3, 2)
    assert problem.node_parents.tolist() == [-1, 0, 0]
    assert problem.leaf_parents.tolist() == [1, 1, 2]
    # M + N = 6: every node costs a sixth; a cluster brings 1.5 / 2.
    assert problem.objective([0]) == pytest.approx(0.5 - 3 / 6 + 0.75)
    assert problem.objective([0, 1]) == pytest.approx(0.75 - 4 / 6 + 1.5)
    assert problem.objective([0, 2]) == pytest.approx(0.75 - 5 / 6 + 1.5)
    assert problem.objective([0, 1, 2]) == pytest.approx(1 - 1 + 1.5)
    assert problem.objective([]) == float("-inf")


def test_token_cost_by_hand():
    tree, leaves = small_tree()
    problem = build_problem(tree, leaves, [0.5, 0.25, 0.25], node_cost="tokens", node_cost_weight=2.0)
    # 30 tokens in all: prompt 10, a 4, b 6, leaves 3, 2, 5.
    assert problem.node_shares * 30 == pytest.approx([10, 4, 6])
    assert problem.leaf_shares * 30 == pytest.approx([3, 2, 5])
    assert problem.objective([0]) == pytest.approx(0.5 - 2 * 17 / 30)
    assert problem.objective([0, 1, 2]) == pytest.approx(1 - 2)


def test_only_the_given_leaves_and_their_ancestors_play_a_part():
    tree, leaves = small_tree()
    tree.finish(leaves[2], "end of text")
    problem = build_problem(tree, leaves[:2], [0.5, 0.5])
    assert (problem.num_leaves, problem.num_nodes) == (2, 2)
    assert problem.leaf_shares == pytest.approx([0.25, 0.25])


def test_the_root_alone():
    tree = SearchTree("t", (1,), "prompt")
    problem = build_problem(tree, [ROOT], [1.0])
    assert (problem.num_leaves, problem.num_nodes) == (1, 0)
    assert problem.objective([0]) == 0


def test_zero_weights_are_exact_zeros():
    tree, leaves = small_tree()
    problem = build_problem(tree, leaves, [0.5, 0.5, 0.0], [0, 1, 2], node_cost_weight=0.0)
    assert not problem.node_prices.any()
    assert problem.leaf_gains.tolist() == [0.5, 0.5, 0.0]
    assert problem.cluster_value == 0
    assert problem.objective([0, 1]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leaf_values": np.array([])}, "at least one leaf"),
        ({"leaf_shares": np.array([0.1])}, "leaf_shares has the shape"),
        ({"leaf_values": np.array([0.5, np.nan])}, "leaf_values must be finite"),
        ({"leaf_values": np.array([0.5, -0.5])}, "leaf_values must be finite and not negative"),
        ({"leaf_parents": np.array([0, 1])}, "leaf_parents must name"),
        ({"leaf_parents": np.array([0, -1])}, "leaf_parents must name"),
        ({"node_parents": np.array([0])}, "node_parents must start with -1"),
        ({"clusters": np.array([0, 2])}, "clusters must be labelled"),
        ({"clusters": np.array([0, -1])}, "clusters must be labelled"),
        ({"node_cost_weight": -1.0}, "node_cost_weight must be a number of at least 0"),
        ({"coverage_weight": float("nan")}, "coverage_weight must be a number of at least 0"),
        ({"node_shares": np.array([]), "node_parents": np.array([])}, "without ancestors"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    arrays = {
        "leaf_values": np.array([0.5, 0.5]),
        "leaf_shares": np.array([0.3, 0.3]),
        "leaf_parents": np.array([0, 0]),
        "node_shares": np.array([0.4]),
        "node_parents": np.array([-1]),
        "clusters": np.array([0, 1]),
    }
    PruneProblem(**arrays)
    with pytest.raises(SolverError, match=message):
        PruneProblem(**(arrays | change))
