"""Routers over their thresholds: a row of figures for each, how their curves compare, and the two plots of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.studies.router_costs import (
    JUDGE_OF,
    PAIRS,
    Chain,
    Sizes,
    Work,
    cost_names,
    costs_of,
    flops,
    projected_seconds,
    work_of,
)
from search.studies.router_curves import Comparison, Outcomes
from search.support.plots import Point, Series, plot_accuracy
from search.support.statistics import wilson_interval

RSD_DEFAULT = "rsd:0.7"
ENDS = ("never", "always")
"""The draft alone and the target alone, the two ends of every curve."""

FREE = ("oracle", "exact")
"""Routers that see both steps, so that what they cost is no cost of a router."""

PROJECTED = f"projected_seconds_{PAIRS[0].name}"
PLOTS = ("routers-acceptance.png", "routers-latency.png")


@dataclass(frozen=True, slots=True)
class Routed:
    """All problems under one router.

    Attributes:
        name: e.g. "rsd:0.7".
        chains: in the order of the problems.
        question_tokens: that a judging target reads after each step.
        pairs: that its costs are projected to.
        judge: who decides, one of `search.studies.router_costs.JUDGES`; empty for what its kind says.
    """

    name: str
    chains: Sequence[Chain]
    question_tokens: int = 0
    pairs: Sequence[Sizes] = PAIRS
    judge: str = ""

    @property
    def kind(self) -> str:
        """Its name without the threshold."""
        return self.name.partition(":")[0]

    def works(self) -> list[dict[str, Work]]:
        """What draft, target and router did for each problem."""
        judge, drafts = self.judge or JUDGE_OF.get(self.kind, "none"), self.kind != "always"
        return [work_of(chain, judge, drafts=drafts, question_tokens=self.question_tokens) for chain in self.chains]

    def outcomes(self, parameters: Mapping[str, float]) -> Outcomes:
        """For the comparison of curves, with the costs of `cost_names`."""
        return Outcomes.of(self.chains, costs_of(self.works(), parameters, self.pairs))

    def row(self, parameters: Mapping[str, float]) -> dict[str, Any]:
        """Accuracy, shares and costs; tokens, calls and FLOPs are means over problems.

        Args:
            parameters: of the models that ran, by role.
        """
        steps = [step for chain in self.chains for step in chain.steps]
        escalated = [step for step in steps if step.escalated]
        count, right = len(self.chains), sum(chain.correct for chain in self.chains)
        low, high = wilson_interval(right, count)
        by_step = []
        for place in range(8):
            here = [chain.steps[place].escalated for chain in self.chains if len(chain.steps) > place]
            by_step.append(1 - sum(here) / len(here) if here else None)
        works = self.works()
        row: dict[str, Any] = {
            "router": self.name,
            "num_problems": count,
            "accuracy": right / count,
            "accuracy_lo": low,
            "accuracy_hi": high,
            "target_share": len(escalated) / max(1, len(steps)),
            "acceptance_by_step": by_step,
            "target_calls": len(escalated) / count,
            "draft_tokens_kept": sum(step.draft_tokens for step in steps if not step.escalated) / count,
            "draft_tokens_dropped": sum(step.draft_tokens for step in escalated) / count,
            "target_tokens_kept": sum(step.target_tokens for step in escalated) / count,
            "flops": sum(flops(work, parameters) for work in works) / count,
        }
        if self.kind not in FREE:
            for pair in self.pairs:
                row[f"projected_seconds_{pair.name}"] = sum(projected_seconds(work, pair) for work in works) / count
        return row


def compare_routers(
    routed: Iterable[Routed],
    parameters: Mapping[str, float],
    seed: int,
    curves: Mapping[str, str],
    *,
    learned: str = "arbitrage",
) -> dict[str, float | None]:
    """Figures of curves of accuracy against the share of the target's steps, all with `_lo` and `_hi`.

    Args:
        routed: the routers, both `ENDS` among them.
        parameters: of the models that ran, by role.
        seed: of the resampling.
        curves: the name of each kind's curve; kinds without one are left out.
        learned: the kind that is compared with RSD: arbitrage, or probe.

    Returns:
        `accuracy_gain_vs_rsd_*`, `auc_CURVE`, `auc_CURVE_less_OTHER`, and what RSD costs at its default, or at the
        first of its thresholds where that did not run, over what the learned router does at the accuracy that RSD
        reaches there:
        `KEY_ratio_rsd_over_LEARNED` for KEY of `cost_names`.
    """
    every = {router.name: router for router in routed}
    ends = [every[name].outcomes(parameters) for name in ENDS]
    members = {kind: [name for name, router in every.items() if router.kind == kind] for kind in curves}
    compared = Comparison(
        {
            curve: [*(every[name].outcomes(parameters) for name in members[kind]), *ends]
            for kind, curve in curves.items()
            if members[kind]
        },
        seed,
    )
    figures: dict[str, float | None] = {**compared.gain(learned, "rsd"), **compared.areas()}
    at = members["rsd"].index(RSD_DEFAULT) if RSD_DEFAULT in every else 0
    pairs = every[ENDS[0]].pairs
    return figures | compared.cost_ratios(learned, "rsd", at, cost_names(pairs))


def plot_routers(
    rows: Sequence[Mapping[str, Any]], timed: Sequence[Mapping[str, Any]], label: str, folder: Path
) -> tuple[str, ...]:
    """Draw accuracy against acceptance, and against latency where it is known; the files' names.

    Args:
        rows: as of `Routed.row`.
        timed: the same, with `seconds` of a problem.
        label: of these.
        folder: for the files.

    Raises:
        ConfigError: matplotlib is not installed, or a file cannot be written.
    """
    kept = [(row, 1 - row["target_share"]) for row in rows]
    plot_accuracy(_series(kept), "acceptance rate, share of steps that are the draft's", folder / PLOTS[0])
    if not timed:
        return PLOTS[:1]
    plot_accuracy(_series([(row, row["seconds"]) for row in timed]), label, folder / PLOTS[1])
    return PLOTS


def plot_projected(rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[str, ...]:
    """Draw both plots, with projected seconds as the latency."""
    label = "projected seconds a problem, 1B draft, 8B target, 1.5B router (assumed hardware)"
    timed = [{**row, "seconds": row[PROJECTED]} for row in rows if PROJECTED in row]
    return plot_routers(rows, timed, label, folder)


def _series(points: Iterable[tuple[Mapping[str, Any], float]]) -> list[Series]:
    """A line for each kind of router, its thresholds the points."""
    kinds: dict[str, list[Point]] = {}
    for row, place in points:
        kind, _, threshold = row["router"].partition(":")
        point = Point(place, row["accuracy"], row["accuracy_lo"], row["accuracy_hi"], threshold)
        kinds.setdefault(kind, []).append(point)
    return [Series(kind, tuple(points_of)) for kind, points_of in kinds.items()]
