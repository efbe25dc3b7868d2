"""Accuracy and cost of every search method over widths, on the mini family's test problems."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from search.catalogue import METHODS, load, pick
from search.problems.data import load_problems
from search.studies.measured import Measured, Models, measure, paired_difference

WIDTHS = (1, 4, 16)
"""Widths of the table; greedy runs at 1 alone, which is what it stands for."""


def run(
    limit: int = 100,
    seed: int = 0,
    data: str = "mini:test",
    widths: Sequence[int] = WIDTHS,
    methods: Sequence[str] = tuple(METHODS),
) -> dict[str, Any]:
    """Run every method at every width on the same problems and seeds.

    Args:
        limit: problems.
        seed: of all runs.
        data: the problems' source.
        widths: to go through.
        methods: to run; those after self-consistency are compared with it.

    Returns:
        `figures`: `accuracy_METHOD_W`, with hyphens in names as underscores, and for the gain from the least to the
        greatest width `gain_METHOD`, and over self-consistency's majority vote at the same width
        `over_majority_METHOD_W`, both with `_lo` and `_hi`, a paired 95% interval over problems; the work ratios
        `policy_work_METHOD_W` and `prm_work_METHOD_W` (computed over unique tokens), and `kv_peaks_equal`, 1 if the
        engine's peak was the ledger's own in every search by a method that waits for its levels (where leaves go on
        alone, the engine holds also what is being written). `rows`: the table with intervals and costs.
    """
    problems = load_problems(data, limit)
    models = Models.mini()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float | int] = {"kv_peaks_equal": 1}
    majorities: dict[int, Measured] = {}
    for method in methods:
        pick("method", method, METHODS)
    for method in methods:
        name = method.replace("-", "_")
        by_width: dict[int, Measured] = {}
        for width in (1,) if method == "greedy" else widths:
            measured = by_width[width] = measure(models, problems, method=method, width=width, seed=seed)
            row = measured.row()
            rows.append(row)
            figures[f"accuracy_{name}_{width}"] = row["accuracy"]
            figures[f"policy_work_{name}_{width}"] = row["computed_tokens"] / row["unique_tokens"]
            if row["prm_unique_tokens"]:
                figures[f"prm_work_{name}_{width}"] = row["prm_tokens"] / row["prm_unique_tokens"]
            if load(METHODS[method].policy).pace == "level" and any(
                r.stats.kv_tokens_engine_peak != r.stats.kv_tokens_ledger_peak for r in measured.results
            ):
                figures["kv_peaks_equal"] = 0
            sys.stderr.write(f"{method} {width}: accuracy {row['accuracy']:.3f}, {row['seconds_wall']:.1f} s\n")
        if len(by_width) > 1:
            gain = paired_difference(by_width[max(by_width)], by_width[min(by_width)])
            figures |= gain.figures(f"gain_{name}")
        for width, measured in by_width.items():
            majority = majorities.setdefault(width, measured) if method == "self-consistency" else majorities.get(width)
            if majority is not None and majority is not measured:
                figures |= paired_difference(measured, majority).figures(f"over_majority_{name}_{width}")
    return {
        "data": data,
        "num_problems": len(problems),
        "seed": seed,
        "figures": figures,
        "rows": rows,
    }
