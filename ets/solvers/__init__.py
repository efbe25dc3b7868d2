"""Solvers of the pruning program by name; one that is not asked for is not imported."""

from __future__ import annotations

from collections.abc import Mapping

from ets.solvers.base import DEFAULT_SECONDS, Solver
from search.catalogue import load, pick
from search.errors import ConfigError

__all__ = ["DEFAULT_SECONDS", "SOLVERS", "Solver", "make_solver"]

SOLVERS: Mapping[str, str] = {
    "highs": "ets.solvers.highs:HighsSolver",
    "pulp": "ets.solvers.paper:PulpSolver",
    "tree": "ets.solvers.tree:TreeSolver",
}
"""Module and class of each."""


def make_solver(name: str, max_seconds: float = DEFAULT_SECONDS) -> Solver:
    """A solver by name.

    Args:
        name: highs, pulp, or tree.
        max_seconds: limit of one solve; tree has none.

    Raises:
        ConfigError: unknown, or its package is not installed, or the limit is not a positive number.
    """
    target = pick("solver", name, SOLVERS)
    if not 0 < max_seconds < float("inf"):
        raise ConfigError(f"solver_seconds must be a positive number, not {max_seconds}")
    kind = load(target)
    solver: Solver = kind() if name == "tree" else kind(max_seconds)
    return solver
