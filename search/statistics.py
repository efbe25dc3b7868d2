"""Intervals for shares and for paired differences, and how well scores tell labels."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

Z95 = 1.959963984540054
CALIBRATION_BINS = 10


class Interval(NamedTuple):
    """Bounds of an interval, low first."""

    low: float
    high: float


def wilson_interval(num_right: int, num_all: int, z: float = Z95) -> Interval:
    """Wilson's score interval of a share; (0, 1) for no observations."""
    if num_all == 0:
        return Interval(0.0, 1.0)
    share = num_right / num_all
    scale = 1 + z * z / num_all
    centre = (share + z * z / (2 * num_all)) / scale
    half = z * math.sqrt(share * (1 - share) / num_all + z * z / (4 * num_all * num_all)) / scale
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def paired_bootstrap(
    differences: Sequence[float], *, num_draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of the mean of paired differences, resampled over problems.

    Args:
        differences: one for each problem; at least one.
        num_draws: resamples.
        level: coverage in (0, 1).
        seed: of the resampling.
    """
    rng = random.Random(seed)
    count = len(differences)
    means = sorted(math.fsum(rng.choices(differences, k=count)) / count for _ in range(num_draws))
    tail = (1 - level) / 2
    return Interval(means[int(tail * (num_draws - 1))], means[math.ceil((1 - tail) * (num_draws - 1))])


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Area under the ROC curve, ties counted half; None where one class is missing."""
    num_right = sum(labels)
    num_wrong = len(labels) - num_right
    if not num_right or not num_wrong:
        return None
    pairs = sorted(zip(scores, labels, strict=True))
    won = 0.0
    at = wrong_below = 0
    while at < len(pairs):
        end = at
        while end < len(pairs) and pairs[end][0] == pairs[at][0]:
            end += 1
        right = sum(label for _, label in pairs[at:end])
        wrong = end - at - right
        won += right * (wrong_below + wrong / 2)
        wrong_below += wrong
        at = end
    return won / (num_right * num_wrong)


def calibration_error(scores: Sequence[float], labels: Sequence[bool], num_bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: mean distance of score and share of true labels, over bins of equal width."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, label in zip(scores, labels, strict=True):
        bins.setdefault(min(num_bins - 1, int(score * num_bins)), []).append((score, label))
    gaps = (abs(sum(score for score, _ in held) - sum(label for _, label in held)) for held in bins.values())
    return sum(gaps) / len(scores)
