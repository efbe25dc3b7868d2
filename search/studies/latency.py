"""`ets bench latency`: token steps, one after the other, until a search has its answer, in virtual time.

One token of every row is a tick, so a latency is a number of token steps: exact, repeatable, and the same on a busy
machine. What is written comes from the mini family, or from recorded solutions; scoring and selecting take no time. A
problem is searched alone, with as many rows as it likes; or 16 problems are searched together at 64 rows. With a model
it is wall seconds instead (`search.studies.wall_latency`).
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from search.api import Search
from search.engines.virtual_time import VirtualClock
from search.errors import ConfigError
from search.loop.driver import SearchOutcome
from search.problems.data import load_problems
from search.results.result import Result
from search.studies.measured import InVirtualTime, clock_of, nodes_of, solve_alone, suffix
from search.studies.recorded import RecordedEngine, RecordedScorer, Recording
from search.studies.wall_latency import measure
from search.support.statistics import paired_estimate
from search.types import Problem

WIDTHS = (4, 16, 64)
NUM_TOGETHER, CAPACITY = 16, 64
"""Problems that are searched together, and the rows that advance in a tick of theirs."""

MODES: Mapping[str, dict[str, Any]] = {"level": {}, "speculate": {"speculate": 1.0}, "rolling": {"frontier": "rolling"}}
"""Settings of each way to spend the time."""


@dataclass(slots=True)
class _Ran:
    """One way of searching, over all problems.

    Attributes:
        ticks: of each problem that was searched alone, or of all problems that were searched together.
        least: the ticks that no schedule of the same trees could do without: the tokens of the longest path, and at a
            capacity all tokens over it.
        done: what came out, problem by problem.
    """

    ticks: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)
    done: list[Result | SearchOutcome] = field(default_factory=list)


class _Source:
    """Where steps come from: models, or a recording."""

    def __init__(self, data: str, limit: int) -> None:
        self.recording = None if data.startswith("mini:") else Recording(Path(data))
        if self.recording is None:
            self.steps, self.problems = InVirtualTime.mini(), load_problems(data, limit)
        else:
            self.steps = InVirtualTime(RecordedEngine(self.recording), RecordedScorer(self.recording), prompt="plain")
            self.problems = self.recording.problems(limit)

    async def solve(self, search: Search, problem: Problem) -> Result | SearchOutcome:
        """Search a problem."""
        if self.recording is not None:
            return await search.driver.solve(problem, self.recording.prompts[problem.id])
        return await search.asolve(problem)


def run(
    limit: int | None = None,
    seed: int = 0,
    data: str = "mini:test",
    widths: Sequence[int] | None = None,
    methods: Sequence[str] = ("ets",),
    policy: str | None = None,
    dtype: str | None = None,
    engine: str | None = None,
    repeats: int | None = None,
) -> dict[str, Any]:
    """Measure.

    Args:
        limit: problems; together they run in whole groups of 16. Default 32, of a model 4.
        seed: of all searches.
        data: `mini:SPLIT`, searched by the mini family, or a file of recorded solutions (`search.studies.recorded`);
            for a model any problems.
        widths: of the searches; default 4, 16 and 64, of a model 16.
        methods: to search with.
        policy: a model by path or hub id, whose wall seconds are measured, as `search.studies.wall_latency` says; None
            for token steps of `data`.
        dtype: of that model; default float32.
        engine: where it runs, as in the settings; default in this process.
        repeats: of its searches; default 3.

    Returns:
        `figures`, for each width W. `steps_level_W`, `steps_speculate_W`, `steps_rolling_W`: token steps of a problem,
        searched level by level, the same with steps written ahead, and on a rolling frontier; means over problems, each
        alone. `steps_longest_W`: the tokens of the longest path of its tree, level by level: what no schedule of that
        tree can do without. `speedup_speculate_W`, `speedup_rolling_W`: token steps level by level, over theirs.
        `thrown_share_W`: of all tokens that were written, the part written ahead in vain; `thrown_per_kept_W`: for each
        token of the tree; `equal_speculate_W`: the part of the trees that speculation left as they are, to be 1.
        `tokens_MODE_W`, `kv_tokens_MODE_W`, `finished_MODE_W`: tokens written, KV tokens kept, and finished
        trajectories of a problem. On the mini family also `accuracy_MODE_W`, and `accuracy_diff_rolling_W`, with `_lo`
        and `_hi`, the rolling frontier's accuracy less that of levels. The same with `_together` of 16 problems at once
        on 64 rows, where steps are those until all are done, and the least is what 64 rows could do at best. Other
        methods than ets have their name as a suffix. For a model: as `search.studies.wall_latency.measure`.

    Raises:
        ConfigError: a setting of a model without one, or a model that cannot be used.
    """
    if policy is not None:
        problems = load_problems(data, limit or 4)
        named = {"policy": policy, "dtype": dtype, "engine": engine}
        given = {name: value for name, value in named.items() if value is not None}
        measured = measure(given, MODES, problems, widths or (16,), methods, repeats or 3, seed)
        return {"data": data, "num_problems": len(problems), "seed": seed, **measured}
    for name, value in (("dtype", dtype), ("engine", engine), ("repeats", repeats)):
        if value is not None:
            raise ConfigError(f"bench latency: {name} goes with a model, --policy; token steps have none")
    figures: dict[str, float] = {}
    source = _Source(data, limit or 32)
    try:
        for width in widths or WIDTHS:
            for method in methods:
                settings = {"until": "spent", "width": width, "seed": seed, "method": method}
                ending = f"_{width}{suffix(method)}"
                alone = _in_each_mode(_alone, source, settings)
                figures |= _figures(alone, ending) | _accuracy(alone, ending)
                together = _in_each_mode(_together, source, settings)
                figures |= _figures(together, f"{ending}_together")
                shown = [f"{key} {value:.4g}" for key, value in figures.items() if ending in key]
                sys.stderr.write(f"latency: {', '.join(shown)}\n")
    finally:
        source.steps.close()
    return {"data": data, "num_problems": len(source.problems), "seed": seed, "figures": figures}


def _in_each_mode(
    run: Callable[[_Source, dict[str, Any]], _Ran], source: _Source, settings: dict[str, Any]
) -> dict[str, _Ran]:
    """The same searches in each of `MODES`, with a line for each, as one takes minutes."""
    ran = {}
    for name, mode in MODES.items():
        ran[name] = run(source, settings | mode)
        which = f"{settings['method']} {settings['width']} {name} {run.__name__.strip('_')}"
        sys.stderr.write(f"latency: {which}: {len(ran[name].done)} problems searched\n")
    return ran


def _alone(source: _Source, settings: dict[str, Any]) -> _Ran:
    """Every problem by itself, with as many rows as it likes."""

    def begin(clock: VirtualClock) -> Callable[[Problem], Awaitable[Result | SearchOutcome]]:
        search = source.steps.search(clock, settings)
        return lambda problem: source.solve(search, problem)

    solved = solve_alone(source.problems, begin)
    done = [outcome for outcome, _ in solved]
    return _Ran([ticks for _, ticks in solved], [*map(_longest, done)], done)


def _together(source: _Source, settings: dict[str, Any]) -> _Ran:
    """Problems side by side, in groups, on limited rows; what is left over is left out."""
    ran = _Ran()
    for first in range(0, len(source.problems) - NUM_TOGETHER + 1, NUM_TOGETHER):
        group = source.problems[first : first + NUM_TOGETHER]
        with asyncio.Runner(loop_factory=VirtualClock) as runner:
            clock = clock_of(runner)
            search = source.steps.search(clock, settings, CAPACITY)

            async def all_of(search: Search = search, group: Sequence[Problem] = group) -> list[Result | SearchOutcome]:
                return await asyncio.gather(*(source.solve(search, problem) for problem in group))

            done = runner.run(all_of())
            ran.ticks.append(clock.time())
            num_tokens = sum(map(_tokens, done))
            ran.least.append(max(math.ceil(num_tokens / CAPACITY), *(_longest(outcome) for outcome in done)))
            ran.done += done
    return ran


def _longest(done: Result | SearchOutcome) -> int:
    """Tokens of a tree's longest path, the prompt not counted."""
    return max(node.num_path_tokens for node in done.tree) - done.tree.root.num_path_tokens


