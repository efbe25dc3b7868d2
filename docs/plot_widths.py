"""Draws accuracy over width for every method from what `ets bench widths --json` printed.

Usage: python docs/plot_widths.py WIDTHS.json ... OUT.png
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

MARKERS = "osD^vPX*h"
SHIFT = 1.035
"""Methods stand a little beside each other, so that no interval hides another."""


def plot(reports: list[dict[str, Any]], target: Path) -> None:
    """One line for each method, with 95% intervals."""
    lines = defaultdict(list)
    for report in reports:
        for row in report["rows"]:
            lines[row["method"]].append(row)
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for place, (method, rows) in enumerate(lines.items()):
        rows.sort(key=lambda row: row["width"])
        accuracy = [row["accuracy"] for row in rows]
        below = [row["accuracy"] - row["accuracy_lo"] for row in rows]
        above = [row["accuracy_hi"] - row["accuracy"] for row in rows]
        axes.errorbar(
            [row["width"] * SHIFT ** (place - len(lines) / 2) for row in rows],
            accuracy,
            [below, above],
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            linewidth=1.3,
            capsize=2,
            label=method,
        )
    axes.set_xscale("log", base=4)
    ticks = sorted({row["width"] for report in reports for row in report["rows"]})
    axes.set_xticks(ticks, [str(width) for width in ticks])
    axes.minorticks_off()
    axes.set_xlabel("width (trajectories per problem)")
    axes.set_ylabel("accuracy, with 95% interval")
    counts = " and ".join(str(count) for count in sorted({report["num_problems"] for report in reports}, reverse=True))
    axes.set_title(f"the mini family on {counts} problems of {reports[0]['data']}", fontsize=10)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    plot([json.loads(Path(name).read_text()) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
