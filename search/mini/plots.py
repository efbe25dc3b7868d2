"""The training curves of the family as one figure."""

from __future__ import annotations

import json
from pathlib import Path

from search.errors import DataError
from search.mini.card import TRAINING_FILE
from search.mini.recipes import ROLES
from search.support.plots import check_plots

_SHOWN = {
    "target": ("pass1", "greedy", "wrong_steps"),
    "draft": ("pass1", "greedy", "wrong_steps"),
    "prm": ("auc", "draft_auc", "reward_wrong"),
}


def plot_curves(weights: Path, out: Path) -> None:
    """Draw the dev curves of target, draft and PRM side by side, over millions of training tokens.

    Args:
        weights: folder with the three checkpoints.
        out: image file; its name's ending decides the format.

    Raises:
        ConfigError: if matplotlib is not installed (extra ``plots``).
        DataError: if a training's notes cannot be read.
    """
    check_plots()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, role in zip(figure.subplots(1, len(ROLES)), ROLES, strict=True):
        path = weights / role / TRAINING_FILE
        try:
            curve = json.loads(path.read_text(encoding="utf-8"))["curve"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: no training notes that can be read: {error}") from error
        for name in _SHOWN[role]:
            points = [(point["tokens"] / 1e6, point[name]) for point in curve if name in point]
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
        axes.set(title=role, xlabel="million tokens", ylim=(0, 1))
        axes.legend(fontsize="small")
    figure.savefig(out, dpi=120)
