"""Tree search for LLM reasoning: one loop, and parts to plug into it.

Names are loaded on first use, so that `import search` stays quick and imports no backend.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api import Failure, Search
    from search.config import SearchSettings
    from search.errors import ConfigError, DataError, EngineError, ScoringError, SearchError
    from search.results.result import Result, Trajectory
    from search.tree import SearchTree
    from search.types import Problem

_HOMES = {
    "ConfigError": "search.errors",
    "DataError": "search.errors",
    "EngineError": "search.errors",
    "Failure": "search.api",
    "Problem": "search.types",
    "Result": "search.results.result",
    "ScoringError": "search.errors",
    "Search": "search.api",
    "SearchError": "search.errors",
    "SearchSettings": "search.config",
    "SearchTree": "search.tree",
    "Trajectory": "search.results.result",
}

__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "Failure",
    "Problem",
    "Result",
    "ScoringError",
    "Search",
    "SearchError",
    "SearchSettings",
    "SearchTree",
    "Trajectory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
