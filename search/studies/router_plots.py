"""The two plots of `ets bench routers`: accuracy against acceptance, and accuracy against latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.errors import ConfigError
from search.plots import check_plots

KINDS = ("oracle", "arbitrage", "rsd", "judge", "random")
NAMED = {"never": "draft alone", "always": "target alone", "exact": "oracle by the exact checker"}
FILES = ("routers-acceptance.png", "routers-latency.png")


def plot(report: Mapping[str, Any], folder: Path) -> None:
    """Draw both from a report into a folder.

    Raises:
        ConfigError: matplotlib is not installed, or the folder cannot be written to.
    """
    check_plots()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, place, label in (
            (FILES[0], _acceptance, "share of the draft's steps that were kept"),
            (FILES[1], _latency, "projected seconds a problem, 1B draft, 8B target, 1.5B router (assumed hardware)"),
        ):
            figure, axes = pyplot.subplots(figsize=(7, 4.5))
            for kind in KINDS:
                rows = [row for row in report["rows"] if row["router"].startswith(f"{kind}:")]
                points = sorted((x, row["accuracy"]) for row in rows if (x := place(row)) is not None)
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=kind)
            for row in report["rows"]:
                if row["router"] in NAMED and (x := place(row)) is not None:
                    axes.plot(x, row["accuracy"], marker="*", markersize=10, linestyle="", label=NAMED[row["router"]])
            axes.set_xlabel(label)
            axes.set_ylabel(f"accuracy, {report['num_problems']} problems")
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
            figure.tight_layout()
            figure.savefig(folder / file, dpi=110, metadata={"Software": ""})
            pyplot.close(figure)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror or error}") from None


def _acceptance(row: Mapping[str, Any]) -> float | None:
    return 1 - float(row["target_share"])


def _latency(row: Mapping[str, Any]) -> float | None:
    value = row.get("projected_seconds_1b_8b")
    return None if value is None else float(value)
