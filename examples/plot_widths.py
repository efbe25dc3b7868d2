"""Draws accuracy over width for every method from the output of `ets bench widths --json`.

Usage: python examples/plot_widths.py WIDTHS.json OUT.png
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

MARKERS = "osD^vPX"


def main(source: str, target: str) -> None:
    report = json.loads(Path(source).read_text())
    lines = defaultdict(list)
    for row in report["rows"]:
        lines[row["method"]].append(row)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for marker, (method, rows) in zip(MARKERS, lines.items(), strict=False):
        widths = [row["width"] for row in rows]
        accuracy = [row["accuracy"] for row in rows]
        errors = [
            [row["accuracy"] - row["accuracy_lo"] for row in rows],
            [row["accuracy_hi"] - row["accuracy"] for row in rows],
        ]
        axes.errorbar(widths, accuracy, errors, marker=marker, markersize=5, linewidth=1.4, capsize=2, label=method)
    axes.set_xscale("log", base=4)
    ticks = sorted({row["width"] for row in report["rows"]})
    axes.set_xticks(ticks, [str(width) for width in ticks])
    axes.set_xlabel("width (trajectories per problem)")
    axes.set_ylabel("accuracy, with 95% interval")
    axes.set_title(f"{report['num_problems']} problems of {report['data']}, seed {report['seed']}", fontsize=10)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:3])
