"""Measures what `ets plan` reckons with: each method's work on the mini family, at a few widths.

    .venv/bin/python docs/plan_ratios.py [NUM_PROBLEMS]

Writes `search/planning/ratios.json`. Counts, no times: any machine gives the same.
"""

import asyncio
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from search import Search
from search.config import SearchSettings
from search.loop.outcome import SearchOutcome
from search.mini.problems import problem
from search.planning.work_ratios import WorkRatios
from search.setup.routing import Engines
from search.types import NodeStatus, Problem

METHODS = ("best-of-n", "beam", "dvts", "rebase", "particle", "ets-kv", "ets")
SCORERS = ("mini:prm", "confidence:mean-logprob")
"""A reward model, and what stands in for one where there is none: its rewards are nearer to each other."""

WIDTHS = (4, 16, 64)
DECIMALS = 3


def spread_of(outcomes: Sequence[SearchOutcome]) -> float:
    """Standard deviation of a problem's solution lengths over their mean, averaged over the problems."""
    found = []
    for one in outcomes:
        prompt = len(one.tree.root.ids)
        lengths = [end.num_path_tokens - prompt for end in one.tree.leaves(NodeStatus.FINISHED)]
        found.append(statistics.stdev(lengths) / statistics.fmean(lengths))
    return statistics.fmean(found)


async def measure(num_problems: int) -> tuple[float, dict[str, dict[str, dict[int, dict[str, float]]]]]:
    """Spread of solutions that share nothing, and ratios by scorer, method and width, of the first test problems."""
    spread = 0.0
    asked = [Problem(str(index), problem("test", index).text) for index in range(num_problems)]
    found: dict[str, dict[str, dict[int, dict[str, float]]]] = {scorer: {} for scorer in SCORERS}
    async with Search() as first:
        driver = first.driver
        assert driver.scorer is not None
        loaded = Engines(policy=driver.writer.engines["policy"], prm=driver.scorer.engines["prm"])
        for scorer, method, width in itertools.product(SCORERS, METHODS, WIDTHS):
            search = Search(settings=SearchSettings(prm=scorer, method=method, width=width, until="spent"))
            search.use(loaded.policy, loaded.prm if scorer == "mini:prm" else None)
            results = [await search.asolve(one) for one in asked]
            outcomes = [SearchOutcome(one.problem, one.tree, one.stats) for one in results]
            if (method, width) == ("best-of-n", 16):
                spread = spread_of(outcomes)
            ratios = WorkRatios.measure(outcomes, width).ratios
            rounded = {name: round(value, DECIMALS) for name, value in asdict(ratios).items()}
            found[scorer].setdefault(method, {})[width] = rounded
            sys.stderr.write(f"{scorer} {method} {width}: {rounded}\n")
    return spread, found


def main() -> None:
    """Measure, and write the file."""
    num_problems = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    spread, scorers = asyncio.run(measure(num_problems))
    kept = {
        "measured_by": f"docs/plan_ratios.py {num_problems}",
        "until": "spent",
        "spread": round(spread, DECIMALS),
        "scorers": scorers,
    }
    target = Path(__file__).resolve().parents[1] / "search" / "planning" / "ratios.json"
    target.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


main()
