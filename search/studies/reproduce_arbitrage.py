"""`ets repro arbitrage`: RSD, the oracle and Arbitrage over their thresholds, latency, and the router's ablations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from search.learning.low_bit import packed_bytes
from search.runs.report import Run
from search.studies import ablations, published
from search.studies.document import NOT_RUN, UNKNOWN, Claim, Document, above, times
from search.studies.recipe import ArbitrageRecipe, Routers
from search.studies.recipe_runs import Planned, Say, collect, execute, provenance, summed
from search.studies.router_costs import OWN_PAIR, PAIRS, Chain, Hardware, Sizes, cost_names
from search.studies.router_table import ENDS, Routed, compare_routers, plot_routers
from search.support.tables import Cell, Table, difference, share

LEAST_PROJECTED = 1e8
"""Parameters of the target from which on a pair's own seconds are projected: a smaller one's time is not what its bytes
and FLOPs take."""


def chosen(recipe: ArbitrageRecipe, quick: bool) -> Routers:
    """The recipe's routers, or its quick ones."""
    return recipe.quick if quick and recipe.quick is not None else recipe.routers


def plan(recipe: ArbitrageRecipe, *, quick: bool = False) -> dict[str, Planned]:
    """The runs by name: routers, and `latency NAME` for those that are timed one problem at a time."""
    wanted = chosen(recipe, quick)
    planned = {}
    for name in recipe.names(wanted):
        settings = recipe.evaluation(recipe.router(name), wanted.limit)
        planned[name] = Planned(name, settings, recipe.concurrency)
    for name in wanted.latency if wanted.latency_limit else ():
        settings = recipe.evaluation(recipe.router(name), wanted.latency_limit)
        planned[f"latency {name}"] = Planned(f"latency-{name}", settings, 1)
    return planned


def reproduce(
    recipe: ArbitrageRecipe, runs: Path, *, quick: bool = False, images: Path | None = None, say: Say = lambda _: None
) -> Document:
    """Run what is missing and make the tables from the records.

    Args:
        recipe: what to run.
        runs: folder of the runs; they are gone on with.
        quick: the recipe's quick routers.
        images: folder for the figures; None draws none.
        say: told of progress.

    Raises:
        ConfigError, SearchError: as `search.studies.recipe_runs.execute`.
    """
    planned = plan(recipe, quick=quick)
    execute([[one for name, one in planned.items() if not name.startswith("latency ")]], runs, recipe.turn, say,
            memory=runs / "memory" if recipe.remember else None)  # fmt: skip
    timed = [one for name, one in planned.items() if name.startswith("latency ")]
    if timed:
        execute([timed], runs, 10, say)
    done = {name: collect(one, runs) for name, one in planned.items()}
    routers = {name: run for name, run in done.items() if not name.startswith("latency ")}
    latency = {name.removeprefix("latency "): run for name, run in done.items() if name.startswith("latency ")}
    parameters = _parameters(routers.values())
    own = _own_pair(recipe, parameters)
    pairs = (*PAIRS, own) if own else PAIRS
    routed = _routed(routers, pairs)
    rows = [one.row(parameters) for one in routed]
    curves = {one.kind: one.kind for one in routed if one.name not in ENDS}
    seed = next(iter(routers.values())).settings.seed
    learned = _learned(curves)
    figures: dict[str, float | int | None] = {**compare_routers(routed, parameters, seed, curves, learned=learned)}
    measured = ablations.measure(recipe, chosen(recipe, quick).ablation_limit, runs, say)
    for name, run in routers.items():
        figures[f"accuracy_{name}"] = run.summary.accuracy
        figures[f"policy_tokens_{name}"] = round(summed(run, "policy_tokens"))
    names: tuple[str, ...] = ()
    if images is not None:
        timed_rows = [{**one.row(parameters), "seconds": _seconds(latency[one.name])} for one in _routed(latency)]
        names = plot_routers(rows, timed_rows, "latency, seconds a problem, one at a time", images)
    return Document(
        "arbitrage",
        recipe.title,
        _claims(figures),
        (
            _router_table(rows, own or PAIRS[0]),
            _matched_table(figures, learned, pairs),
            *([_latency_table(recipe, latency)] if latency else []),
            *([ablations.table(measured)] if recipe.ablations else []),
        ),
        figures | {f"spearman_{name}": one["spearman"] for name, one in measured.items()},
        provenance(routers, runs, ("draft", "target")),
        recipe.notes,
        _shown(recipe, routers),
        names,
    )


