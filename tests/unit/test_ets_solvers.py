"""Solvers: worked examples, ties, ends without an optimum, and what is refused."""

import builtins
import sys

import numpy as np
import pytest
from exhaustive import ExhaustiveSolver, solver_named

from ets.problem import PruneProblem
from ets.solvers import SOLVERS, highs, make_solver
from ets.solvers.reduction import reduce_problem
from search.errors import ConfigError, SolverError

ALL = [*SOLVERS, "exhaustive"]


def problem(values, parents, node_parents, clusters=None, *, cost=1.0, coverage=0.0):
    """Uniform cost over leaves and ancestors."""
    share = 1 / (len(values) + len(node_parents))
    return PruneProblem(
        np.array(values, dtype=float),
        np.full(len(values), share),
        np.array(parents),
        np.full(len(node_parents), share),
        np.array(node_parents),
        np.zeros(len(values), dtype=int) if clusters is None else np.array(clusters),
        cost,
        coverage,
    )


def two_branches(**options):
    """Root 0 with branches 1 and 2; four leaves below 1 and one below 2."""
    return problem([0.5, 0.2, 0.1, 0.0, 0.2], [1, 1, 1, 1, 2], [-1, 0, 0], **options)


@pytest.mark.parametrize("name", ALL)
def test_without_coverage_by_hand(name):
    # Each node costs 1/8. Below 1: 0.375 + 0.075 - 0.125 > 0; leaf 2 loses 0.025. Branch 2: 0.2 - 0.25 < 0.
    solution = solver_named(name).solve(two_branches())
    assert (solution.kept, solution.status, solution.solver) == ((0, 1), "optimal", name)
    assert solution.objective == pytest.approx(0.7 - 4 / 8)
    assert solution.seconds >= 0 and solution.message == ""


@pytest.mark.parametrize("name", [name for name in ALL if name != "tree"])
def test_coverage_by_hand(name):
    # A new cluster brings 0.6 / 3 = 0.2: leaf 4, alone in its cluster, now pays for its branch (0.2 + 0.2 - 0.25);
    # leaf 3 covers cluster 1 for 0.125; leaf 2's cluster is covered by leaf 0.
    solution = solver_named(name).solve(two_branches(clusters=[0, 0, 0, 1, 2], coverage=0.6))
    assert solution.kept == (0, 1, 3, 4)
    assert solution.objective == pytest.approx(0.9 - 7 / 8 + 0.6)


@pytest.mark.parametrize("name", ALL)
def test_something_is_always_kept(name):
    # Nothing pays at ten times the cost: the best path alone stays, here the shallow leaf of less value.
    losing = problem([0.6, 0.4], [1, 0], [-1, 0], cost=10.0)
    assert solver_named(name).solve(losing).kept == (1,)
    deep = problem([0.9, 0.1], [1, 0], [-1, 0], cost=3.0)
    assert solver_named(name).solve(deep).kept == (0,)


@pytest.mark.parametrize("name", ALL)
def test_nothing_costs_then_everything_stays(name):
    assert solver_named(name).solve(two_branches(cost=0.0)).kept == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("name", ALL)
def test_what_costs_its_worth_is_kept(name):
    # 4 nodes at 1/4: leaf 0 gains 0.25, leaf 1 exactly 0.
    assert solver_named(name).solve(problem([0.5, 0.25], [0, 0], [-1, 0])).kept == (0, 1)


@pytest.mark.parametrize("name", [name for name in ALL if name != "tree"])
def test_of_twins_the_lower_positions_are_kept(name):
    # Three leaves of one cluster that pay only as its one representative; the other cluster pays anyway.
    solution = solver_named(name).solve(problem([1.0, 0, 0, 0], [0] * 4, [-1], [0, 1, 1, 1], coverage=0.5))
    assert solution.kept == (0, 1)


@pytest.mark.parametrize("name", ALL)
def test_the_root_alone(name):
    assert solver_named(name).solve(problem([1.0], [-1], [])).kept == (0,)


def fractional():
    """Three branches that each hold leaves of two of three clusters: the relaxation takes half of each branch.

    A branch costs 0.2 and its leaves nothing; a cluster brings 0.15. One branch: 0.3 - 0.2; half of each of the three:
    0.45 - 0.3.
    """
    return PruneProblem(
        np.zeros(6),
        np.zeros(6),
        np.array([1, 1, 2, 2, 3, 3]),
        np.array([0.0, 0.2, 0.2, 0.2]),
        np.array([-1, 0, 0, 0]),
        np.array([0, 1, 1, 2, 2, 0]),
        1.0,
        0.45,
    )


