"""ETS against REBASE and the other searches: accuracy, KV cache and speed, paired over the mini test problems."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ets import Ets, EtsKv
from ets.embedders import make_embedder
from search.api import Failure, Search
from search.config import Scalar
from search.data import load_problems
from search.engines.local import LocalEngine
from search.evaluation import sum_stats
from search.policies import Beam, Dvts, Rebase
from search.protocols import Engine, FeatureProvider, Policy
from search.registry import model_path, prm_config
from search.result import Result
from search.statistics import paired_bootstrap, wilson_interval
from search.types import Problem

BASELINE = "rebase"
METHODS: Mapping[str, Any] = {"rebase": Rebase, "beam": Beam, "dvts": Dvts, "ets-kv": EtsKv, "ets": Ets}
WIDTHS = (16, 64)
CONCURRENCY = 16

CHUNK = 32
"""Problems that one method solves before the next one has its turn, so that all see the same machine."""

POOL_WIDTH = 64
POOL_SEARCHES = 2.0
"""The fixed pool holds this many of REBASE's peaks, for `CONCURRENCY` searches side by side."""

Options = Mapping[str, Mapping[str, Scalar]]


@dataclass(slots=True)
class _Outcome:
    """What one method did at one width."""

    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> list[float]:
        return [float(result.correct is True) for result in self.results]

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.results)

    @property
    def kv_tokens(self) -> float:
        return sum(result.stats.kv_tokens_mean for result in self.results)

    @property
    def problems_per_second(self) -> float:
        return len(self.results) / self.seconds


def run(
    limit: int = 200,
    seed: int = 0,
    data: str = "mini:test",
    widths: Sequence[int] = WIDTHS,
    embedder: str = "tfidf",
    options: Options | None = None,
    methods: Sequence[str] = tuple(METHODS),
    pool: bool = True,
) -> dict[str, Any]:
    """Run every method on the same problems and seeds, in turns of `CHUNK` problems.

    Args:
        limit: problems.
        seed: of all runs.
        data: the problems' source.
        widths: to go through.
        embedder: of ETS, as for `ets.embedders.make_embedder`.
        options: options of a method's policy, by the method's name.
        methods: which of `METHODS`; REBASE is needed.
        pool: whether ETS, ETS-KV and REBASE also run under a fixed KV pool.

    Returns:
        `figures`: `accuracy_W_METHOD`; for ETS against REBASE at width W `kv_ratio_W` (REBASE's `kv_tokens`, mean over
        steps and summed over problems, over ETS's), `accuracy_diff_W` with `_lo` and `_hi` (paired 95% interval over
        problems), `speedup_W` (problems per second), `select_share_W` (the selection's part of the wall time), and
        `pool_speedup_64` (problems per second where the KV pool holds two of REBASE's peaks); the same of every other
        method with its name as a suffix, e.g. `kv_ratio_64_ets_kv`; `coverage_gain_W` with `_lo` and `_hi`: ETS's
        accuracy less ETS-KV's. `rows`: the table, with what the engine's pool really held.
    """
    problems = load_problems(data, limit)
    policy, prm = LocalEngine.load(model_path("mini:target")), LocalEngine.load(model_path("mini:prm"))
    provider = make_embedder(embedder)
    rows: list[dict[str, Any]] = []
    figures: dict[str, float | int] = {}

    def searches(width: int, names: Sequence[str], engines: tuple[Engine, Engine]) -> dict[str, Search]:
        return {name: _search(name, width, seed, (options or {}).get(name, {}), provider, engines) for name in names}

    for width in widths:
        outcomes = asyncio.run(_take_turns(searches(width, methods, (policy, prm)), problems))
        figures |= _compare(outcomes, width)
        rows += [_row(name, width, outcome) for name, outcome in outcomes.items()]
        if pool and width == POOL_WIDTH:
            peak = max(1, round(POOL_SEARCHES * rows[-len(outcomes)]["kv_tokens_engine_peak"]))
            tight = tuple(
                LocalEngine.load(model_path(model), max_kv_tokens=peak) for model in ("mini:target", "mini:prm")
            )
            names = [name for name in methods if name in (BASELINE, "ets", "ets-kv")]
            pooled = asyncio.run(_take_turns(searches(width, names, (tight[0], tight[1])), problems))
            for name in names[1:]:
                ratio = pooled[name].problems_per_second / pooled[BASELINE].problems_per_second
                figures[f"pool_speedup_{width}{_suffix(name)}"] = ratio
            figures["pool_kv_tokens"] = peak
            rows += [_row(name, width, outcome) | {"max_kv_tokens": peak} for name, outcome in pooled.items()]
    return {
        "bench": "methods",
        "data": data,
        "num_problems": len(problems),
        "seed": seed,
        "embedder": embedder,
        "options": {name: dict(values) for name, values in (options or {}).items()},
        "figures": figures,
        "rows": rows,
    }


