"""What a solver is, and what all of them share: how ties are broken, and how an end is reported."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from ets.closure import own_gains, paying_leaves, worth
from ets.problem import PruneProblem, PruneSolution, Status

DEFAULT_SECONDS = 5.0
"""Time limit of one solve."""


class Solver(Protocol):
    """Solves pruning programs. Keeps no state between calls."""

    @property
    def name(self) -> str:
        """As in the option `solver`."""

    def solve(self, problem: PruneProblem) -> PruneSolution:
        """The best leaves to keep; an end without an optimum is a status, not an exception.

        Raises:
            SolverError: the program is not one that this solver takes.
        """


def settle(problem: PruneProblem, kept: Iterable[int]) -> tuple[int, ...]:
    """Break the ties of an optimal set, the same way after every solver; the objective stays what it is.

    1. The larger set: whatever costs exactly its own worth is kept. Without coverage this makes the optimum
       unique, whatever solver found it, unless nothing at all pays.
    2. Of leaves that differ in nothing (parent, value, share, cluster) the lower positions are kept.

    Other equal optima, such as two distant leaves of one cluster that cost the same, are left as the solver chose.
    """
    chosen = set(kept)
    if problem.num_nodes:
        worths = worth(problem, own_gains(problem))
        chosen.update(paying_leaves(problem, worths, problem.ancestors(chosen)))
    twins: defaultdict[tuple[int, float, float, int], list[int]] = defaultdict(list)
    columns = (problem.leaf_parents, problem.leaf_values, problem.leaf_shares, problem.clusters)
    for leaf, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        twins[key].append(leaf)
    settled: list[int] = []
    for group in twins.values():
        settled += group[: sum(leaf in chosen for leaf in group)]
    return tuple(sorted(settled))


def optimal(
    problem: PruneProblem, kept: Iterable[int], solver: str, start: float, lp_integral: bool | None = None
) -> PruneSolution:
    """An optimum, its ties broken."""
    settled = settle(problem, kept)
    objective = problem.objective(settled)
    return PruneSolution(settled, objective, "optimal", solver, lp_integral, time.perf_counter() - start)


def without(solver: str, status: Status, message: str, start: float) -> PruneSolution:
    """An end without an optimum."""
    seconds = time.perf_counter() - start
    return PruneSolution((), float("-inf"), status, solver, None, seconds, message)
