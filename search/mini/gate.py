"""The gate of the mini family: which figure must lie where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GateLine:
    """A bound on a figure.

    Attributes:
        figure: its name in the check's figures.
        low: smallest value that passes, or None.
        high: largest value that passes, or None.
    """

    figure: str
    low: float | None = None
    high: float | None = None

    def passes(self, value: float) -> bool:
        """Whether a value lies within the bounds."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class GateResult:
    """A line of the gate and the value measured.

    Attributes:
        line: the bound.
        value: the figure.
        passed: whether it lies within.
    """

    line: GateLine
    value: float
    passed: bool


GATE: tuple[GateLine, ...] = (
    GateLine("target_pass1", 0.35, 0.60),
    GateLine("target_pass16", 0.90),
    GateLine("greedy_minus_pass1", 0.0),
    GateLine("draft_pass1", 0.10, 0.30),
    GateLine("params_ratio", 4.0),
    GateLine("prm_auc", 0.93),
    GateLine("prm_auc_draft", 0.90),
    GateLine("weighted_minus_majority_16", 0.10),
    GateLine("weighted_minus_majority_16_lo", 0.0),
    GateLine("only_target_right", 0.10),
    GateLine("both_wrong", 0.08),
    GateLine("mean_steps", 4.0, 10.0),
    GateLine("rebase_minus_weighted_4", 0.0),
    GateLine("rebase_minus_weighted_16_hi", 0.0),
)


def judge(figures: Mapping[str, float]) -> list[GateResult]:
    """The lines of the gate whose figures were measured, in order."""
    return [
        GateResult(line, figures[line.figure], line.passes(figures[line.figure]))
        for line in GATE
        if line.figure in figures
    ]
