"""`ets bench routers`: every router over its thresholds, what it costs, and ETS with the draft/target writer."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arbitrage.routers import JUDGE_QUESTION
from arbitrage.walks import DRAFT, TARGET
from search.api import Search
from search.catalogue import ROUTERS
from search.config import SearchSettings, build
from search.engines.local import LocalEngine
from search.engines.remembering import RememberingEngine
from search.learning.collection import step_checker
from search.ledger import total_costs
from search.loop.driver import Driver
from search.problems.data import load_problems
from search.protocols import Engine, Scorer
from search.results.record import costs_record
from search.results.result import Result
from search.setup.registry import make_scorer, model_path
from search.studies.checker_router import CheckerRouter, routed_chain
from search.studies.measured import Measured, nodes_of, paired_difference, take_turns
from search.studies.router_costs import PAIRS, Chain, Hardware
from search.studies.router_table import RSD_DEFAULT, Routed, compare_routers, plot_projected
from search.types import Problem, WriteJob

_EVEN = tuple(round(0.1 * number, 1) for number in range(1, 10))
GRID: Mapping[str, tuple[float, ...]] = {
    "random": (0.2, 0.5),
    "rsd": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *_EVEN, 0.95, 0.99),
    "judge": (3.0, 4.0, 5.0),
    "arbitrage": (0.005, 0.01, 0.02, 0.05, 0.1, 0.12, 0.15, *_EVEN[1:], 0.95, 0.99),
    "probe": (0.005, 0.01, 0.02, 0.05, 0.1, 0.12, 0.15, *_EVEN[1:]),
    "oracle": (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9),
}
"""Thresholds by kind of router."""

EXACT = "exact"
"""The oracle whose rewards are an exact checker's, where the data has one."""

CURVES = {
    "random": "random",
    "rsd": "rsd",
    "arbitrage": "arbitrage",
    "probe": "probe",
    "oracle": "oracle_prm",
    EXACT: "oracle",
}
"""Which curves are compared, by kind of router. Judge's is not: its chains are too few."""

TIMED = ("never", "always", "random:0.2", RSD_DEFAULT, "judge:4", f"probe:{ROUTERS['probe'].default:g}")
"""Routers whose wall time is measured, beside Arbitrage at the threshold that matches RSD's default."""

TURN = 64
"""Problems that all routers solve before what the engines remember of them is forgotten."""


@dataclass(frozen=True, slots=True)
class _Engines:
    """The mini family on engines that all parts of the measurement share."""

    router_model: str
    draft: Engine
    target: Engine
    prm: Engine
    router: Engine

    @classmethod
    def load(cls, router_model: str) -> _Engines:
        names = ("mini:draft", "mini:target", "mini:prm", router_model)
        return cls(router_model, *(LocalEngine.load(model_path(name)) for name in names))

    def search(self, **settings: Any) -> Search:
        """A search on these engines."""
        if str(settings.get("router", "")).startswith("arbitrage"):
            settings["router_model"] = self.router_model
        search = Search(settings=build(SearchSettings, settings))
        policy = self.draft if search.settings.policy == "mini:draft" else self.target
        routed = search.settings.router_model
        search.use(policy, self.prm, self.draft, self.prm if routed == "mini:prm" else self.router)
        return search

    def chain(self, router: str, **settings: Any) -> Search:
        """A search for a greedy chain."""
        return self.search(method="chain", writer="arbitrage", temperature=0.0, router=router, **settings)

    def scorer(self) -> Scorer:
        """The reward model over trees of the target's."""
        return make_scorer(build(SearchSettings, {"prm": "mini:prm"}), self.prm, self.target.tokenizer)