def _learned(kinds: Iterable[str]) -> str:
    """The kind of router that learned: Arbitrage's own where it ran, else a probe."""
    return "arbitrage" if "arbitrage" in kinds else "probe"


def _own_pair(recipe: ArbitrageRecipe, parameters: Mapping[str, float]) -> Sizes | None:
    """The pair that ran, with the bytes that a low-bit draft would have, packed; None where the sizes are unknown.

    None as well for a small target, unless the draft is its low-bit copy: those stand for no pair of other sizes.
    """
    packed = packed_bytes(recipe.evaluation({}, 1).draft)
    least = LEAST_PROJECTED if packed is None else 1
    if not parameters["draft"] or parameters["target"] < least:
        return None
    listed = next((model.bytes_per_parameter for model in recipe.models if model.role == "draft"), 2.0)
    sizes = {role: value / 1e9 for role, value in parameters.items()}
    return Sizes(OWN_PAIR, **sizes, draft_bytes=listed if packed is None else packed)


def _routed(routers: Mapping[str, Run], pairs: Sequence[Sizes] = PAIRS) -> list[Routed]:
    """The chains of each run, from its records; who judged by a model has it among the models of its run."""
    routed = []
    for name, run in routers.items():
        chains = []
        for record in run.records:
            assert record.tree is not None
            chains.append(Chain.of(record.tree.nodes, record.correct))
        judge = "" if name.startswith("judge") or "router" in run.summary.models else "none"
        routed.append(Routed(name, chains, pairs=pairs, judge=judge))
    return routed


def _parameters(runs: Iterable[Run]) -> dict[str, float]:
    """Parameters by role, as the records' engines said; 0 where none did."""
    parameters = {"draft": 0.0, "target": 0.0, "router": 0.0}
    for run in runs:
        for role, cost in run.summary.models.items():
            if role in parameters:
                parameters[role] = max(parameters[role], float(cost.num_parameters or 0))
    return parameters


def _router_table(table: Sequence[Mapping[str, Any]], pair: Sizes) -> Table:
    projected = f"projected_seconds_{pair.name}"
    rows: list[list[tuple[str, Cell]]] = []
    for row in table:
        flops, seconds = (f"{row[key]:.3g}" if projected in row else None for key in ("flops", projected))
        rows.append(
            [
                ("router", row["router"]),
                ("problems", row["num_problems"]),
                ("accuracy, 95% interval", share(row["accuracy"], (row["accuracy_lo"], row["accuracy_hi"]))),
                ("acceptance rate", f"{1 - row['target_share']:.3f}"),
                ("target calls a problem", f"{row['target_calls']:.2f}"),
                ("draft tokens kept", f"{row['draft_tokens_kept']:.1f}"),
                ("draft tokens dropped", f"{row['draft_tokens_dropped']:.1f}"),
                ("target tokens", f"{row['target_tokens_kept']:.1f}"),
                ("FLOPs a problem", flops),
                (f"seconds a problem, projected to {_pair_name(pair)}", seconds),
            ]
        )
    notes = (
        "Acceptance counts steps. FLOPs: 2 x parameters x tokens over draft, target and router or reward model. "
        f"Projected: the same chains, had the models these sizes, {_assumed(pair)}. The oracle "
        "sees both steps and has no cost of its own. The papers' curves are drawn, not tabled: published cells are "
        "unknown.",
    )
    return Table.of("routers", "Accuracy against acceptance", rows, notes)


def _pair_name(pair: Sizes) -> str:
    return f"the models' own sizes, {pair.draft:.3g}B and {pair.target:.3g}B" if pair.name == OWN_PAIR else "1B/8B"


def _assumed(pair: Sizes) -> str:
    hardware = Hardware()
    return (
        f"on hardware that is only assumed (one at a time, {hardware.bytes_per_second / 1e9:g} GB/s, "
        f"{hardware.bytes_per_parameter:g} bytes a parameter, the draft's {pair.draft_bytes:.3g})"
    )


