"""`ets bench routers`: every router over its thresholds, what it costs, and ETS with the draft/target writer."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arbitrage.models import ModelView
from arbitrage.routers import JUDGE_QUESTION
from arbitrage.walks import DRAFT, TARGET
from prm import PrmScorer
from search.api import Search
from search.config import SearchSettings, build
from search.data import load_problems
from search.engines.local import LocalEngine
from search.ledger import total_costs
from search.prompts import PromptRenderer
from search.protocols import Engine
from search.record import costs_record
from search.registry import make_scorer, model_path
from search.result import Result
from search.router_collection import step_checker
from search.routing import router_config, router_reader
from search.statistics import wilson_interval
from search.studies.measured import Measured, nodes_of, paired_difference
from search.studies.router_costs import (
    COSTS,
    JUDGE_OF,
    PAIRS,
    Hardware,
    Work,
    costs_of,
    flops,
    projected_seconds,
    work_of,
)
from search.studies.router_curves import Comparison, Outcomes
from search.studies.traces import Chain, TracedProblem, Traces
from search.types import NodeId, Problem

Rule = Callable[[TracedProblem, NodeId], Awaitable[bool]]

_EVEN = tuple(round(0.1 * number, 1) for number in range(1, 10))
GRID: Mapping[str, tuple[float, ...]] = {
    "never": (0.0,),
    "always": (0.0,),
    "random": (0.2, 0.5),
    "rsd": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *_EVEN, 0.95, 0.99),
    "judge": (3.0, 4.0, 5.0),
    "arbitrage": (0.005, 0.01, 0.02, 0.05, 0.1, 0.12, 0.15, *_EVEN[1:], 0.95, 0.99),
    "oracle": (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9),
    "exact": (0.0,),
}
"""Thresholds by kind of router. "exact" is the oracle whose rewards are an exact checker's, where the data has one."""

RSD_DEFAULT = 0.7
TIMED = ("never", "always", "random:0.2", "rsd:0.7", "judge:4")
"""Routers whose wall time is measured, beside Arbitrage at the threshold that matches RSD's default."""


