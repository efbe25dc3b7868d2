"""Intervals for shares and for paired differences, and how well scores tell labels."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

CALIBRATION_BINS = 10
_EDGE = 1e-3
"""Rewards are kept so far from 0 and 1 where their log-odds are taken."""


class Interval(NamedTuple):
    """Bounds of an interval, low first."""

    low: float
    high: float


def wilson_interval(num_right: int, num_all: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share; (0, 1) for no observations."""
    from scipy.stats import binomtest

    if num_all == 0:
        return Interval(0.0, 1.0)
    found = binomtest(num_right, num_all).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high))


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


def clustered_bootstrap(
    values: Sequence[float] | np.ndarray, owners: Sequence[object] | np.ndarray, *, num_draws: int = 4000, seed: int = 0
) -> Interval:
    """95% percentile interval of the mean of values that come in clusters, resampled over the clusters.

    Args:
        values: (num_values,), of any number to a cluster.
        owners: (num_values,), the cluster of each.
        num_draws: resamples.
        seed: of the resampling.
    """
    import numpy as np

    names, index = np.unique(np.asarray(owners), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=float), minlength=len(names))
    counts = np.bincount(index, minlength=len(names))
    picks = np.random.default_rng(seed).integers(0, len(names), size=(num_draws, len(names)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Area under the ROC curve, ties counted half; None where one class is missing."""
    from scipy.stats import rankdata

    num_right = sum(labels)
    num_wrong = len(labels) - num_right
    if not num_right or not num_wrong:
        return None
    # Mann and Whitney's U, from the ranks of the right ones.
    ranks = math.fsum(rank for rank, label in zip(rankdata(scores).tolist(), labels, strict=True) if label)
    return (ranks - num_right * (num_right + 1) / 2) / (num_right * num_wrong)


def calibration_error(scores: Sequence[float], labels: Sequence[bool], num_bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: mean distance of score and share of true labels, over bins of equal width."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, label in zip(scores, labels, strict=True):
        bins.setdefault(min(num_bins - 1, int(score * num_bins)), []).append((score, label))
    gaps = (abs(sum(score for score, _ in held) - sum(label for _, label in held)) for held in bins.values())
    return sum(gaps) / len(scores)


def standing_weights(rewards: Sequence[float]) -> list[float]:
    """How far each of some rewards in [0, 1] stands out among them: exp(z / 2) of their log-odds' standard scores.

    The level of the rewards, which differs from problem to problem, is no part of it, nor is their spread: the best of
    many outweighs the worst by a factor of about 5, however sure the rewards are of themselves.

    Returns:
        Positive weights, in order; all 1 where the rewards are equal.
    """
    kept = [min(max(reward, _EDGE), 1 - _EDGE) for reward in rewards]
    odds = [math.log(reward) - math.log1p(-reward) for reward in kept]
    mean = math.fsum(odds) / max(1, len(odds))
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in odds) / max(1, len(odds)))
    return [math.exp((one - mean) / (2 * spread)) if spread > 1e-9 else 1.0 for one in odds]
