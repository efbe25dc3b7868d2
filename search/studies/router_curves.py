"""Accuracy against the share of the target's steps: routers over their thresholds, compared with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.studies.router_costs import Chain
from search.support.statistics import Estimate, bootstrap, percentile_interval

SHARES = (0.10, 0.20, 0.30)
NUM_DRAWS = 1000
Counts = NDArray[np.float64]


class Point(NamedTuple):
    """One threshold: share of steps by the target, accuracy, target calls a problem, and further costs."""

    share: float
    accuracy: float
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """All problems under one router at one threshold, as arrays of (num_problems,).

    Attributes:
        right: 1 for a right answer, else 0.
        escalated: steps that the target wrote.
        steps: all steps.
        costs: (num_costs, num_problems) of whatever is to be compared; the first are the target's calls.
    """

    right: Counts
    escalated: Counts
    steps: Counts
    costs: Counts

    @classmethod
    def of(cls, chains: Sequence[Chain], costs: Sequence[Sequence[float]]) -> Outcomes:
        """From chains and, for each kind of cost, one value a chain."""
        escalated = np.array([float(sum(step.escalated for step in chain.steps)) for chain in chains])
        return cls(
            np.array([float(chain.correct) for chain in chains]),
            escalated,
            np.array([float(len(chain.steps)) for chain in chains]),
            np.vstack([escalated, *(np.asarray(cost, dtype=float) for cost in costs)]),
        )

    def points(self, seed: int) -> list[Point]:
        """The point of the problems as they are, then one for each of `NUM_DRAWS` resamples of them."""
        values = np.column_stack([self.right, self.escalated, self.steps, *self.costs])
        sums = np.vstack([values.sum(axis=0), bootstrap(values, num_draws=NUM_DRAWS, seed=seed)])
        right, escalated, steps, *costs = sums.T
        per_problem = np.column_stack(costs) / len(values)
        return [
            Point(float(share), float(accuracy), tuple(cost))
            for share, accuracy, cost in zip(escalated / steps, right / len(values), per_problem, strict=True)
        ]


def accuracy_at(points: Sequence[Point], shares: Counts) -> Counts:
    """Accuracy at some shares, straight between thresholds."""
    ordered = sorted(points)
    return np.interp(shares, [point.share for point in ordered], [point.accuracy for point in ordered])


def area(points: Sequence[Point]) -> float:
    """Area under accuracy against share, from 0 to 1."""
    grid = np.linspace(0, 1, 201)
    return float(np.trapezoid(accuracy_at(points, grid), grid))


def cost_of_accuracy(points: Sequence[Point], accuracy: float) -> tuple[float, ...] | None:
    """The costs at which a curve first reaches an accuracy, straight between thresholds; None if it never does."""
    ordered = sorted(points)
    if ordered[0].accuracy >= accuracy:
        return ordered[0].costs
    for low, high in pairwise(ordered):
        if low.accuracy < accuracy <= high.accuracy:
            weight = (accuracy - low.accuracy) / (high.accuracy - low.accuracy)
            return tuple((1 - weight) * a + weight * b for a, b in zip(low.costs, high.costs, strict=True))
    return None


class Comparison:
    """Curves of several routers over the same problems, and over resamples of them."""

    def __init__(self, curves: Mapping[str, Sequence[Outcomes]], seed: int = 0) -> None:
        """Compare curves, each a list of thresholds and the ends that all share: the draft and the target alone."""
        self._points: dict[str, list[tuple[Point, ...]]] = {
            name: list(zip(*(outcomes.points(seed) for outcomes in curve), strict=True))
            for name, curve in curves.items()
        }

    def points(self, name: str) -> tuple[Point, ...]:
        """A curve's points over the problems as they are."""
        return self._points[name][0]

    def areas(self) -> dict[str, float]:
        """`auc_NAME` of every curve, and `auc_NAME_less_OTHER` of every two, over the same draws; `_lo` and `_hi`."""
        areas = {name: [area(points) for points in draws] for name, draws in self._points.items()}
        figures: dict[str, float] = {}
        for name, values in areas.items():
            figures |= interval(f"auc_{name}", values)
        for name, other in permutations(areas, 2):
            less = [ours - theirs for ours, theirs in zip(areas[name], areas[other], strict=True)]
            figures |= interval(f"auc_{name}_less_{other}", less)
        return figures

    def gain(self, name: str, other: str) -> dict[str, float]:
        """`accuracy_gain_vs_OTHER_S` at equal shares, and their mean, each with `_lo` and `_hi`."""
        figures: dict[str, float] = {}
        pairs, at = zip(self._points[name], self._points[other], strict=True), np.array(SHARES)
        gains = np.array([accuracy_at(ours, at) - accuracy_at(theirs, at) for ours, theirs in pairs])
        for share, values in zip(SHARES, gains.T, strict=True):
            figures |= interval(f"accuracy_gain_vs_{other}_{round(100 * share)}", values)
        return figures | interval(f"accuracy_gain_vs_{other}_mean", gains.mean(axis=1))

    def cost_ratios(self, name: str, other: str, place: int, keys: Sequence[str]) -> dict[str, float | None]:
        """How many times more `other` costs at its threshold `place` than `name` does at the accuracy reached there.

        Returns:
            For each kind of cost KEY `KEY_ratio_OTHER_over_NAME` with `_lo` and `_hi`; None where `name` never reaches
            that accuracy.
        """
        ratios: list[tuple[float, ...] | None] = []
        for ours, theirs in zip(self._points[name], self._points[other], strict=True):
            reached = cost_of_accuracy(ours, theirs[place].accuracy)
            if reached is None or min(reached) <= 0:
                ratios.append(None)
            else:
                ratios.append(tuple(a / b for a, b in zip(theirs[place].costs, reached, strict=True)))
        figures: dict[str, float | None] = {}
        first, reached_draws = ratios[0], [row for row in ratios[1:] if row is not None]
        for number, key in enumerate(keys):
            label = f"{key}_ratio_{other}_over_{name}"
            if first is None or not reached_draws:
                figures[label] = None
            else:
                figures |= interval(label, [first[number], *(row[number] for row in reached_draws)])
        return figures


def interval(name: str, values: Sequence[float] | Counts) -> dict[str, float]:
    """The first value under a name, and the 95% interval of the others, which are resamples, with `_lo` and `_hi`."""
    return Estimate(float(values[0]), *percentile_interval(values[1:])).figures(name)