@dataclass(frozen=True, slots=True)
class _Engines:
    """The mini family on engines that all parts of the measurement share."""

    draft: Engine
    target: Engine
    prm: Engine
    router: Engine

    @classmethod
    def load(cls, router_model: str) -> _Engines:
        names = ("mini:draft", "mini:target", "mini:prm", router_model)
        return cls(*(LocalEngine.load(model_path(name)) for name in names))

    def search(self, **settings: Any) -> Search:
        """A search on these engines."""
        search = Search(settings=build(SearchSettings, settings))
        policy = self.draft if search.settings.policy == "mini:draft" else self.target
        routed = search.settings.router_model
        search.use(policy, self.prm, self.draft, self.prm if routed == "mini:prm" else self.router)
        return search

    def traces(self, router_model: str, data: str) -> Traces:
        """What records greedy chains."""
        config = router_config(router_model)
        reader = router_reader(config, self.router.tokenizer, self.target.tokenizer)
        return Traces(
            ModelView(self.draft, self.target.tokenizer),
            ModelView(self.target, self.target.tokenizer),
            make_scorer(build(SearchSettings, {"prm": "mini:prm"}), self.prm, self.target.tokenizer),
            PrmScorer(self.router, reader),
            step_checker(data),
        )


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
    """Record greedy chains under all routers, time some of them, and run ETS with three writers.

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
    grids = {kind: grid for kind, grid in GRID.items() if kind != "exact" or step_checker(data) is not None}
    names = [(kind, threshold) for kind, grid in grids.items() for threshold in grid]
    rules = [(_rule(*name), judge_limit if name[0] == "judge" else limit) for name in names]
    chains = asyncio.run(_record(engines.traces(router_model, data), problems, rules))
    parameters = {
        role: float(engine.info.num_parameters or 0)
        for role, engine in ((DRAFT, engines.draft), (TARGET, engines.target), ("router", engines.router))
    }
    question = len(engines.target.tokenizer.encode(JUDGE_QUESTION))
    works = [_works(name[0], one, question) for name, one in zip(names, chains, strict=True)]
    rows = [_row(*name, one, work, parameters) for name, one, work in zip(names, chains, works, strict=True)]
    outcomes = {
        name: Outcomes.of(one, costs_of(work, parameters)) for name, one, work in zip(names, chains, works, strict=True)
    }
    ends = [outcomes["never", 0.0], outcomes["always", 0.0]]
    called = {"oracle": "oracle_prm", "exact": "oracle"}
    curves = {
        called.get(kind, kind): [*(outcomes[kind, threshold] for threshold in grid), *ends]
        for kind, grid in grids.items()
        if kind not in ("never", "always", "judge")
    }
    compared = Comparison(curves, seed)
    place = GRID["rsd"].index(RSD_DEFAULT)
    figures: dict[str, float | int | None] = {
        **compared.gain("arbitrage", "rsd"),
        **compared.areas(),
        **compared.cost_ratios("arbitrage", "rsd", place, COSTS),
    }
    matched = _matched(rows)
    figures["matched_threshold"] = matched
    timings: list[dict[str, Any]] = []
    if timed:
        answers = {f"{kind}:{threshold:g}": one for (kind, threshold), one in zip(names, chains, strict=True)}
        timings, measured = asyncio.run(_time(engines, problems[:timed], matched, answers, router_model))
        figures |= measured
    ets_rows: list[dict[str, Any]] = []
    if ets_limit:
        ets_rows, measured = asyncio.run(_ets(engines, load_problems(data, ets_limit), ets_router, seed, router_model))
        figures |= measured
    report = {
        "bench": "routers",
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
    if plots is not None:
        from search.studies.router_plots import plot

        plot(report, plots)
    return report


# Chains from traces


def _rule(kind: str, threshold: float) -> Rule:
    """When a router escalates."""

    async def rule(traced: TracedProblem, node: NodeId) -> bool:
        if kind in ("never", "always"):
            return kind == "always"
        if kind == "random":
            depth = traced.tree[node].depth
            return random.Random(f"{traced.problem.id}/{depth}").random() < threshold
        if kind == "rsd":
            return await traced.reward(node, DRAFT) < threshold
        if kind == "arbitrage":
            return await traced.estimate(node) > threshold
        if kind == "judge":
            return await traced.rating(node) < threshold
        if kind == "exact":
            return await traced.right(node, TARGET) and not await traced.right(node, DRAFT)
        return await traced.reward(node, TARGET) - await traced.reward(node, DRAFT) > threshold

    return rule


async def _record(traces: Traces, problems: Sequence[Problem], rules: Sequence[tuple[Rule, int]]) -> list[list[Chain]]:
    """The chains of every rule."""
    started = time.perf_counter()

    def report(done: int) -> None:
        if done % 100 == 0:
            sys.stderr.write(f"traces: {done} of {len(problems)}, {time.perf_counter() - started:.0f} s\n")

    prompts = PromptRenderer(SearchSettings(), traces.target.tokenizer)
    return await traces.chains(problems, lambda one: prompts.render(one.text), rules, report=report)


def _works(kind: str, chains: Sequence[Chain], question_tokens: int) -> list[dict[str, Work]]:
    judge = JUDGE_OF.get(kind, "none")
    return [work_of(chain, judge, drafts=kind != "always", question_tokens=question_tokens) for chain in chains]


def _row(
    kind: str,
    threshold: float,
    chains: Sequence[Chain],
    works: Sequence[Mapping[str, Work]],
    parameters: Mapping[str, float],
) -> dict[str, Any]:
    """A router at a threshold over all problems; tokens, calls and FLOPs are means over problems."""
    steps = [step for chain in chains for step in chain.steps]
    escalated = [step for step in steps if step.escalated]
    count, right = len(chains), sum(chain.correct for chain in chains)
    low, high = wilson_interval(right, len(chains))
    by_step = []
    for place in range(8):
        here = [chain.steps[place].escalated for chain in chains if len(chain.steps) > place]
        by_step.append(1 - sum(here) / len(here) if here else None)
    row: dict[str, Any] = {
        "router": kind if kind in ("never", "always", "exact") else f"{kind}:{threshold:g}",
        "num_problems": count,
        "accuracy": right / count,
        "accuracy_lo": low,
        "accuracy_hi": high,
        "target_share": len(escalated) / len(steps),
        "acceptance_by_step": by_step,
        "target_calls": len(escalated) / count,
        "draft_tokens_kept": sum(step.draft_tokens for step in steps if not step.escalated) / count,
        "draft_tokens_dropped": sum(step.draft_tokens for step in escalated) / count if kind != "always" else 0.0,
        "target_tokens_kept": sum(step.target_tokens for step in escalated) / count,
        "waste": sum(step.in_vain for step in escalated) / max(1, len(escalated)),
        "flops": sum(flops(work, parameters) for work in works) / count,
    }
    if kind in ("oracle", "exact"):
        return row  # it sees both steps, so what it costs is no cost of a router
    for pair in PAIRS:
        row[f"projected_seconds_{pair.name}"] = projected_seconds(works, pair, Hardware())
    return row


def _matched(rows: Sequence[Mapping[str, Any]]) -> float:
    """Arbitrage's threshold with the fewest target calls that is as accurate as RSD at its default."""
    by_name = {row["router"]: row for row in rows}
    wanted = by_name[f"rsd:{RSD_DEFAULT:g}"]["accuracy"]
    reached = [row for name, row in by_name.items() if name.startswith("arbitrage:") and row["accuracy"] >= wanted]
    best = min(reached or [by_name["arbitrage:0.1"]], key=lambda row: float(row["target_calls"]))
    return float(best["router"].partition(":")[2])


