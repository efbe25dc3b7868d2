"""The gate of the mini family: which figure must lie where."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import NamedTuple


class GateResult(NamedTuple):
    """A line of the gate and what was measured: the figure's name, its bounds (None for none), and its value."""

    figure: str
    low: float | None
    high: float | None
    value: float

    @property
    def passed(self) -> bool:
        """Whether the value lies within the bounds."""
        return (-inf if self.low is None else self.low) <= self.value <= (inf if self.high is None else self.high)


GATE: Mapping[str, tuple[float | None, float | None]] = {
    "target_pass1": (0.35, 0.60),
    "target_pass16": (0.90, None),
    "greedy_minus_pass1": (0.0, None),
    "draft_pass1": (0.10, 0.30),
    "params_ratio": (4.0, None),
    "prm_auc": (0.93, None),
    "prm_auc_draft": (0.90, None),
    "weighted_minus_majority_16": (0.10, None),
    "weighted_minus_majority_16_lo": (0.0, None),
    "only_target_right": (0.10, None),
    "both_wrong": (0.08, None),
    "mean_steps": (4.0, 10.0),
    "rebase_minus_weighted_4": (0.0, None),
    "rebase_minus_weighted_16_hi": (0.0, None),
}
"""By figure the least and the greatest value that passes."""


def judge(figures: Mapping[str, float]) -> list[GateResult]:
    """The lines of the gate whose figures were measured, in order."""
    return [GateResult(name, *bounds, figures[name]) for name, bounds in GATE.items() if name in figures]
