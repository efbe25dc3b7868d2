"""Plots of runs: accuracy against what it cost, and the KV cache over depth. Readable in grey; axes have units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.errors import ConfigError
from search.support.extras import install

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", "--", ":", "-.")
_GREYS = ("0.0", "0.35", "0.55", "0.2")


@dataclass(frozen=True, slots=True)
class Point:
    """A run in a plot.

    Attributes:
        x: what it cost, in the axis's unit.
        y, low, high: its figure and the bounds of its 95% interval.
        note: a short word beside the point, e.g. a width.
    """

    x: float
    y: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points that belong together, e.g. a method over its widths."""

    name: str
    points: tuple[Point, ...]


def check_plots() -> None:
    """See before the work whether plots can be drawn after it.

    Raises:
        ConfigError: matplotlib is not installed; says how to get it.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(_needs())


def _needs() -> str:
    return f"plots need matplotlib: {install('plots')}"


def plot_accuracy(
    series: Sequence[Series], label: str, file: Path, *, y_label: str = "", from_zero: bool = False
) -> None:
    """Accuracy, or another figure, with its interval against a cost.

    Args:
        series: one line each.
        label: of the x axis, with its unit.
        file: where the PNG goes.
        y_label: of the y axis, where it is not the accuracy.
        from_zero: whether the y axis begins at 0.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(_needs()) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    try:
        for number, one in enumerate(series):
            points = sorted(one.points, key=lambda point: point.x)
            errors = [[p.y - p.low for p in points], [p.high - p.y for p in points]]
            style = _style(number)
            axes.errorbar(
                [p.x for p in points], [p.y for p in points], yerr=errors, label=one.name, capsize=2, lw=1.2, **style
            )
            for point in points:
                if point.note:
                    place: dict[str, Any] = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 7}
                    axes.annotate(point.note, (point.x, point.y), **place)
        axes.set_xlabel(label)
        axes.set_ylabel(y_label or "accuracy, share of problems (bars: 95% interval)")
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.tight_layout()
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110, metadata={"Software": ""})
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from None
    finally:
        pyplot.close(figure)


def _style(number: int) -> dict[str, Any]:
    return {
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "color": _GREYS[number % len(_GREYS)],
        "markersize": 5,
        "markerfacecolor": "white" if number // len(_GREYS) % 2 else _GREYS[number % len(_GREYS)],
    }