# Wall time


async def _time(
    engines: _Engines,
    problems: Sequence[Problem],
    matched: float,
    traced: Mapping[str, Sequence[Chain]],
    router_model: str,
) -> tuple[list[dict[str, Any]], dict[str, float | int | None]]:
    """Routers in turn, problem by problem, one at a time."""
    ours = f"arbitrage:{matched:g}"
    settings: dict[str, dict[str, Any]] = {name: {"router": name} for name in (*TIMED, ours)}
    settings[f"{ours} pipelined"] = {"router": ours, "pipeline": True}
    searches = {name: engines.search(**_chain(one, router_model)) for name, one in settings.items()}
    results: dict[str, list[Result]] = {name: [] for name in searches}
    for search in searches.values():
        await search.asolve(problems[0])
    for number, problem in enumerate(problems):
        names = list(searches)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(await searches[name].asolve(problem))
    seconds = {name: sum(one.stats.seconds for one in made) / len(made) for name, made in results.items()}
    rows = [
        {
            "router": name,
            "num_problems": len(made),
            "seconds_per_problem": seconds[name],
            "accuracy": sum(one.correct is True for one in made) / len(made),
            "models": costs_record(total_costs(one.models for one in made)),
        }
        for name, made in results.items()
    ]
    agreed = [
        one.correct == chain.correct
        for name, made in results.items()
        if (known := traced.get(name if ":" in name else f"{name}:0")) is not None and not name.startswith("random")
        for one, chain in zip(made, known, strict=False)
    ]
    plain, ahead = results[ours], results[f"{ours} pipelined"]
    equal = sum(nodes_of(one) == nodes_of(two) for one, two in zip(plain, ahead, strict=True))
    return rows, {
        "seconds_ratio_rsd_over_arbitrage": seconds["rsd:0.7"] / seconds[ours],
        "pipeline_speedup": seconds[ours] / seconds[f"{ours} pipelined"],
        "pipeline_equal": equal,
        "online_equal": sum(agreed) / len(agreed),
        "num_timed": len(problems),
    }


def _chain(more: Mapping[str, Any], router_model: str) -> dict[str, Any]:
    named = {"router_model": router_model} if str(more["router"]).startswith("arbitrage") else {}
    return {"method": "chain", "writer": "arbitrage", "temperature": 0.0, **named, **more}


# ETS


async def _ets(
    engines: _Engines, problems: Sequence[Problem], router: str, seed: int, router_model: str
) -> tuple[list[dict[str, Any]], dict[str, float | int | None]]:
    """ETS at width 16 with the target alone, with the draft alone, and with both under a router."""
    common = {"method": "ets", "width": 16, "seed": seed}
    named = {"router_model": router_model} if router.startswith("arbitrage") else {}
    settings: dict[str, dict[str, Any]] = {
        "target": {"policy": "mini:target"},
        "draft": {"policy": "mini:draft"},
        "routed": {"writer": "arbitrage", "router": router, **named},
    }
    measured: dict[str, Measured] = {}
    for name, more in settings.items():
        measured[name] = Measured()
        await measured[name].add(engines.search(**common, **more), problems)
        sys.stderr.write(f"ets, {name}: accuracy {measured[name].accuracy:.3f}, {measured[name].seconds:.0f} s\n")
    costs = {name: total_costs(result.models for result in one.results) for name, one in measured.items()}
    alone, routed = costs["target"]["policy"].sampled_tokens, costs["routed"][TARGET].sampled_tokens
    figures: dict[str, float | int | None] = {"ets_target_tokens_saved": alone / max(1, routed)}
    for name, one in measured.items():
        figures[f"ets_accuracy_{name}"] = one.accuracy
    for other in ("target", "draft"):
        keys = (f"ets_vs_{other}", f"ets_vs_{other}_lo", f"ets_vs_{other}_hi")
        figures |= dict(zip(keys, paired_difference(measured["routed"], measured[other]), strict=True))
    rows = [
        {**one.row(), "num_problems": len(problems), "writer": name, "models": costs_record(costs[name])}
        for name, one in measured.items()
    ]
    return rows, figures