def _figures(ran: dict[str, _Ran], ending: str) -> dict[str, float]:
    level = ran["level"]
    if not level.ticks:
        return {}
    figures = {f"steps_longest{ending}": fmean(level.least)}
    for name, mode in ran.items():
        figures[f"steps_{name}{ending}"] = fmean(mode.ticks)
        if name != "level":
            figures[f"speedup_{name}{ending}"] = sum(level.ticks) / sum(mode.ticks)
        stats = [done.stats for done in mode.done]
        figures[f"tokens_{name}{ending}"] = fmean([each.policy_tokens or 0 for each in stats])
        figures[f"kv_tokens_{name}{ending}"] = fmean([each.kv_tokens_mean or 0.0 for each in stats])
        figures[f"finished_{name}{ending}"] = fmean([each.num_finished for each in stats])
    thrown, kept = (sum(done.stats.tokens_thrown for done in ran["speculate"].done), sum(map(_tokens, level.done)))
    figures[f"thrown_share{ending}"] = thrown / (thrown + kept)
    figures[f"thrown_per_kept{ending}"] = thrown / kept
    same = [
        nodes_of(first, exact=True) == nodes_of(second, exact=True)
        for first, second in zip(level.done, ran["speculate"].done, strict=True)
    ]
    figures[f"equal_speculate{ending}"] = sum(same) / len(same)
    return figures


def _tokens(done: Result | SearchOutcome) -> int:
    return done.stats.policy_tokens or 0


def _accuracy(ran: dict[str, _Ran], ending: str) -> dict[str, float]:
    """How often the answer is right, where answers mean something, and what the rolling frontier changes of it."""
    right = {
        name: [float(done.correct is True) for done in mode.done if isinstance(done, Result)]
        for name, mode in ran.items()
    }
    if not right["level"]:
        return {}
    figures = {f"accuracy_{name}{ending}": fmean(values) for name, values in right.items()}
    return figures | paired_estimate(right["rolling"], right["level"]).figures(f"accuracy_diff_rolling{ending}")
