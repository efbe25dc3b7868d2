"""The whole gate of the mini family: its flat figures, and those that need a tree search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from search.data import load_problems
from search.mini.check import CheckReport, check
from search.mini.gate import judge
from search.statistics import paired_bootstrap
from search.studies.measured import Models, measure

SEARCH_WIDTHS = (4, 16)


def run(
    *,
    weights: Path | None = None,
    split: str = "test",
    num_problems: int = 300,
    seeds: Sequence[int] = (0, 1),
    say: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Measure the family as `search.mini.check.check` does, and REBASE against a flat weighted vote.

    Adds to the figures, for widths W of 4 and 16: `rebase_W`, `weighted_W` (best-of-n, weighted vote) and
    `rebase_minus_weighted_W` with `_lo` and `_hi`, means over the seeds with 95% intervals paired by problem.

    Raises:
        ConfigError, DataError: as `search.mini.check.check`.
    """
    report = check(weights=weights, split=split, num_problems=num_problems, seeds=seeds, say=say)
    models = Models.mini(weights)
    problems = load_problems(f"mini:{split}", num_problems)
    figures = dict(report.figures)
    for width in SEARCH_WIDTHS:
        means: dict[str, list[float]] = {}
        for method in ("rebase", "best-of-n"):
            say(f"{method} at width {width}")
            runs = [measure(models, problems, method=method, width=width, seed=seed).right for seed in seeds]
            means[method] = [sum(column) / len(seeds) for column in zip(*runs, strict=True)]
        differences = [a - b for a, b in zip(means["rebase"], means["best-of-n"], strict=True)]
        name = f"rebase_minus_weighted_{width}"
        figures[f"rebase_{width}"] = sum(means["rebase"]) / len(problems)
        figures[f"weighted_{width}"] = sum(means["best-of-n"]) / len(problems)
        figures[name] = sum(differences) / len(problems)
        figures[f"{name}_lo"], figures[f"{name}_hi"] = paired_bootstrap(differences)
    return replace(report, figures=figures, gate=tuple(judge(figures)))
