"""`ets bench coverage`: what methods keep of recorded steps, and whether what they keep leads to right answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ets import Ets, EtsKv, EtsPaper
from ets.embedders import make_embedder
from search.allocate import rebase_allocation
from search.errors import ConfigError
from search.policies import Dvts, Rebase
from search.protocols import Policy
from search.studies.measured import suffix
from search.studies.recorded import AUC
from search.studies.recorded_cases import Allocation, Cases, Chooser, Measured, by_policy
from search.studies.recorded_levels import Level, read_levels
from search.support.plots import Point, Series, plot_accuracy
from search.support.statistics import mean_estimate, paired_estimate
from search.tree import derive_seed
from search.types import Reduce

DRAWS = 3
"""Simulations of each level's rewards."""

TEMPERATURES = (0.05, 0.1, 0.2, 0.4)
ETS_WEIGHTS = (1.0, 1.5, 2.25, 3.0, 4.0, 6.0, 9.0)
KV_WEIGHTS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
SUBTREES = (1, 2, 3, 4, 6)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Where the curves of REBASE, ETS, ETS-KV, DVTS and random leaves have their points."""

PLOTS = ("coverage-mass.png", "coverage-survival.png")

_FIGURES = ("mass", "survival")


def run(
    data: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    repeats: int = DRAWS,
    embedder: str = "tfidf",
    plots: Path | None = None,
) -> dict[str, Any]:
    """Let every method select at every recorded level.

    Of whole solutions (rows `problem`, `text`, `answer`, `correct`) the first two levels are rebuilt as trees: steps as
    `search.steps` cuts them, equal beginnings once. Their rewards are simulated: those of right and of wrong
    solutions differ so much that the AUC within a problem is `AUC`, and are calibrated at even odds. Of a
    real run (a folder of `ets eval --out`) all selections are read, with their own rewards where it had any, over
    the candidates below which a trajectory finished: of pruned ones nobody knows where they would have led.

    Args:
        data: a file of solutions, or a run's folder.
        limit: problems at most.
        seed: of the simulated rewards.
        repeats: draws of simulated rewards.
        embedder: what compares steps, as in the settings.
        plots: folder for the curves, tokens kept against mass and against survival; needs matplotlib.

    Returns:
        `figures`, for ETS against REBASE: `kv_ratio` (kept tokens of REBASE over those of ETS, totals), `mass_diff` and
        `survival_diff` (points, with `_lo` and `_hi`: paired 95% interval over problems); the same of every other
        method with its name as a suffix, e.g. `kv_ratio_ets_kv`; `_random` keeps leaves at random, to ETS's tokens.
        The same of ETS in either half of the problems, `_half_1` and `_half_2`. `mass_gain_X` and `survival_gain_X`:
        ETS less X at equal tokens, for X `random` and `ets_kv` (at the weight of its curve that keeps as much).
        `rows`: the curves, one point for each method and setting.

    Raises:
        ConfigError: no data, or what `read_levels` and `make_embedder` say.
        DataError: as `read_levels`.
    """
    if data is None:
        raise ConfigError("bench coverage needs --data: a file of solutions (.jsonl or .jsonl.gz), or a run's folder")
    levels, reduce = read_levels(Path(data), limit)
    cases = Cases.draw(levels, seed, repeats)
    cases.embed(make_embedder(embedder))
    base = cases.measure(by_policy(Rebase(reduce=reduce)))
    measured = {name: cases.measure(by_policy(policy)) for name, policy in _methods(reduce).items()}
    ets = measured["ets"]
    measured["random"] = cases.measure(_at_random(seed, iter(ets.outcomes[:, 0].tolist()), reduce))
    figures: dict[str, float | int | None] = {"num_problems": int(cases.problem[-1]) + 1, "num_levels": len(levels)}
    figures["auc_rewards"] = cases.auc
    for name, other in measured.items():
        figures |= _against(base, other, cases.problem, suffix(name))
    for half in (0, 1):
        rows = cases.problem % 2 == half
        if rows.any():
            first, second = (Measured(one.outcomes[rows]) for one in (base, ets))
            figures |= _against(first, second, cases.problem[rows], f"_half_{half + 1}")
    curves = _curves(cases, reduce, seed)
    matched = _at_tokens([*curves["ets-kv"].values()], ets.tokens)
    for name, alike in (("random", measured["random"]), ("ets_kv", matched)):
        if alike is not None:
            figures |= _difference("gain", f"_{name}", ets, alike, cases.problem)
    rows_out = [
        _row("rebase", "", base, cases.problem),
        *(_row(name, "", other, cases.problem) for name, other in measured.items()),
        *(_row(name, at, point, cases.problem) for name, curve in curves.items() for at, point in curve.items()),
    ]
    if plots is not None:
        _draw(rows_out, plots)
    return {
        "data": data,
        "seed": seed,
        "repeats": repeats,
        "embedder": embedder,
        "rewards": "recorded" if levels[0].scored else f"simulated, AUC {AUC} within a problem",
        "figures": figures,
        "rows": rows_out,
    }


def _methods(reduce: Reduce) -> dict[str, Policy]:
    return {
        "ets": Ets(reduce=reduce),
        "ets-kv": EtsKv(reduce=reduce),
        "ets-paper": EtsPaper(reduce=reduce),
        "dvts": Dvts(reduce=reduce),
    }


def _curves(cases: Cases, reduce: Reduce, seed: int) -> dict[str, dict[str, Measured]]:
    """Each method over its own weight: by method, and by the weight in words."""
    policies: dict[str, dict[str, Policy]] = {
        "rebase": {f"T {value}": Rebase(temperature=value, reduce=reduce) for value in TEMPERATURES},
        "ets": {f"lambda_b {value}": Ets(node_cost_weight=value, reduce=reduce) for value in ETS_WEIGHTS},
        "ets-kv": {f"lambda_b {value}": EtsKv(node_cost_weight=value, reduce=reduce) for value in KV_WEIGHTS},
        "dvts": {f"{value} subtrees": Dvts(num_subtrees=value, reduce=reduce) for value in SUBTREES},
    }
    curves = {
        name: {at: cases.measure(by_policy(policy)) for at, policy in by_weight.items()}
        for name, by_weight in policies.items()
    }
    whole = [level.kept_tokens(level.right) for level, _ in cases]
    curves["random"] = {
        f"{share:.0%} of the tokens": cases.measure(_at_random(seed, (share * all_of for all_of in whole), reduce))
        for share in SHARES
    }
    return curves


def _at_random(seed: int, tokens: Iterator[float], reduce: Reduce) -> Chooser:
    """Leaves in a random order until a number of tokens is reached, on average; one child each, the rest by REBASE.

    Args:
        seed: of the orders.
        tokens: what is to be kept in each case.
        reduce: which reward of a leaf's path is meant.
    """

    def choose(level: Level, number: int) -> Allocation:
        rng = random.Random(derive_seed(seed, "random", level.problem, level.depth, number))
        order, budget = list(level.right), next(tokens)
        rng.shuffle(order)
        kept = order[:1]
        for leaf in order[1:]:
            before, after = level.kept_tokens(kept), level.kept_tokens([*kept, leaf])
            if after > budget and rng.random() * (after - before) >= budget - before:
                break
            kept.append(leaf)
        kept = sorted(kept[: level.width])
        rewards = [level.tree.path_reward(leaf, reduce) for leaf in kept]
        more = rebase_allocation(rewards, level.width - len(kept))
        return {leaf: 1 + count for leaf, count in zip(kept, more, strict=True)}

    return choose


def _at_tokens(curve: Sequence[Measured], tokens: float) -> Measured | None:
    """What a method keeps at so many tokens: its two nearest settings, each in its share; None outside of its curve."""
    ordered = sorted(curve, key=lambda point: point.tokens)
    for fewer, more in pairwise(ordered):
        if fewer.tokens <= tokens <= more.tokens and fewer.tokens < more.tokens:
            share = (tokens - fewer.tokens) / (more.tokens - fewer.tokens)
            return Measured((1 - share) * fewer.outcomes + share * more.outcomes)
    return None


def _against(base: Measured, other: Measured, problem: NDArray[np.int64], ending: str) -> dict[str, float]:
    """Figures of a method against REBASE."""
    ratio = {f"kv_ratio{ending}": base.tokens / max(other.tokens, 1.0)}
    return ratio | _difference("diff", ending, other, base, problem)


def _difference(
    kind: str, ending: str, first: Measured, second: Measured, problem: NDArray[np.int64]
) -> dict[str, float]:
    """Mass and survival of `one` less that of `other`, in points, paired by problem."""
    ours, theirs = (100 * each.by_problem(problem).T for each in (first, second))
    figures: dict[str, float] = {}
    for column, name in enumerate(_FIGURES, 1):
        figures |= paired_estimate(ours[column], theirs[column]).figures(f"{name}_{kind}", ending)
    return figures


def _row(method: str, setting: str, measured: Measured, problem: NDArray[np.int64]) -> dict[str, Any]:
    """A point of a curve, mass and survival with their interval over problems."""
    shares = measured.by_problem(problem)
    row: dict[str, Any] = {"method": method, "setting": setting, "kept_tokens": measured.tokens}
    for column, name in enumerate(_FIGURES, 1):
        row |= mean_estimate(shares[:, column].tolist()).figures(name)
    return row


def _draw(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The curves, with a cross-section of the default settings' points."""
    for name, file in zip(_FIGURES, PLOTS, strict=True):
        by_method: dict[str, list[Point]] = {}
        for row in rows:
            point = Point(row["kept_tokens"], row[name], row[f"{name}_lo"], row[f"{name}_hi"])
            by_method.setdefault(row["method"], []).append(point)
        series = [Series(method, tuple(points)) for method, points in by_method.items()]
        plot_accuracy(series, "tokens kept of a level, mean", folder / file, y_label=f"{name}, share")
