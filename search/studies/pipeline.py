"""`ets bench pipeline`: routed chains, plain and pipelined, beside the target alone.

Whether routing pays by the clock is a question of what the router costs, a router as large as the target more than it
saves, a probe on the draft's own states (`--router probe`) next to nothing; of what a turn of the draft costs; and, of
chains side by side, of how full the turns of both models are. While a router judges a step a pipelined draft already
writes the next. That can only gain where the two run apart: on servers of their own, as `make sglang-cpu` starts them,
or on other machines.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arbitrage.walks import TARGET
from search.api import Search
from search.config import SearchSettings, build
from search.ledger import total_costs
from search.problems.data import load_problems
from search.results.record import costs_record
from search.studies.measured import Measured, nodes_of, paired_difference, spread, take_turns
from search.support.statistics import Estimate, bootstrap, percentile_interval


def run(
    limit: int = 50,
    repeats: int = 3,
    router: str = "rsd:0.7",
    data: str = "mini:test",
    engine: str = "local",
    draft_engine: str = "local",
    router_engine: str = "local",
    concurrency: int = 1,
) -> dict[str, Any]:
    """Measure.

    Args:
        limit: problems.
        repeats: of all of them, the target alone, plain and pipelined in turn.
        router: who judges the draft's steps.
        data: the problems' source.
        engine: the target's, as in the settings.
        draft_engine: the draft's.
        router_engine: that of the model behind the router.
        concurrency: problems side by side. So many are a turn, whose seconds the searches are compared by.

    Returns:
        `figures`: `pipeline_speedup`, seconds of plain chains over those of pipelined ones, median of the repeats,
        with `_min` and `_max`; `pipeline_equal`, problems whose chains are equal to the last node in all repeats;
        `num_problems`; `seconds_target`, `seconds_plain`, `seconds_pipelined`, wall seconds over problems;
        `thrown_share`, tokens written ahead in vain over all that the draft wrote. Of plain chains against the target
        alone `seconds_ratio_plain_over_target` and `accuracy_plain_less_target`, with `_lo` and `_hi`, 95% intervals
        by bootstrap over turns and over problems; `accuracy_target`, `accuracy_plain`; `target_share`, of the plain
        chains' steps. `models`: costs by role of all.

    Raises:
        ConfigError: a model or the router cannot be used.
        SearchError: a search could not be run: a measurement with holes is none.
    """
    alone = {"method": "chain", "temperature": 0.0, "prm": "none", "policy": "mini:target", "engine": engine}
    common = {"method": "chain", "writer": "arbitrage", "temperature": 0.0, "router": router, "prm": "none"}
    engines = {"engine": engine, "draft_engine": draft_engine, "router_engine": router_engine}
    searches = {"target": Search(settings=build(SearchSettings, alone))}
    for name in ("plain", "pipelined"):
        settings = {**common, **engines, "pipeline": name == "pipelined"}
        searches[name] = Search(settings=build(SearchSettings, settings))
    given = {"router": router, **engines, "concurrency": concurrency}
    return asyncio.run(_measure(searches, limit, repeats, data, concurrency, given))


async def _measure(
    searches: dict[str, Search], limit: int, repeats: int, data: str, concurrency: int, given: dict[str, Any]
) -> dict[str, Any]:
    problems = load_problems(data, limit)
    rounds: list[dict[str, Measured]] = []
    try:
        for number in range(repeats):
            rounds.append(await take_turns(searches, problems, concurrency, concurrency=concurrency))
            sys.stderr.write(f"pipeline: round {number + 1} of {repeats}, {_speedup(rounds[-1]):.3f}x\n")
    finally:
        for search in searches.values():
            await search.aclose()
    equal = [
        all(nodes_of(done["plain"].results[place]) == nodes_of(done["pipelined"].results[place]) for done in rounds)
        for place in range(len(problems))
    ]
    seconds = {name: statistics.fmean(done[name].seconds for done in rounds) / len(problems) for name in searches}
    costs = {name: total_costs(one.models for done in rounds for one in done[name].results) for name in searches}
    ahead = costs["pipelined"]["draft"]
    figures = {
        **spread("pipeline_speedup", [_speedup(done) for done in rounds]),
        "pipeline_equal": sum(equal),
        "num_problems": len(problems),
        **{f"seconds_{name}": value for name, value in seconds.items()},
        "thrown_share": (ahead.thrown_tokens or 0) / max(1, ahead.sampled_tokens or 0),
        **_against_target(rounds),
    }
    models = {name: costs_record(cost) for name, cost in costs.items()}
    return {"figures": figures, "repeats": repeats, "data": data, **given, "models": models}


def _against_target(rounds: Sequence[Mapping[str, Measured]]) -> dict[str, float]:
    """Plain chains against the target alone; the accuracy is the first round's, as greedy chains do not change."""
    plain, target = rounds[0]["plain"], rounds[0]["target"]
    seconds = np.sum([[done["plain"].turns, done["target"].turns] for done in rounds], axis=0).T
    sums, draws = seconds.sum(axis=0), bootstrap(seconds)
    ratio = Estimate(float(sums[0] / sums[1]), *percentile_interval(draws[:, 0] / draws[:, 1]))
    writers = [node.writer for result in plain.results for node in result.tree if node.writer]
    return {
        **ratio.figures("seconds_ratio_plain_over_target"),
        **paired_difference(plain, target).figures("accuracy_plain_less_target"),
        "accuracy_plain": plain.accuracy,
        "accuracy_target": target.accuracy,
        "target_share": writers.count(TARGET) / max(1, len(writers)),
    }


def _speedup(done: Mapping[str, Measured]) -> float:
    return done["plain"].seconds / done["pipelined"].seconds
