"""Without coverage the program is a maximum closure on a tree: exact in one pass."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from ets.closure import best_closure, own_gains
from ets.problem import PruneProblem, PruneSolution
from ets.solvers.base import optimal
from search.errors import SolverError


@dataclass(frozen=True, slots=True)
class TreeSolver:
    """Linear time, for programs whose coverage term is nothing, constant, or a part of each leaf's own worth.

    That is: coverage weight 0, a single cluster, or no cluster with more than one leaf.
    """

    name: ClassVar[str] = "tree"

    def solve(self, problem: PruneProblem) -> PruneSolution:
        """As `Solver.solve`.

        Raises:
            SolverError: clusters of several leaves are worth something.
        """
        start = time.perf_counter()
        if problem.coverage_weight and 1 < problem.num_clusters < problem.num_leaves:
            raise SolverError("solver tree takes programs without coverage: coverage_weight must be 0")
        return optimal(problem, best_closure(problem, own_gains(problem)), self.name, start)
