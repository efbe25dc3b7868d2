"""Accuracy and cost of every search method over widths, on the mini family's test problems."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from search.api import Failure, Search
from search.config import SearchSettings, build
from search.data import load_problems
from search.engines.local import LocalEngine
from search.evaluation import sum_stats
from search.protocols import Engine
from search.registry import METHODS, model_path
from search.result import Result
from search.statistics import paired_bootstrap, wilson_interval
from search.types import Problem

WIDTHS = (1, 4, 16)
"""Widths of the table; greedy runs at 1 alone, which is what it stands for."""

CONCURRENCY = 16


def run(limit: int = 100, seed: int = 0, data: str = "mini:test", widths: Sequence[int] = WIDTHS) -> dict[str, Any]:
    """Run every method at every width on the same problems and seeds.

    Args:
        limit: problems.
        seed: of all runs.
        data: the problems' source.
        widths: to go through.

    Returns:
        `figures`: `accuracy_METHOD_W`, with hyphens in names as underscores, and for the gain from the least to the
        greatest width `gain_METHOD` with `_lo` and `_hi`, a paired 95% interval over problems; the work ratios
        `policy_work_METHOD_W` and `prm_work_METHOD_W` (computed over unique tokens), and `kv_peaks_equal`, 1 if the
        engine's peak was the ledger's own in every search. `rows`: the table with intervals and costs.
    """
    problems = load_problems(data, limit)
    policy = LocalEngine.load(model_path("mini:target"))
    prm = LocalEngine.load(model_path("mini:prm"))
    rows: list[dict[str, Any]] = []
    figures: dict[str, float | int] = {}
    peaks_equal = True
    for method in METHODS:
        right: dict[int, list[bool]] = {}
        for width in (1,) if method == "greedy" else widths:
            row, results = _measure(policy, prm, method, width, seed, problems)
            right[width] = [result.correct is True for result in results]
            peaks_equal &= all(r.stats.kv_tokens_engine_peak == r.stats.kv_tokens_ledger_peak for r in results)
            key = f"{method.replace('-', '_')}_{width}"
            figures[f"accuracy_{key}"] = row["accuracy"]
            figures[f"policy_work_{key}"] = row["computed_tokens"] / row["unique_tokens"]
            if row["prm_unique_tokens"]:
                figures[f"prm_work_{key}"] = row["prm_tokens"] / row["prm_unique_tokens"]
            rows.append(row)
            sys.stderr.write(f"{method} {width}: accuracy {row['accuracy']:.3f}, {row['seconds_wall']:.1f} s\n")
        if len(right) > 1:
            least, greatest = right[min(right)], right[max(right)]
            differences = [float(b) - float(a) for a, b in zip(least, greatest, strict=True)]
            low, high = paired_bootstrap(differences)
            name = method.replace("-", "_")
            figures[f"gain_{name}"] = sum(differences) / len(differences)
            figures[f"gain_{name}_lo"], figures[f"gain_{name}_hi"] = low, high
    figures["kv_peaks_equal"] = int(peaks_equal)
    return {
        "bench": "widths",
        "data": data,
        "num_problems": len(problems),
        "seed": seed,
        "figures": figures,
        "rows": rows,
    }


def _measure(
    policy: Engine, prm: Engine, method: str, width: int, seed: int, problems: Sequence[Problem]
) -> tuple[dict[str, Any], list[Result]]:
    values = {"method": method, "seed": seed} | ({} if method == "greedy" else {"width": width})
    search = Search(settings=build(SearchSettings, values))
    search.use(policy, None if search.settings.prm == "none" else prm)

    async def solve() -> list[Result]:
        results: dict[str, Result] = {}
        async for item in search.asolve_many(problems, CONCURRENCY):
            if isinstance(item, Failure):
                raise item.error
            results[item.problem.id] = item
        return [results[problem.id] for problem in problems]

    start = time.perf_counter()
    results = asyncio.run(solve())
    seconds = time.perf_counter() - start
    right = sum(result.correct is True for result in results)
    low, high = wilson_interval(right, len(results))
    row = {
        "method": method,
        "width": width,
        "accuracy": right / len(results),
        "accuracy_lo": low,
        "accuracy_hi": high,
        "seconds_wall": seconds,
        **sum_stats(result.stats for result in results),
    }
    return row, results