def run(
    limit: int = 1500,
    seed: int = 0,
    data: str = "mini:test",
    router_model: str = "mini:router",
    judge_limit: int = 200,
    timed: int = 100,
    ets_limit: int = 200,
    ets_router: str = "arbitrage:0.02",
    plots: Path | None = None,
) -> dict[str, Any]:
    """Follow greedy chains under all routers, time some of them, and run ETS with three writers.

    Args:
        limit: problems of the chains.
        seed: of the resampling and of ETS.
        data: the problems' source.
        router_model: the learned router.
        judge_limit: problems of the judge's chains, whose question costs the most to ask.
        timed: problems solved one at a time for the wall time; 0 for none.
        ets_limit: problems of ETS at width 16; 0 for none.
        ets_router: the router inside ETS.
        plots: folder for the two plots.

    Returns:
        `figures`: `accuracy_gain_vs_rsd_S` (Arbitrage less RSD at an equal share of S percent) and `_mean`;
        `auc_ROUTER`, the area under accuracy against share: `auc_oracle` that of the oracle whose rewards are exact (an
        upper bound), `auc_oracle_prm` that of the paper's, which is as blind as the reward model; at the accuracy that
        RSD reaches at its default threshold `target_calls_ratio_rsd_over_arbitrage`, `flops_ratio_...`, and
        `projected_flops_PAIR_ratio_...` and `projected_seconds_PAIR_ratio_...` for the papers' sizes; all with `_lo`
        and `_hi`, 95% intervals over problems.
        From timed runs `seconds_ratio_rsd_over_arbitrage`, `pipeline_speedup`, `pipeline_equal` (problems with equal
        chains), `online_equal` (share of timed problems whose answer is right or wrong as the trace's). From ETS
        `ets_target_tokens_saved` (target tokens of the target alone over those of the routed writer),
        `ets_accuracy_WRITER`, and the paired differences `ets_vs_target` and `ets_vs_draft` with `_lo` and `_hi`.
        `rows`: every router at every threshold.
    """
    problems = load_problems(data, limit)
    engines = _Engines.load(router_model)
    question = len(engines.target.tokenizer.encode(JUDGE_QUESTION))
    routed, waste = asyncio.run(_chains(engines, problems, data, judge_limit, question))
    parameters = {
        role: float(engine.info.num_parameters or 0)
        for role, engine in ((DRAFT, engines.draft), (TARGET, engines.target), ("router", engines.router))
    }
    rows = [{**router.row(parameters), "waste": waste[router.name]} for router in routed]
    figures: dict[str, float | int | None] = {**compare_routers(routed, parameters, seed, CURVES)}
    figures["matched_threshold"] = matched = _matched(rows)
    timings: list[dict[str, Any]] = []
    if timed:
        right = {router.name: [chain.correct for chain in router.chains] for router in routed}
        timings, measured = asyncio.run(_time(engines, problems[:timed], matched, right))
        figures |= measured
    ets_rows: list[dict[str, Any]] = []
    if ets_limit:
        ets_rows, measured = asyncio.run(_ets(engines, load_problems(data, ets_limit), ets_router, seed))
        figures |= measured
    if plots is not None:
        plot_projected(rows, plots)
    return {
        "data": data,
        "num_problems": len(problems),
        "seed": seed,
        "router_model": router_model,
        "figures": figures,
        "rows": rows,
        "timed": timings,
        "ets": ets_rows,
        "ets_router": ets_router,
        "projection": {"hardware": asdict(Hardware()), "pairs": [asdict(pair) for pair in PAIRS]},
        "parameters": parameters,
    }


# Chains


async def _chains(
    engines: _Engines, problems: Sequence[Problem], data: str, judge_limit: int, question_tokens: int
) -> tuple[list[Routed], dict[str, float]]:
    """Every router over all problems on engines that are asked for each step once; and the waste of each."""
    remembering = [RememberingEngine(one) for one in (engines.draft, engines.target, engines.prm, engines.router)]
    engines = _Engines(engines.router_model, *remembering)
    names = ["never", "always", *(f"{kind}:{threshold:g}" for kind, grid in GRID.items() for threshold in grid)]
    searches = {name: engines.chain(name) for name in names}
    if (checker := step_checker(data)) is not None:
        searches[EXACT] = routed_chain(engines.draft, engines.target, CheckerRouter(checker, problems), temperature=0.0)
    draft, scorer = searches["never"].driver, engines.scorer()
    chains: dict[str, list[Chain]] = {name: [] for name in searches}
    in_vain: dict[str, list[bool]] = {name: [] for name in searches}
    started = time.perf_counter()
    for start in range(0, len(problems), TURN):
        for name, search in searches.items():
            upto = min(start + TURN, judge_limit) if name.startswith("judge") else start + TURN
            measured = Measured()
            await measured.add(search, problems[start:upto], TURN)
            for result in measured.results:
                chains[name].append(Chain.of(result.tree.nodes, result.correct))
                in_vain[name] += await _in_vain(result, draft, scorer)
        for engine in remembering:
            engine.forget()
        done = min(start + TURN, len(problems))
        sys.stderr.write(f"chains: {done} of {len(problems)}, {time.perf_counter() - started:.0f} s\n")
    routed = [Routed(name, solved, question_tokens) for name, solved in chains.items()]
    return routed, {name: sum(wasted) / max(1, len(wasted)) for name, wasted in in_vain.items()}