def test_branch_and_bound_where_the_relaxation_is_fractional():
    best = ExhaustiveSolver().solve(fractional())
    assert best.objective == pytest.approx(0.1)
    for solver, integral in ((highs.HighsSolver(), None), (highs.HighsSolver(reduce=False), False)):
        solution = solver.solve(fractional())
        assert solution.lp_integral is integral, "few clusters are settled without a relaxation"
        assert solution.objective == pytest.approx(best.objective, abs=1e-12)


@pytest.mark.parametrize("num_clusters", [5, 9, 13])
def test_every_way_to_search_finds_the_same(num_clusters):
    # Branches of two clusters each, in a ring: tables, tables after a fractional relaxation, branch and bound.
    ring = [label % num_clusters for first in range(num_clusters) for label in (first, first + 1)]
    branches = [1 + leaf // 2 for leaf in range(len(ring))]
    prices = np.array([0.0, *np.linspace(0.6, 0.601, num_clusters) / num_clusters])
    program = PruneProblem(
        np.zeros(len(ring)),
        np.zeros(len(ring)),
        np.array(branches),
        prices,
        np.array([-1, *[0] * num_clusters]),
        np.array(ring),
        1.0,
        0.5,
    )
    found = highs.HighsSolver().solve(program)
    assert found.objective == pytest.approx(highs.HighsSolver(reduce=False).solve(program).objective, abs=1e-9)
    assert 0 < len(found.kept) < len(ring)
    assert found.lp_integral is (None if num_clusters == 5 else False)


def test_the_solution_says_whether_the_relaxation_was_integral():
    spread = problem([0.4, 0.25, 0.05, 0.0, 0.3], [1, 1, 2, 2, 1], [-1, 0, 0], [0, 1, 2, 0, 1], coverage=1.0)
    assert highs.HighsSolver(reduce=False).solve(spread).lp_integral is True
    assert make_solver("highs").solve(two_branches()).lp_integral is None, "nothing was left to solve"


def test_reduction_leaves_only_what_is_open():
    reduced = reduce_problem(two_branches(clusters=[0, 0, 0, 1, 1], coverage=0.6))
    # Leaves 0 and 1 stay; 2 brings neither worth nor a new cluster; 3 and 4 stand for cluster 1.
    assert reduced.kept == [0, 1]
    assert reduced.open.tolist() == [3, 4]
    assert reduced.nodes.tolist() == [2]
    assert reduced.parents.tolist() == [-1, 0]
    assert (reduced.num_clusters, reduced.one_at_least) == (1, False)


def test_running_out_of_time_is_a_status():
    rng = np.random.default_rng(0)
    wide = problem(
        rng.random(400) / 400,
        rng.integers(1, 200, 400),
        [-1, *rng.integers(0, 1, 199)],
        np.arange(400) % 90,
        coverage=1.4,
    )
    solution = highs.HighsSolver(max_seconds=1e-9, reduce=False).solve(wide)
    assert (solution.status, solution.kept, solution.objective) == ("time limit", (), float("-inf"))
    assert solution.message


def test_a_failing_process_is_a_status(monkeypatch):
    import pulp

    def fail(*_: object) -> None:
        raise pulp.PulpSolverError("Pulp: Error while executing cbc")

    solver = make_solver("pulp")
    monkeypatch.setattr(pulp.LpProblem, "solve", fail)
    solution = solver.solve(two_branches())
    assert (solution.status, solution.message) == ("failed", "Pulp: Error while executing cbc")


def test_programs_that_are_not_taken():
    wide = problem([0.05] * 20, [0] * 20, [-1], np.arange(20) % 7, coverage=1.0)
    with pytest.raises(SolverError, match="solver tree takes"):
        make_solver("tree").solve(wide)


def test_unknown_names_and_limits():
    with pytest.raises(ConfigError, match=r"unknown solver 'high' \(did you mean highs\?\); known: highs, pulp"):
        make_solver("high")
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="solver_seconds must be a positive number"):
            make_solver("highs", seconds)


def test_packages_that_are_missing(monkeypatch):
    real = builtins.__import__

    def without_pulp(name, *rest):
        if name == "pulp":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "pulp", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_pulp)
    with pytest.raises(ConfigError, match=r"solver pulp needs PuLP: .*-m pip install"):
        make_solver("pulp")
