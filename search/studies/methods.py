"""ETS against REBASE and the other searches: accuracy, KV cache and speed, paired over the mini test problems."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from search.api import Search
from search.problems.data import load_problems
from search.results.result import Result
from search.studies.measured import Measured, Models, paired_difference, suffix, take_turns
from search.tree import SearchTree
from search.types import NodeId

BASELINE = "rebase"
METHODS = (BASELINE, "beam", "dvts", "ets-kv", "ets-paper", "ets")
WIDTHS = (16, 64)
CHUNK = 32
"""Problems that one method solves before the next one has its turn, so that all see the same machine."""

POOL_WIDTH = 64
POOL_SEARCHES = 2.0
"""The fixed pool holds this many of REBASE's peaks, for `CONCURRENCY` searches side by side."""


def run(
    limit: int = 200,
    seed: int = 0,
    data: str = "mini:test",
    widths: Sequence[int] = WIDTHS,
    embedder: str = "tfidf",
    methods: Sequence[str] = METHODS,
    pool_limit: int = 64,
) -> dict[str, Any]:
    """Run every method on the same problems and seeds, in turns of `CHUNK` problems.

    Args:
        limit: problems.
        seed: of all runs.
        data: the problems' source.
        widths: to go through.
        embedder: of ETS, as in the settings.
        methods: which of `METHODS`; REBASE is needed.
        pool_limit: problems that ETS, ETS-KV and REBASE also solve under a fixed KV pool; 0 for none.

    Returns:
        `figures`: `accuracy_W_METHOD`; for ETS against REBASE at width W `kv_ratio_W` (REBASE's `kv_tokens`, mean over
        steps and summed over problems, over ETS's), `kv_ratio_radix_W` (the same with siblings of equal ids counted
        once, as a radix cache holds them), `accuracy_diff_W` with `_lo` and `_hi` (paired 95% interval over problems),
        `speedup_W` (problems per second), `select_share_W` (the selection's part of the wall time), and
        `pool_speedup_64` (problems per second where the KV pool holds two of REBASE's peaks); the same of every other
        method with its name as a suffix, e.g. `kv_ratio_64_ets_kv`; `coverage_gain_W` with `_lo` and `_hi`: ETS's
        accuracy less ETS-KV's. `rows`: the table, with what the engine's pool really held.
    """
    problems = load_problems(data, limit)
    models = Models.mini()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float | int] = {}

    def searches(width: int, names: Sequence[str], on: Models) -> dict[str, Search]:
        common = {"width": width, "seed": seed, "embedder": embedder}
        return {name: on.search(method=name, **common) for name in names}

    for width in widths:
        outcomes = asyncio.run(take_turns(searches(width, methods, models), problems, CHUNK, sys.stderr.write))
        figures |= _compare(outcomes, width)
        rows += [outcome.row() | {"method": name} for name, outcome in outcomes.items()]
        pooled_names = [name for name in methods if name in (BASELINE, "ets", "ets-kv")]
        if pool_limit and width == POOL_WIDTH and len(pooled_names) > 1:
            peak = max(1, round(POOL_SEARCHES * outcomes[BASELINE].row()["kv_tokens_engine_peak"]))
            tight = Models.mini(max_kv_tokens=peak)
            pooled = asyncio.run(
                take_turns(searches(width, pooled_names, tight), problems[:pool_limit], CHUNK, sys.stderr.write)
            )
            for name in pooled_names[1:]:
                ratio = pooled[name].problems_per_second / pooled[BASELINE].problems_per_second
                figures[f"pool_speedup_{width}{suffix(name)}"] = ratio
            figures["pool_kv_tokens"] = peak
            rows += [outcome.row() | {"method": name, "max_kv_tokens": peak} for name, outcome in pooled.items()]
    return {
        "data": data,
        "num_problems": len(problems),
        "pool_limit": pool_limit,
        "seed": seed,
        "embedder": embedder,
        "figures": figures,
        "rows": rows,
    }


def _compare(outcomes: Mapping[str, Measured], width: int) -> dict[str, float | int]:
    base = outcomes[BASELINE]
    figures: dict[str, float | int] = {}
    for name, measured in outcomes.items():
        figures[f"accuracy_{width}_{name.replace('-', '_')}"] = measured.accuracy
        selecting = sum(result.stats.seconds_select for result in measured.results)
        figures[f"select_share_{width}{suffix(name)}"] = selecting / measured.seconds
        if measured is base:
            continue
        figures[f"kv_ratio_{width}{suffix(name)}"] = base.kv_tokens / measured.kv_tokens
        figures[f"kv_ratio_radix_{width}{suffix(name)}"] = _kv_tokens_radix(base) / _kv_tokens_radix(measured)
        figures[f"speedup_{width}{suffix(name)}"] = measured.problems_per_second / base.problems_per_second
        figures |= paired_difference(measured, base).figures(f"accuracy_diff_{width}", suffix(name))
    if {"ets", "ets-kv"} <= outcomes.keys():
        figures |= paired_difference(outcomes["ets"], outcomes["ets-kv"]).figures(f"coverage_gain_{width}")
    return figures


def _kv_tokens_radix(measured: Measured) -> float:
    """As `Measured.kv_tokens`, with siblings of equal ids counted once."""
    return sum(radix_tokens_mean(result) for result in measured.results)


def radix_tokens_mean(result: Result) -> float:
    """Tokens that a radix cache holds for the trajectories kept after a selection, mean over the selections."""
    if not result.selections:
        return 0.0
    return sum(_radix_tokens(result.tree, selected.kept) for selected in result.selections) / len(result.selections)


def _radix_tokens(tree: SearchTree, leaves: Sequence[NodeId]) -> int:
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    number_of: dict[NodeId | None, int] = {None: -1}
    for node in sorted(tree.union(leaves)):
        number_of[node] = numbers.setdefault((number_of[tree[node].parent], tree[node].ids), len(numbers))
    return sum(len(ids) for _, ids in numbers)
