"""Every solver finds the optimum, and neither the leaves' order nor the nodes' ids decide what is kept."""

import random

import numpy as np
import pytest
from exhaustive import ExhaustiveSolver, solver_named
from hypothesis import given, settings
from hypothesis import strategies as st

from ets.coverage import cluster_steps
from ets.problem import PruneProblem, build_problem
from ets.solvers import make_solver
from ets.solvers.highs import HighsSolver
from search.allocate import rebase_allocation
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, NodeStatus, Step

EXACT = 1e-9
WEIGHTS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 1.4, 1.5]), st.floats(0, 4))
VALUES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))


@st.composite
def searches(draw: st.DrawFn) -> tuple[SearchTree, list[NodeId]]:
    """A tree in the middle of a search with 1 to 12 open leaves below nodes that are expanded or closed."""
    tree = SearchTree("t", range(draw(st.integers(1, 40))), "prompt")
    inner = [ROOT]
    for _ in range(draw(st.integers(0, 8))):
        inner.append(_add(draw, tree, draw(st.sampled_from(inner))))
    leaves = [_add(draw, tree, draw(st.sampled_from(inner))) for _ in range(draw(st.integers(1, 12)))]
    for node in tree.leaves():
        if node.id not in leaves:
            tree.prune(node.id, "test")
    return tree, leaves


def _add(draw: st.DrawFn, tree: SearchTree, parent: NodeId) -> NodeId:
    node = tree.add_child(parent)
    tree.write(Step(node, tuple(range(draw(st.integers(1, 30)))), f"s{node}", FinishReason.STOP, "m"))
    tree.set_reward(node, draw(VALUES))
    return node


@st.composite
def problems(draw: st.DrawFn) -> PruneProblem:
    """A program over a random tree: random values or a real allocation, weights, clusters, and either cost."""
    tree, leaves = draw(searches())
    if draw(st.booleans()):
        counts = rebase_allocation([tree.path_reward(leaf, "last") for leaf in leaves], draw(st.integers(1, 64)))
        values = [count / sum(counts) for count in counts]
    else:
        values = draw(st.lists(VALUES, min_size=len(leaves), max_size=len(leaves)))
    labels = draw(st.lists(st.integers(0, 9), min_size=len(leaves), max_size=len(leaves)))
    return build_problem(
        tree,
        leaves,
        values,
        np.unique(labels, return_inverse=True)[1],
        node_cost_weight=draw(WEIGHTS),
        coverage_weight=draw(WEIGHTS),
        node_cost=draw(st.sampled_from(["uniform", "tokens"])),
    )


@settings(max_examples=400)
@given(problem=problems())
def test_highs_equals_exhaustive(problem: PruneProblem) -> None:
    best = ExhaustiveSolver().solve(problem)
    for solver in (make_solver("highs"), HighsSolver(reduce=False)):
        found = solver.solve(problem)
        assert found.status == "optimal"
        assert found.kept and problem.objective(found.kept) == found.objective
        assert found.objective == pytest.approx(best.objective, abs=EXACT, rel=0)


@settings(max_examples=200)
@given(problem=problems())
def test_tree_equals_exhaustive_without_coverage(problem: PruneProblem) -> None:
    bare = _change(problem, coverage_weight=0.0)
    best, found = ExhaustiveSolver().solve(bare), make_solver("tree").solve(bare)
    assert found.objective == pytest.approx(best.objective, abs=EXACT, rel=0)
    alone = _change(problem, clusters=np.arange(problem.num_leaves))
    best, found = ExhaustiveSolver().solve(alone), make_solver("tree").solve(alone)
    assert found.objective == pytest.approx(best.objective, abs=EXACT, rel=0)


@settings(max_examples=40)
@given(problem=problems())
def test_pulp_equals_exhaustive(problem: PruneProblem) -> None:
    best, found = ExhaustiveSolver().solve(problem), make_solver("pulp").solve(problem)
    assert found.objective == pytest.approx(best.objective, abs=EXACT, rel=0)


