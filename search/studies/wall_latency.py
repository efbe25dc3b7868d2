"""`ets bench latency --policy PATH`: wall seconds of searches level by level, written ahead, and on a rolling frontier.

One model, in this process or on servers, searches each problem alone in one way after the other, so that a machine
that drifts, or that others use, changes neighbours alike. Steps are scored by their own log-probabilities
(`prm.confidence`), which takes no time: what is measured is the writing. In this process `transformers.generate` then
writes as many tokens as each level of the tree has, from the same prefixes, in one padded batch a level.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import truediv
from statistics import fmean, median
from typing import Any

from search.api import Search
from search.config import SearchSettings, build
from search.errors import SearchError
from search.protocols import Engine
from search.results.result import Result
from search.runs.evaluation import flush_caches
from search.setup.registry import model_path
from search.studies.engine import Baseline
from search.studies.measured import nodes_of, spread, suffix
from search.tree import Node, SearchTree
from search.types import ROOT, Problem

MAX_TOKENS = 200
"""Of a trajectory, so that one problem takes a CPU less than a minute."""


@dataclass(slots=True)
class _Ran:
    """One repeat.

    Attributes:
        results: of all problems by the way they were searched.
        seconds_generate: `transformers.generate`'s on the trees of level by level; none on a server.
    """

    results: dict[str, list[Result]]
    seconds_generate: list[float]


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
        rounding depends on the batch, as in float32. In this process also `vs_generate_level_W` and
        `vs_generate_speculate_W`, with `_min` and `_max`: seconds of `transformers.generate` on the same schedule,
        over those of the search. Other methods than ets have their name as a suffix.

    Raises:
        ConfigError: the model cannot be loaded, or is not served there.
        SearchError: a search could not be run: a measurement with holes is none.
    """

    async def measured() -> dict[str, Any]:
        figures: dict[str, float] = {}
        async with _search(settings, {"width": 1, "method": "greedy"}, None) as first:
            engine = first.engines["policy"]
            await _solve(first, problems[0], seed)
            baseline = _baseline(first.settings) if engine.info.name == "local" else None
            for width in widths:
                for method in methods:
                    chosen = {"width": width, "method": method}
                    searches = {name: _search(settings, chosen | mode, engine) for name, mode in modes.items()}
                    ran = [await _repeat(searches, baseline, problems, seed + number) for number in range(repeats)]
                    figures |= _figures(ran, f"_{width}{suffix(method)}")
            return {"model": engine.info.model, "engine": asdict(engine.info), "repeats": repeats, "figures": figures}

    return asyncio.run(measured())


def _search(settings: Mapping[str, Any], others: Mapping[str, Any], engine: Engine | None) -> Search:
    fixed = {"prm": "confidence:mean-logprob", "until": "spent", "max_tokens": MAX_TOKENS}
    search = Search(settings=build(SearchSettings, {**fixed, **settings, **others}))
    if engine is not None:
        search.use(engine, None)
    return search


def _baseline(settings: SearchSettings) -> Baseline:
    import torch

    return Baseline(model_path(settings.policy), settings.dtype, num_threads=torch.get_num_threads())


async def _repeat(
    searches: Mapping[str, Search], baseline: Baseline | None, problems: Sequence[Problem], seed: int
) -> _Ran:
    """Each problem in each way; which comes first changes from problem to problem."""
    ran = _Ran(defaultdict(list), [])
    names = list(searches)
    for number, problem in enumerate(problems):
        at = (number + seed) % len(names)
        for name in names[at:] + names[:at]:
            ran.results[name].append(result := await _solve(searches[name], problem, seed))
            sys.stderr.write(f"latency: problem {problem.id} {name}: {result.stats.seconds:.2f} s\n")
        if baseline is not None:
            ran.seconds_generate.append(_seconds_generate(baseline, ran.results["level"][-1].tree, seed))
            sys.stderr.write(f"latency: problem {problem.id} generate: {ran.seconds_generate[-1]:.2f} s\n")
    return ran


def _seconds_generate(baseline: Baseline, tree: SearchTree, seed: int) -> float:
    """Writing a tree's steps level by level, each level in one padded batch to its longest step's end."""
    levels: defaultdict[int, list[Node]] = defaultdict(list)
    for node in tree:
        if node.id != ROOT and node.ids:
            levels[node.depth].append(node)
    start = time.perf_counter()
    for nodes in levels.values():
        prefixes = [tuple(i for step in tree.path(node.id)[:-1] for i in step.ids) for node in nodes]
        baseline.generate(prefixes, max(len(node.ids) for node in nodes), seed)
    return time.perf_counter() - start


async def _solve(search: Search, problem: Problem, seed: int) -> Result:
    await flush_caches(search)  # a server would know the same texts from the way before
    result = await search.asolve(problem, seed=seed)
    if result.error is not None:
        raise SearchError(f"problem {problem.id}: {result.error}")
    return result


def _figures(repeats: Sequence[_Ran], ending: str) -> dict[str, float]:
    figures: dict[str, float] = {}
    seconds = {
        name: [fmean([result.stats.seconds for result in ran.results[name]]) for ran in repeats]
        for name in repeats[0].results
    }
    for name in seconds:
        figures[f"wall_{name}{ending}"] = median(seconds[name])
        figures[f"tokens_{name}{ending}"] = fmean(
            [result.stats.policy_tokens or 0 for ran in repeats for result in ran.results[name]]
        )
        if name != "level":
            figures |= spread(f"wall_speedup_{name}{ending}", [*map(truediv, seconds["level"], seconds[name])])
    if repeats[0].seconds_generate:
        generate = [fmean(ran.seconds_generate) for ran in repeats]
        for name in ("level", "speculate"):
            figures |= spread(f"vs_generate_{name}{ending}", [*map(truediv, generate, seconds[name])])
    pairs = [pair for ran in repeats for pair in zip(ran.results["level"], ran.results["speculate"], strict=True)]
    figures[f"equal_speculate{ending}"] = fmean([float(nodes_of(level) == nodes_of(ahead)) for level, ahead in pairs])
    thrown, kept = (
        sum(int(getattr(other.stats, name)) for _, other in pairs) for name in ("tokens_thrown", "policy_tokens")
    )
    figures[f"thrown_per_kept{ending}"] = thrown / kept
    return figures
