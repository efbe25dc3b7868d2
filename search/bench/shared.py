"""What measurements of searches share: models loaded once, and one search over the same problems for each setting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.api import Failure, Search
from search.config import SearchSettings, build
from search.engines.local import LocalEngine
from search.evaluation import sum_stats
from search.protocols import Engine
from search.registry import model_path
from search.result import Result
from search.statistics import wilson_interval
from search.types import Problem

CONCURRENCY = 16
"""Problems side by side; no result depends on it."""


@dataclass(frozen=True, slots=True)
class Models:
    """A policy and a reward model on engines that several searches use in turn."""

    policy: Engine
    prm: Engine

    @classmethod
    def mini(cls, weights: Path | None = None) -> Models:
        """The mini family's target and reward model: the shipped ones, or those of a folder."""
        paths = [model_path(f"mini:{name}") if weights is None else str(weights / name) for name in ("target", "prm")]
        return cls(*(LocalEngine.load(path) for path in paths))


@dataclass(frozen=True, slots=True)
class Measured:
    """One setting over all problems.

    Attributes:
        results: in the order of the problems.
        seconds: wall seconds of the whole.
    """

    results: tuple[Result, ...]
    seconds: float

    @property
    def right(self) -> list[float]:
        """1 for a right answer, else 0, in the order of the problems."""
        return [float(result.correct is True) for result in self.results]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.results)

    def row(self) -> dict[str, Any]:
        """A row of a table: accuracy with its 95% interval, and the summed costs."""
        low, high = wilson_interval(round(sum(self.right)), len(self.results))
        return {
            "method": self.results[0].method,
            "width": self.results[0].width,
            "accuracy": self.accuracy,
            "accuracy_lo": low,
            "accuracy_hi": high,
            "seconds_wall": self.seconds,
            **sum_stats(result.stats for result in self.results),
        }


def measure(models: Models, problems: Sequence[Problem], **settings: Any) -> Measured:
    """Search all problems under `settings` (fields of `SearchSettings`).

    Raises:
        SearchError: whatever a problem's search raised; a measurement with holes is none.
    """
    search = Search(settings=build(SearchSettings, settings))
    search.use(models.policy, None if search.settings.prm == "none" else models.prm)

    async def solve() -> tuple[Result, ...]:
        results: dict[str, Result] = {}
        async for item in search.asolve_many(problems, CONCURRENCY):
            if isinstance(item, Failure):
                raise item.error
            results[item.problem.id] = item
        return tuple(results[problem.id] for problem in problems)

    start = time.perf_counter()
    results = asyncio.run(solve())
    return Measured(results, time.perf_counter() - start)