@settings(max_examples=200)
@given(problem=problems(), rng=st.randoms(use_true_random=False))
def test_the_order_of_leaves_does_not_matter(problem: PruneProblem, rng: random.Random) -> None:
    order = np.array(rng.sample(range(problem.num_leaves), problem.num_leaves))
    shuffled = _change(
        problem,
        leaf_values=problem.leaf_values[order],
        leaf_shares=problem.leaf_shares[order],
        leaf_parents=problem.leaf_parents[order],
        clusters=problem.clusters[order],
    )
    for name in ("highs", "exhaustive"):
        solver = solver_named(name)
        here = set(solver.solve(problem).kept)
        there = {int(order[leaf]) for leaf in solver.solve(shuffled).kept}
        assert problem.objective(sorted(there)) == pytest.approx(problem.objective(sorted(here)), abs=EXACT, rel=0)
        assert here == there or _has_ties(problem)


@settings(max_examples=200)
@given(search=searches(), rng=st.randoms(use_true_random=False), weight=WEIGHTS)
def test_the_ids_of_nodes_do_not_matter(
    search: tuple[SearchTree, list[NodeId]], rng: random.Random, weight: float
) -> None:
    tree, leaves = search
    again, ids = _renumbered(tree, rng)
    counts = rebase_allocation([tree.path_reward(leaf, "last") for leaf in leaves], 16)

    def program(one: SearchTree, at: list[NodeId]) -> PruneProblem:
        return build_problem(
            one,
            at,
            [count / 16 for count in counts],
            np.arange(len(at)) % max(1, len(at) // 2),
            coverage_weight=weight,
            node_cost="tokens",
        )

    problem = program(tree, leaves)
    here = make_solver("highs").solve(problem)
    there = make_solver("highs").solve(program(again, [ids[leaf] for leaf in leaves]))
    assert there.objective == pytest.approx(here.objective, abs=EXACT, rel=0)
    assert here.kept == there.kept or _has_ties(problem)


@given(
    texts=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20),
    distance=st.floats(0, 2),
    rng=st.randoms(use_true_random=False),
)
def test_clusters_do_not_depend_on_the_order(texts: list[str], distance: float, rng: random.Random) -> None:
    vectors = {text: np.random.default_rng(ord(text)).normal(size=3) for text in texts}
    vectors |= {"a": np.zeros(3), "b": np.array([np.nan, 0, 0])}

    def groups(order: list[int]) -> set[frozenset[int]]:
        shuffled = [texts[leaf] for leaf in order]
        found = cluster_steps(shuffled, [vectors[text] for text in shuffled], distance)
        labels = found.labels.tolist()
        assert sorted(set(labels)) == list(range(found.num_clusters))
        return {frozenset(order[i] for i, own in enumerate(labels) if own == label) for label in set(labels)}

    order = list(range(len(texts)))
    assert groups(order) == groups(rng.sample(order, len(order)))


def _renumbered(tree: SearchTree, rng: random.Random) -> tuple[SearchTree, dict[NodeId, NodeId]]:
    """The same tree grown in another order, and where each node went."""
    again = SearchTree("t", tree.root.ids, "prompt")
    ids = {ROOT: ROOT}
    waiting = list(tree.children(ROOT))
    while waiting:
        old = waiting.pop(rng.randrange(len(waiting)))
        node = tree[old]
        assert node.parent is not None and node.reward is not None
        ids[old] = again.add_child(ids[node.parent])
        again.write(Step(ids[old], node.ids, node.text, FinishReason.STOP, "m"))
        again.set_reward(ids[old], node.reward)
        waiting += tree.children(old)
    for old, new in ids.items():
        if tree[old].status is NodeStatus.PRUNED:
            again.prune(new, "test")
    return again, ids


def _has_ties(problem: PruneProblem) -> bool:
    """Whether two sets of leaves are the best to within rounding."""
    count = problem.num_leaves
    values = sorted(
        problem.objective([leaf for leaf in range(count) if (kept >> leaf) & 1]) for kept in range(1, 1 << count)
    )
    return len(values) > 1 and values[-1] - values[-2] < EXACT


def _change(problem: PruneProblem, **changes: object) -> PruneProblem:
    names = PruneProblem.__dataclass_fields__
    return PruneProblem(**({name: getattr(problem, name) for name in names} | changes))  # type: ignore[arg-type]