async def _in_vain(result: Result, draft: Driver, scorer: Scorer) -> list[bool]:
    """For each step of the target's whether the draft's in its place would have been scored as high.

    Args:
        result: of a chain; the draft's steps are added to its tree.
        draft: what writes them.
        scorer: what scores both.
    """
    tree, in_vain = result.tree, []
    async with draft.writer.open(tree) as writer, scorer.open(tree) as scoring:
        for node in [node for node in tree if node.writer == TARGET]:
            assert node.parent is not None
            beside = tree.add_child(node.parent)
            job = WriteJob(node.parent, (beside,), draft.room(tree, node.parent))
            async for step in writer.write(tree, [job], draft.sampling):
                draft.accept(tree, step)
            ours, theirs = await scoring.score(tree, [node.id, beside])
            in_vain.append(ours <= theirs)
    return in_vain


def _matched(rows: Sequence[Mapping[str, Any]]) -> float:
    """Arbitrage's threshold with the fewest target calls that is as accurate as RSD at its default."""
    by_name = {row["router"]: row for row in rows}
    wanted = by_name[RSD_DEFAULT]["accuracy"]
    reached = [row for name, row in by_name.items() if name.startswith("arbitrage:") and row["accuracy"] >= wanted]
    best = min(reached or [by_name["arbitrage:0.1"]], key=lambda row: float(row["target_calls"]))
    return float(best["router"].partition(":")[2])


# Wall time


async def _time(
    engines: _Engines, problems: Sequence[Problem], matched: float, right: Mapping[str, Sequence[bool]]
) -> tuple[list[dict[str, Any]], dict[str, float | int | None]]:
    """Routers in turn, problem by problem, one at a time; `right`: which problems each router's chains solved."""
    ours = f"arbitrage:{matched:g}"
    searches = {name: engines.chain(name) for name in (*TIMED, ours)}
    searches[f"{ours} pipelined"] = engines.chain(ours, pipeline=True)
    measured = await take_turns(searches, problems, 1)
    results = {name: timed.results for name, timed in measured.items()}
    seconds = {
        name: sum(result.stats.seconds for result in solutions) / len(solutions) for name, solutions in results.items()
    }
    rows = [
        {
            "router": name,
            "num_problems": len(solutions),
            "seconds_per_problem": seconds[name],
            "accuracy": measured[name].accuracy,
            "models": costs_record(total_costs(result.models for result in solutions)),
        }
        for name, solutions in results.items()
    ]
    agreed = [
        result.correct == solved
        for name, solutions in results.items()
        for result, solved in zip(solutions, right.get(name, ()), strict=False)
    ]
    plain, ahead = results[ours], results[f"{ours} pipelined"]
    equal = sum(nodes_of(one) == nodes_of(two) for one, two in zip(plain, ahead, strict=True))
    return rows, {
        "seconds_ratio_rsd_over_arbitrage": seconds[RSD_DEFAULT] / seconds[ours],
        "pipeline_speedup": seconds[ours] / seconds[f"{ours} pipelined"],
        "pipeline_equal": equal,
        "online_equal": sum(agreed) / len(agreed),
        "num_timed": len(problems),
    }


# ETS


async def _ets(
    engines: _Engines, problems: Sequence[Problem], router: str, seed: int
) -> tuple[list[dict[str, Any]], dict[str, float | int | None]]:
    """ETS at width 16 with the target alone, with the draft alone, and with both under a router."""
    common = {"method": "ets", "width": 16, "seed": seed}
    settings: dict[str, dict[str, Any]] = {
        "target": {"policy": "mini:target"},
        "draft": {"policy": "mini:draft"},
        "routed": {"writer": "arbitrage", "router": router},
    }
    measured: dict[str, Measured] = {}
    for name, more in settings.items():
        measured[name] = Measured()
        await measured[name].add(engines.search(**common, **more), problems)
        sys.stderr.write(f"ets, {name}: accuracy {measured[name].accuracy:.3f}, {measured[name].seconds:.0f} s\n")
    costs = {name: total_costs(result.models for result in searched.results) for name, searched in measured.items()}
    alone, routed = costs["target"]["policy"].sampled_tokens, costs["routed"][TARGET].sampled_tokens
    figures: dict[str, float | int | None] = {"ets_target_tokens_saved": (alone or 0) / max(1, routed or 0)}
    for name, searched in measured.items():
        figures[f"ets_accuracy_{name}"] = searched.accuracy
    for other in ("target", "draft"):
        figures |= paired_difference(measured["routed"], measured[other]).figures(f"ets_vs_{other}")
    rows = [
        {**searched.row(), "num_problems": len(problems), "writer": name, "models": costs_record(costs[name])}
        for name, searched in measured.items()
    ]
    return rows, figures
