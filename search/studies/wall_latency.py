"""`ets bench latency --policy PATH`: wall seconds of searches level by level, written ahead, and on a rolling frontier.

One model, in this process or on servers, searches each problem alone in one way after the other, so that a machine
that drifts, or that others use, changes neighbours alike. Steps are scored by their own log-probabilities
(`prm.confidence`), which takes no time: what is measured is the writing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from search.api import Search
from search.config import SearchSettings, build
from search.errors import SearchError
from search.protocols import Engine
from search.results.result import Result
from search.runs.evaluation import flush_caches
from search.studies.measured import nodes_of, spread
from search.types import Problem

MAX_TOKENS = 200
"""Of a trajectory, so that one problem takes a CPU less than a minute."""


def measure(
    settings: Mapping[str, Any],
    modes: Mapping[str, dict[str, Any]],
    problems: Sequence[Problem],
    widths: Sequence[int],
    methods: Sequence[str],
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        settings: which model, in what precision and on which engine.
        modes: ways to spend the time, as settings by name; "level" is what the others are compared with.
        problems: to search, each alone.
        widths: of the searches.
        methods: to search with.
        repeats: of everything; each has seeds of its own.
        seed: of the first repeat.

    Returns:
        What the engine is, and `figures`, for each width W: `wall_MODE_W`, seconds of a problem, median of the repeats;
        `wall_speedup_MODE_W`, seconds level by level over the mode's, median of the repeats, with `_min` and `_max`;
        `tokens_MODE_W`, tokens of a tree; `thrown_per_kept_W`, tokens written ahead in vain for each token of the tree;
        `equal_speculate_W`, the part of the trees that writing ahead left as they are: 1 where seeds are exact and no
        rounding depends on the batch, as in float32. Other methods than ets have their name as a suffix.

    Raises:
        ConfigError: the model cannot be loaded, or is not served there.
        SearchError: a search could not be run: a measurement with holes is none.
    """

    async def measured() -> dict[str, Any]:
        figures: dict[str, float] = {}
        async with _search(settings, {"width": 1, "method": "greedy"}, None) as first:
            engine = first.engines["policy"]
            await _solve(first, problems[0], seed)
            for width in widths:
                for method in methods:
                    chosen = {"width": width, "method": method}
                    searches = {name: _search(settings, chosen | mode, engine) for name, mode in modes.items()}
                    ran = [await _repeat(searches, problems, seed + number) for number in range(repeats)]
                    figures |= _figures(ran, f"_{width}" + ("" if method == "ets" else f"_{method.replace('-', '_')}"))
            return {"model": engine.info.model, "engine": asdict(engine.info), "repeats": repeats, "figures": figures}

    return asyncio.run(measured())


def _search(settings: Mapping[str, Any], others: Mapping[str, Any], engine: Engine | None) -> Search:
    fixed = {"prm": "confidence:mean-logprob", "until": "spent", "max_tokens": MAX_TOKENS}
    search = Search(settings=build(SearchSettings, {**fixed, **settings, **others}))
    if engine is not None:
        search.use(engine, None)
    return search


async def _repeat(searches: Mapping[str, Search], problems: Sequence[Problem], seed: int) -> dict[str, list[Result]]:
    """Each problem in each way; which comes first changes from problem to problem."""
    ran: defaultdict[str, list[Result]] = defaultdict(list)
    names = list(searches)
    for number, problem in enumerate(problems):
        at = (number + seed) % len(names)
        for name in names[at:] + names[:at]:
            ran[name].append(result := await _solve(searches[name], problem, seed))
            sys.stderr.write(f"latency: problem {problem.id} {name}: {result.stats.seconds:.2f} s\n")
    return ran


async def _solve(search: Search, problem: Problem, seed: int) -> Result:
    await flush_caches(search)  # a server would know the same texts from the way before
    result = await search.asolve(problem, seed=seed)
    if result.error is not None:
        raise SearchError(f"problem {problem.id}: {result.error}")
    return result


def _figures(ran: Sequence[Mapping[str, list[Result]]], suffix: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in ran[0]:
        seconds = [fmean([one.stats.seconds for one in every[name]]) for every in ran]
        figures[f"wall_{name}{suffix}"] = median(seconds)
        figures[f"tokens_{name}{suffix}"] = fmean(
            [one.stats.policy_tokens or 0 for every in ran for one in every[name]]
        )
        if name != "level":
            levels = [fmean([one.stats.seconds for one in every["level"]]) for every in ran]
            ratios = [level / own for level, own in zip(levels, seconds, strict=True)]
            figures |= spread(f"wall_speedup_{name}{suffix}", ratios)
    pairs = [pair for every in ran for pair in zip(every["level"], every["speculate"], strict=True)]
    figures[f"equal_speculate{suffix}"] = fmean([float(nodes_of(one) == nodes_of(other)) for one, other in pairs])
    thrown, kept = (
        sum(int(getattr(other.stats, name)) for _, other in pairs) for name in ("tokens_thrown", "policy_tokens")
    )
    figures[f"thrown_per_kept{suffix}"] = thrown / kept
    return figures
