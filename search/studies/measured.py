"""What measurements of searches share: models loaded once, and one search over the same problems for each setting."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from search.api import Failure, Search
from search.config import SearchSettings, build
from search.engines.local import LocalEngine
from search.engines.virtual import Recall, VirtualEngine
from search.engines.virtual_time import VirtualClock
from search.loop.outcome import SearchOutcome
from search.protocols import Engine, Scorer
from search.results.result import Result
from search.runs.summary import sum_stats
from search.setup.registry import model_path
from search.support.statistics import Estimate, paired_estimate, wilson_interval
from search.types import Problem

T = TypeVar("T")

CONCURRENCY = 16
"""Problems side by side; no result depends on it."""

BATCH = 64
"""The same in virtual time, where each problem has a machine of its own."""


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
        turns: wall seconds of each addition.
    """

    results: list[Result] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)

    async def add(self, search: Search, problems: Sequence[Problem], concurrency: int = CONCURRENCY) -> None:
        """Search more problems, `concurrency` side by side.

        Raises:
            SearchError: whatever a problem's search raised; a measurement with holes is none.
        """
        results: dict[str, Result] = {}
        start = time.perf_counter()
        async for item in search.asolve_many(problems, concurrency):
            if isinstance(item, Failure):
                raise item.error
            results[item.problem.id] = item
        self.turns.append(time.perf_counter() - start)
        self.results += [results[problem.id] for problem in problems]

    @property
    def seconds(self) -> float:
        """Wall seconds of all problems."""
        return sum(self.turns)

    @property
    def right(self) -> list[float]:
        """1 for a right answer, else 0, in the order of the problems."""
        return [float(result.correct is True) for result in self.results]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(self.right) / len(self.results)

    @property
    def kv_tokens(self) -> float:
        """`kv_tokens`, mean over steps, summed over problems."""
        return sum(result.stats.kv_tokens_mean or 0.0 for result in self.results)

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


async def take_turns(
    searches: Mapping[str, Search],
    problems: Sequence[Problem],
    chunk: int,
    say: Callable[[str], object] = lambda _: None,
    concurrency: int = CONCURRENCY,
) -> dict[str, Measured]:
    """Each search in turn, some problems at a time, so that all see the same machine; who goes first changes.

    Args:
        searches: by name; the first call of each is not counted.
        problems: for all of them.
        chunk: problems of a turn.
        say: told after each turn how far it is.
        concurrency: problems side by side, at most.
    """
    measured, names = {name: Measured() for name in searches}, list(searches)
    for search in searches.values():
        await search.asolve(problems[0])
    for turn, start in enumerate(range(0, len(problems), chunk)):
        part = problems[start : start + chunk]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            await measured[name].add(searches[name], part, concurrency)
        notes = [f"{name} {so_far.accuracy:.3f} {so_far.seconds:.0f} s" for name, so_far in measured.items()]
        say(f"{start + len(part)} of {len(problems)}: {', '.join(notes)}\n")
    return measured


class InVirtualTime:
    """Engines whose steps take ticks; who asks the same is told the same."""

    def __init__(self, policy: Engine, scorer: Engine | Scorer | None, **fixed: Any) -> None:
        """Search on these.

        Args:
            policy: writes.
            scorer: a reward model, whose reads take ticks too; or what scores in no time, or None.
            fixed: fields of `SearchSettings` that every search has.
        """
        self._policy, self._fixed = Recall(policy), fixed
        self._scorer = Recall(scorer) if isinstance(scorer, Engine) else scorer

    @classmethod
    def mini(cls) -> InVirtualTime:
        """The mini family's target and reward model."""
        models = Models.mini()
        return cls(models.policy, models.prm)

    def search(self, clock: VirtualClock, settings: Mapping[str, Any], capacity: int | None = None) -> Search:
        """A search on this clock, under fields of `SearchSettings`; `capacity` is of the policy's rows."""
        policy, values = VirtualEngine(clock, self._policy, capacity), {**self._fixed, **settings}
        if not isinstance(self._scorer, Recall):
            return Search(policy, self._scorer, **values)
        search = Search(settings=build(SearchSettings, values))
        search.use(policy, VirtualEngine(clock, self._scorer))
        return search

    def close(self) -> None:
        """Let go of them."""
        for engine in (self._policy, self._scorer):
            if isinstance(engine, Recall):
                engine.close()


def solve_alone(
    problems: Sequence[Problem], begin: Callable[[VirtualClock], Callable[[Problem], Awaitable[T]]]
) -> list[tuple[T, float]]:
    """Search every problem in virtual time, each on a machine of its own.

    Args:
        problems: computed some side by side, which changes nothing.
        begin: from a clock to what solves a problem on it.

    Returns:
        Of each problem, in order, what came of it, and how many ticks it took.
    """
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        clock = clock_of(runner)
        solve = begin(clock)

        async def timed(problem: Problem) -> tuple[T, float]:
            start = clock.time()
            return await solve(problem), clock.time() - start

        async def all_of(part: Sequence[Problem]) -> list[tuple[T, float]]:
            return await asyncio.gather(*map(timed, part))

        parts = (problems[first : first + BATCH] for first in range(0, len(problems), BATCH))
        return [solved for part in parts for solved in runner.run(all_of(part))]


def clock_of(runner: asyncio.Runner) -> VirtualClock:
    """The clock of a runner whose loop is one."""
    clock = runner.get_loop()
    assert isinstance(clock, VirtualClock)
    return clock


def suffix(method: str, plain: str = "ets") -> str:
    """What a method's figures end with: nothing for the plain one of a bench, else its name."""
    return "" if method == plain else f"_{method.replace('-', '_')}"


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """The median of repeated measurements under a name, the least and the greatest with `_min` and `_max`."""
    return {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def paired_difference(ours: Measured, theirs: Measured) -> Estimate:
    """Accuracy of `one` less that of `other` on the same problems."""
    return paired_estimate(ours.right, theirs.right)


def nodes_of(result: Result | SearchOutcome, *, exact: bool = False) -> list[tuple[object, ...]]:
    """What makes two trees equal: every node's place, ids, writer and fate; if `exact`, its reward and reason too.

    Rewards may differ by a rounding where they depend on what else is in a batch.
    """
    return [
        (node.parent, node.ids, node.writer, node.status, *((node.reward, node.reason) if exact else ()))
        for node in result.tree
    ]