def _matched_table(figures: Mapping[str, float | int | None], learned: str, pairs: Sequence[Sizes]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for key in cost_names(pairs):
        name = f"{key}_ratio_rsd_over_{learned}"
        value, low, high = (figures.get(f"{name}{end}") for end in ("", "_lo", "_hi"))
        ours = "not reached" if value is None else f"{value:.2f}x ({low:.2f} to {high:.2f})"
        seconds = "seconds" in key
        theirs = "; ".join(f"up to {ratio:.2f}x ({where})" for where, ratio in published.ARBITRAGE_SPEEDUPS.items())
        rows.append((key.replace("_", " "), ours, theirs if seconds else UNKNOWN))
    for at in ("10", "20", "30", "mean"):
        key = f"accuracy_gain_vs_rsd_{at}"
        values = [figures.get(f"{key}{end}") for end in ("", "_lo", "_hi")]
        known_values = [float(value) for value in values if value is not None]
        shown = difference(*known_values) if len(known_values) == 3 else NOT_RUN
        where = "mean" if at == "mean" else f"{at}% of steps by the target"
        rows.append((f"accuracy over RSD's, {where}", shown, UNKNOWN))
    for kind in ("oracle", "arbitrage", "probe", "rsd", "random"):
        area = figures.get(f"auc_{kind}")
        interval = [figures.get(f"auc_{kind}{end}") for end in ("_lo", "_hi")]
        shown = NOT_RUN if area is None else share(float(area), [float(bound or 0) for bound in interval])
        rows.append((f"area under accuracy against share, {kind}", shown, UNKNOWN))
    columns = (f"RSD over {learned}", "ours, 95% interval", "published")
    notes = (
        "Costs: RSD's at its default threshold 0.7, or its first where that did not run, over those of the learned "
        f"router ({learned}) at the accuracy that RSD reaches there. The "
        f"authors also found that at 70% deferral RSD writes about {published.RSD_WASTE:.0%} of all steps again "
        "without gain; `ets bench routers` measures that as waste.",
    )
    return Table("matched", "The learned router against RSD", columns, tuple(rows), notes)


def _latency_table(recipe: ArbitrageRecipe, latency: Mapping[str, Run]) -> Table:
    rsd = next((run for name, run in latency.items() if name.startswith("rsd")), None)
    rows: list[tuple[Cell, ...]] = []
    for name, run in latency.items():
        summary = run.summary
        assert summary.accuracy is not None
        ratio = None if rsd is None else _seconds(rsd) / _seconds(run)
        rows.append(
            (
                name,
                len(run.records),
                share(summary.accuracy, summary.accuracy_ci95),
                f"{_seconds(run):.3f}",
                times(ratio),
                "; ".join(f"{role} {cost.seconds / len(run.records):.3f}" for role, cost in summary.models.items()),
            )
        )
    columns = ("router", "problems", "accuracy, 95% interval", "seconds a problem", "RSD over this", "seconds by model")
    theirs = "; ".join(f"{where}: up to {ratio:.2f}x" for where, ratio in published.ARBITRAGE_SPEEDUPS.items())
    notes = (f"One problem at a time. Published, Arbitrage over RSD at matched accuracy: {theirs}.",)
    return Table("latency", "Latency, one problem at a time", columns, tuple(rows), notes)


def _seconds(run: Run) -> float:
    return summed(run, "seconds") / len(run.records)


def _claims(figures: Mapping[str, float | int | None]) -> tuple[Claim, ...]:
    claims = []
    order = [kind for kind in ("oracle", "arbitrage", "probe", "rsd", "random") if f"auc_{kind}" in figures]
    for better, worse in pairwise(order):
        less = f"auc_{better}_less_{worse}"
        gain, low, high = (float(figures[less + end] or 0) for end in ("", "_lo", "_hi"))
        detail = f"area under accuracy against share, {better} less {worse} {difference(gain, low, high)}"
        claims.append(Claim(f"{better} is above {worse}", above(low, high), detail))
    name = f"target_calls_ratio_rsd_over_{_learned(order)}"
    if name in figures:
        claim = "at RSD's accuracy the learned router calls the target less often"
        value, least, most = (figures.get(name + end) for end in ("", "_lo", "_hi"))
        if value is None or least is None or most is None:
            claims.append(Claim(claim, "cannot be told", "it never reaches it"))
        else:
            claims.append(Claim(claim, above(least - 1, most - 1), f"{value:.2f}x ({least:.2f} to {most:.2f})"))
    return tuple(claims)


def _shown(recipe: ArbitrageRecipe, routers: Mapping[str, Run]) -> tuple[str, ...]:
    first = next(iter(routers.values())).settings
    seconds = (
        "All routers share what the models wrote, so the seconds in the records say nothing."
        if recipe.remember
        else "Seconds depend on the machine and its other work."
    )
    texts = [f"Chains are greedy: equal settings give equal tokens. {seconds}"]
    if first.target.startswith("mini:"):
        texts.append(
            "Router and reward model of the mini family are as large as its target, so its own FLOPs and seconds gain "
            "nothing from fewer target calls; the projected columns say what the same chains would cost at the papers' "
            "sizes."
        )
    return tuple(texts)
