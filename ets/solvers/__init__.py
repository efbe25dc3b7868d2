"""Solvers of the pruning program by name; one that is not asked for is not imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches

from ets.solvers.base import DEFAULT_SECONDS, Solver
from search.errors import ConfigError

__all__ = ["DEFAULT_SECONDS", "SOLVERS", "Solver", "make_solver"]

SOLVERS: Mapping[str, tuple[str, str]] = {
    "highs": ("ets.solvers.highs", "HighsSolver"),
    "pulp": ("ets.solvers.paper", "PulpSolver"),
    "tree": ("ets.solvers.tree", "TreeSolver"),
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
    if name not in SOLVERS:
        near = get_close_matches(name, SOLVERS, 1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"unknown solver {name!r}{guess}; known: {', '.join(SOLVERS)}")
    if not 0 < max_seconds < float("inf"):
        raise ConfigError(f"solver_seconds must be a positive number, not {max_seconds}")
    module, attribute = SOLVERS[name]
    kind = getattr(importlib.import_module(module), attribute)
    solver: Solver = kind() if name == "tree" else kind(max_seconds)
    return solver
