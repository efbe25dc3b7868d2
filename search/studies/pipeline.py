"""`ets bench pipeline`: chains with and without pipelined speculation, one problem at a time.

While the router judges a step the draft already writes the next. That can only gain where the two run
apart: on servers of their own, as `make sglang-cpu` starts them, or on other machines.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from typing import Any

from search.api import Search
from search.config import SearchSettings, build
from search.ledger import total_costs
from search.problems.data import load_problems
from search.results.record import costs_record
from search.results.result import Result
from search.studies.measured import nodes_of, spread, take_turns


def run(
    limit: int = 50,
    repeats: int = 3,
    router: str = "rsd:0.7",
    data: str = "mini:test",
    engine: str = "local",
    draft_engine: str = "local",
    router_engine: str = "local",
) -> dict[str, Any]:
    """Measure.

    Args:
        limit: problems.
        repeats: of all of them, plain and pipelined in turn.
        router: who judges the draft's steps.
        data: the problems' source.
        engine: the target's, as in the settings.
        draft_engine: the draft's.
        router_engine: that of the model behind the router.

    Returns:
        `figures`: `pipeline_speedup`, seconds a problem of plain chains over those of pipelined ones, median of the
        repeats, with `_min` and `_max`; `pipeline_equal`, problems whose chains are equal to the last node in all
        repeats; `num_problems`; `seconds_plain`, `seconds_pipelined`; `thrown_share`, tokens written ahead in vain over
        all that the draft wrote. `models`: costs by role of both.
    """
    common = {"method": "chain", "writer": "arbitrage", "temperature": 0.0, "router": router, "prm": "none"}
    engines = {"engine": engine, "draft_engine": draft_engine, "router_engine": router_engine}
    searches = {
        name: Search(settings=build(SearchSettings, {**common, **engines, "pipeline": name == "pipelined"}))
        for name in ("plain", "pipelined")
    }
    return asyncio.run(_measure(searches, limit, repeats, data, {"router": router, **engines}))


async def _measure(
    searches: dict[str, Search], limit: int, repeats: int, data: str, given: dict[str, Any]
) -> dict[str, Any]:
    problems = load_problems(data, limit)
    rounds: list[dict[str, list[Result]]] = []
    try:
        for number in range(repeats):
            measured = await take_turns(searches, problems, 1)
            rounds.append({name: one.results for name, one in measured.items()})
            sys.stderr.write(f"pipeline: round {number + 1} of {repeats}, {_speedup(rounds[-1]):.3f}x\n")
    finally:
        for search in searches.values():
            await search.aclose()
    equal = [
        all(nodes_of(done["plain"][place]) == nodes_of(done["pipelined"][place]) for done in rounds)
        for place in range(len(problems))
    ]
    every = {name: [one for done in rounds for one in done[name]] for name in searches}
    costs = {name: total_costs(one.models for one in made) for name, made in every.items()}
    ahead = costs["pipelined"]["draft"]
    figures = {
        **spread("pipeline_speedup", [_speedup(done) for done in rounds]),
        "pipeline_equal": sum(equal),
        "num_problems": len(problems),
        **{f"seconds_{name}": statistics.fmean(one.stats.seconds for one in made) for name, made in every.items()},
        "thrown_share": (ahead.thrown_tokens or 0) / max(1, ahead.sampled_tokens or 0),
    }
    models = {name: costs_record(cost) for name, cost in costs.items()}
    return {"bench": "pipeline", "figures": figures, "repeats": repeats, "data": data, **given, "models": models}


def _speedup(done: dict[str, list[Result]]) -> float:
    seconds = {name: sum(one.stats.seconds for one in made) for name, made in done.items()}
    return seconds["plain"] / seconds["pipelined"]