def _search(
    name: str,
    width: int,
    seed: int,
    options: Mapping[str, Scalar],
    provider: FeatureProvider,
    engines: tuple[Engine, Engine],
) -> Search:
    policy: Policy = METHODS[name](**({"reduce": prm_config("mini:prm").reduce} | dict(options)))
    search = Search(method=policy, width=width, seed=seed, features=[provider])
    search.use(*engines)
    return search


async def _take_turns(searches: Mapping[str, Search], problems: Sequence[Problem]) -> dict[str, _Outcome]:
    """Each method in turn, by chunks; who goes first changes, and the first call of all is not counted."""
    outcomes = {name: _Outcome() for name in searches}
    names = list(searches)
    await searches[names[0]].asolve(problems[0])
    for turn, start in enumerate(range(0, len(problems), CHUNK)):
        chunk = problems[start : start + CHUNK]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            search = searches[name]
            results: dict[str, Result] = {}
            begin = time.perf_counter()
            async for item in search.asolve_many(chunk, CONCURRENCY):
                if isinstance(item, Failure):
                    raise item.error
                results[item.problem.id] = item
            outcomes[name].seconds += time.perf_counter() - begin
            outcomes[name].results += [results[problem.id] for problem in chunk]
        done = start + len(chunk)
        notes = [f"{name} {one.accuracy:.3f} {one.seconds:.0f} s" for name, one in outcomes.items()]
        sys.stderr.write(f"{done} of {len(problems)}: {', '.join(notes)}\n")
    return outcomes


def _suffix(name: str) -> str:
    return "" if name == "ets" else f"_{name.replace('-', '_')}"


def _compare(outcomes: Mapping[str, _Outcome], width: int) -> dict[str, float | int]:
    base = outcomes[BASELINE]
    figures: dict[str, float | int] = {}
    for name, one in outcomes.items():
        figures[f"accuracy_{width}_{name.replace('-', '_')}"] = one.accuracy
        selecting = sum(result.stats.seconds_select for result in one.results)
        figures[f"select_share_{width}{_suffix(name)}"] = selecting / one.seconds
        if one is base:
            continue
        figures[f"kv_ratio_{width}{_suffix(name)}"] = base.kv_tokens / one.kv_tokens
        figures[f"speedup_{width}{_suffix(name)}"] = one.problems_per_second / base.problems_per_second
        figures |= _difference(f"accuracy_diff_{width}", _suffix(name), one, base)
    if {"ets", "ets-kv"} <= outcomes.keys():
        figures |= _difference(f"coverage_gain_{width}", "", outcomes["ets"], outcomes["ets-kv"])
    return figures


def _difference(key: str, suffix: str, one: _Outcome, other: _Outcome) -> dict[str, float]:
    differences = [a - b for a, b in zip(one.right, other.right, strict=True)]
    low, high = paired_bootstrap(differences)
    mean = sum(differences) / len(differences)
    return {f"{key}{suffix}": mean, f"{key}_lo{suffix}": low, f"{key}_hi{suffix}": high}


def _row(name: str, width: int, one: _Outcome) -> dict[str, Any]:
    low, high = wilson_interval(round(sum(one.right)), len(one.results))
    return {
        "method": name,
        "width": width,
        "accuracy": one.accuracy,
        "accuracy_lo": low,
        "accuracy_hi": high,
        "problems_per_second": one.problems_per_second,
        "seconds_wall": one.seconds,
        "num_notes": sum(len(result.notes) for result in one.results),
        **sum_stats(result.stats for result in one.results),
    }
