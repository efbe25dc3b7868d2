"""The default solver: what can be decided by looking, then a sparse LP, then branch and bound where it must be.

Where few clusters are open, tables over their sets (`ets.solvers.subsets`) are exact and faster than either.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csc_array

from ets.closure import own_gains
from ets.problem import PruneProblem, PruneSolution, Status
from ets.solvers.base import DEFAULT_SECONDS, optimal, without
from ets.solvers.reduction import Reduced, reduce_problem
from ets.solvers.subsets import FEW_CLUSTERS, MOST_CLUSTERS, SubsetSolver

SCALE = 1e6
"""The objective is multiplied by this, so that HiGHS' tolerances of 1e-6 and 1e-7 lie far below what matters."""

INTEGRAL = 1e-6
"""A variable this close to 0 or 1 is there."""

_TIME_LIMIT = 1


@dataclass(frozen=True, slots=True)
class HighsSolver:
    """HiGHS through scipy, in this process, on the edge formulation.

    Each leaf and each ancestor implies its own parent alone (x_i <= y_parent(i), y_j <= y_parent(j)), and
    c_k <= sum of the x_i in cluster k: the same integer optima as the formulation of ETS (arXiv 2502.13575), whose
    ancestors are tied to every leaf below, with fewer rows and nearly always an integral relaxation.

    Attributes:
        max_seconds: limit of one solve.
        reduce: whether what can be decided without the LP is (`ets.solvers.reduction`, `ets.solvers.subsets`).
    """

    name: ClassVar[str] = "highs"

    max_seconds: float = DEFAULT_SECONDS
    reduce: bool = True

    def solve(self, problem: PruneProblem) -> PruneSolution:
        """As `Solver.solve`."""
        start = time.perf_counter()
        if problem.num_nodes == 0:
            return optimal(problem, [0], self.name, start)
        reduced = reduce_problem(problem) if self.reduce else _whole(problem)
        if not len(reduced.open):
            return optimal(problem, reduced.kept, self.name, start)
        num_clusters = reduced.num_clusters + reduced.one_at_least
        if self.reduce and num_clusters <= FEW_CLUSTERS:
            return self._search(problem, reduced, start)
        objective, constraint = _program(problem, reduced)
        result = _solve(objective, constraint, self._left(start))
        integral = None
        if result.status == 0:
            leaves = result.x[: len(reduced.open)]
            integral = bool((np.minimum(leaves, 1 - leaves) < INTEGRAL).all())
            if not integral and self.reduce and num_clusters <= MOST_CLUSTERS:
                return self._search(problem, reduced, start, integral)
            if not integral:
                result = _solve(objective, constraint, self._left(start), num_integral=len(reduced.open))
        if result.status != 0:
            status: Status = "time limit" if result.status == _TIME_LIMIT else "failed"
            return without(self.name, status, str(result.message), start)
        kept = reduced.open[result.x[: len(reduced.open)] > 0.5].tolist()
        return optimal(problem, [*reduced.kept, *kept], self.name, start, integral)

    def _search(
        self, problem: PruneProblem, reduced: Reduced, start: float, integral: bool | None = None
    ) -> PruneSolution:
        kept = reduced.open[SubsetSolver(problem, reduced).solve()].tolist()
        return optimal(problem, [*reduced.kept, *kept], self.name, start, integral)

    def _left(self, start: float) -> float:
        return max(self.max_seconds - (time.perf_counter() - start), 0.0)


def _whole(problem: PruneProblem) -> Reduced:
    """The program as it is, nothing decided."""
    return Reduced(
        kept=[],
        open=np.arange(problem.num_leaves),
        gains=own_gains(problem) if not problem.coverage_weight else problem.leaf_gains,
        parents=problem.leaf_parents,
        nodes=np.arange(problem.num_nodes),
        node_parents=problem.node_parents,
        clusters=problem.clusters,
        num_clusters=problem.num_clusters,
        one_at_least=True,
    )


def _program(problem: PruneProblem, reduced: Reduced) -> tuple[np.ndarray, LinearConstraint]:
    """Coefficients to minimise, and the rows, over the leaves, then the ancestors, then the clusters."""
    num_leaves, num_nodes, num_clusters = len(reduced.open), len(reduced.nodes), reduced.num_clusters
    objective = SCALE * np.concatenate(
        [-reduced.gains, problem.node_prices[reduced.nodes], np.full(num_clusters, -problem.cluster_value)]
    )
    leaves = np.flatnonzero(reduced.parents >= 0)
    nodes = np.flatnonzero(reduced.node_parents >= 0)
    members = np.flatnonzero(reduced.clusters >= 0)
    num_edges = len(leaves) + len(nodes)
    edges, labels = np.arange(num_edges), np.arange(num_clusters)
    rows = [edges, edges, num_edges + reduced.clusters[members], num_edges + labels]
    columns = [
        np.concatenate([leaves, num_leaves + nodes]),
        num_leaves + np.concatenate([reduced.parents[leaves], reduced.node_parents[nodes]]),
        members,
        num_leaves + num_nodes + labels,
    ]
    signs = [1.0, -1.0, -1.0, 1.0]
    bounds = np.zeros(num_edges + num_clusters + reduced.one_at_least)
    if reduced.one_at_least:
        rows.append(np.full(num_leaves, num_edges + num_clusters))
        columns.append(np.arange(num_leaves))
        signs.append(-1.0)
        bounds[-1] = -1.0
    matrix = csc_array(
        (
            np.concatenate([np.full(len(row), sign) for row, sign in zip(rows, signs, strict=True)]),
            (np.concatenate(rows), np.concatenate(columns)),
        ),
        shape=(len(bounds), len(objective)),
    )
    return objective, LinearConstraint(matrix, -np.inf, bounds)


def _solve(objective: np.ndarray, constraint: LinearConstraint, seconds: float, num_integral: int = 0) -> Any:
    """One call of HiGHS; only the leaves need be integral, all else then follows.

    `milp` without integral variables is an LP to HiGHS, and costs a third of what `linprog` puts round it.
    """
    integrality = None
    if num_integral:
        integrality = np.zeros(len(objective))
        integrality[:num_integral] = 1
    return milp(
        objective,
        constraints=constraint,
        bounds=Bounds(0, 1),
        integrality=integrality,
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
