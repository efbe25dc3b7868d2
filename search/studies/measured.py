"""What measurements of searches share: models loaded once, and one search over the same problems for each setting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.api import Failure, Search
from search.config import SearchSettings, build
from search.engines.local import LocalEngine
from search.protocols import Engine
from search.registry import model_path
from search.result import Result
from search.statistics import paired_bootstrap, wilson_interval
from search.summary import sum_stats
from search.types import Problem

CONCURRENCY = 16
"""Problems side by side; no result depends on it."""


@dataclass(frozen=True, slots=True)
class Models:
    """A policy and a reward model on engines that several searches use in turn."""

    policy: Engine
    prm: Engine

    @classmethod
    def mini(cls, weights: Path | None = None, max_kv_tokens: int | None = None) -> Models:
        """The mini family's target and reward model: the shipped ones, or those of a folder.

        Args:
            weights: folder with `target` and `prm`.
            max_kv_tokens: KV slots of each engine; None for no limit.
        """
        paths = [model_path(f"mini:{name}") if weights is None else str(weights / name) for name in ("target", "prm")]
        return cls(*(LocalEngine.load(path, max_kv_tokens=max_kv_tokens) for path in paths))

    def search(self, **settings: Any) -> Search:
        """A search on these engines under `settings` (fields of `SearchSettings`) that spends all of its width."""
        search = Search(settings=build(SearchSettings, {"until": "spent", **settings}))
        search.use(self.policy, None if search.settings.prm == "none" else self.prm)
        return search


@dataclass(slots=True)
class Measured:
    """One setting over problems.

    Attributes:
        results: in the order of the problems.
        seconds: wall seconds of all of them.
    """

    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    async def add(self, search: Search, problems: Sequence[Problem]) -> None:
        """Search more problems, side by side.

        Raises:
            SearchError: whatever a problem's search raised; a measurement with holes is none.
        """
        results: dict[str, Result] = {}
        start = time.perf_counter()
        async for item in search.asolve_many(problems, CONCURRENCY):
            if isinstance(item, Failure):
                raise item.error
            results[item.problem.id] = item
        self.seconds += time.perf_counter() - start
        self.results += [results[problem.id] for problem in problems]

    @property
    def right(self) -> list[float]:
        """1 for a right answer, else 0, in the order of the problems."""
        return [float(result.correct is True) for result in self.results]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.results)

    @property
    def problems_per_second(self) -> float:
        """Throughput in wall time."""
        return len(self.results) / self.seconds

    def row(self) -> dict[str, Any]:
        """A row of a table: accuracy with its 95% interval, and the summed costs."""
        low, high = wilson_interval(round(sum(self.right)), len(self.results))
        return {
            "method": self.results[0].method,
            "width": self.results[0].width,
            "accuracy": self.accuracy,
            "accuracy_lo": low,
            "accuracy_hi": high,
            "problems_per_second": self.problems_per_second,
            "seconds_wall": self.seconds,
            "num_notes": sum(len(result.notes) for result in self.results),
            **sum_stats(result.stats for result in self.results),
        }


def measure(models: Models, problems: Sequence[Problem], **settings: Any) -> Measured:
    """Search all problems under `settings` (fields of `SearchSettings`)."""
    measured = Measured()
    asyncio.run(measured.add(models.search(**settings), problems))
    return measured


def paired_difference(one: Measured, other: Measured) -> tuple[float, float, float]:
    """Accuracy of `one` less that of `other` on the same problems, and its paired 95% interval."""
    differences = [a - b for a, b in zip(one.right, other.right, strict=True)]
    low, high = paired_bootstrap(differences)
    return sum(differences) / len(differences), low, high


def nodes_of(result: Result) -> list[tuple[object, ...]]:
    """What makes two trees equal: every node's place, ids, writer and fate."""
    return [(node.parent, node.ids, node.writer, node.status) for node in result.tree]
