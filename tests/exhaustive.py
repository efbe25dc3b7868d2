"""Every set of leaves tried: the measure of all other solvers, for programs of a few leaves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ets.closure import TIE
from ets.problem import PruneProblem, PruneSolution
from ets.solvers import Solver, make_solver
from ets.solvers.base import optimal

MAX_LEAVES = 16


@dataclass(frozen=True, slots=True)
class ExhaustiveSolver:
    """All 2**N - 1 sets, for up to 16 leaves. Of equal sets the largest, then the one of the lowest positions."""

    name: ClassVar[str] = "exhaustive"

    def solve(self, problem: PruneProblem) -> PruneSolution:
        """As `ets.solvers.base.Solver.solve`."""
        start = time.perf_counter()
        num_leaves = problem.num_leaves
        assert num_leaves <= MAX_LEAVES
        sets = np.arange(1, 1 << num_leaves, dtype=np.int64)
        values = np.zeros(len(sets))
        sizes = np.zeros(len(sets), dtype=np.int64)
        below = [0] * problem.num_nodes
        clusters = [0] * problem.num_clusters
        for leaf, gain in enumerate(problem.leaf_gains):
            is_kept = (sets >> leaf) & 1
            values += is_kept * gain
            sizes += is_kept
            clusters[problem.clusters[leaf]] |= 1 << leaf
            for node in problem.ancestors([leaf]):
                below[node] |= 1 << leaf
        for mask, price in zip(below, problem.node_prices, strict=True):
            values -= ((sets & mask) != 0) * price
        for mask in clusters:
            values += ((sets & mask) != 0) * problem.cluster_value
        ties = sets[values >= values.max() - TIE]
        largest = ties[sizes[ties - 1] == sizes[ties - 1].max()]
        positions = [[leaf for leaf in range(num_leaves) if (mask >> leaf) & 1] for mask in largest.tolist()]
        return optimal(problem, min(positions), self.name, start)


def solver_named(name: str) -> Solver:
    """This one, or the product's solver of that name."""
    return ExhaustiveSolver() if name == "exhaustive" else make_solver(name)
