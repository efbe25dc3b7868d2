"""Intervals for shares and for paired differences, and how well scores tell labels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CALIBRATION_BINS = 10
_EDGE = 1e-3
"""Rewards are kept so far from 0 and 1 where their log-odds are taken."""

_NUMBERS_AT_ONCE = 1 << 22
"""Resampled at once: 32 MiB."""


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


class Estimate(NamedTuple):
    """A figure with the bounds of its interval."""

    value: float
    low: float
    high: float

    def figures(self, name: str, suffix: str = "") -> dict[str, float]:
        """As flat figures: the value under a name, its bounds under the same with `_lo` and `_hi`."""
        return dict(zip((f"{name}{suffix}", f"{name}_lo{suffix}", f"{name}_hi{suffix}"), self, strict=True))


def bootstrap(values: ArrayLike, *, num_draws: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """Sums over problems that are drawn anew, as many as there are, with replacement; equal seeds draw the same ones.

    Args:
        values: what is summed of each problem; at least one problem. (num_problems, num_columns)
        num_draws: resamples.
        seed: of the resampling.

    Returns:
        (num_draws, num_columns)
    """
    rows = np.asarray(values, dtype=np.float64)
    rng, count = np.random.default_rng(seed), len(rows)
    block = max(1, _NUMBERS_AT_ONCE // rows.size)
    blocks = (min(block, num_draws - start) for start in range(0, num_draws, block))
    return np.concatenate([rows[rng.integers(0, count, size=(size, count))].sum(axis=1) for size in blocks])


def percentile_interval(draws: ArrayLike) -> Interval:
    """What lies between the tails of a resampled figure, (num_draws,): 95% of it."""
    low, high = np.quantile(np.asarray(draws), ((1 - 0.95) / 2, (1 + 0.95) / 2))
    return Interval(float(low), float(high))


def mean_estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value a problem, at least one, and its 95% interval by bootstrap over problems."""
    means = bootstrap(np.reshape(values, (-1, 1))) / len(values)
    return Estimate(math.fsum(values) / len(values), *percentile_interval(means))


def half_width(values: Sequence[float]) -> float:
    """Half of the mean's 95% interval by Student's t, which also holds for a few values; infinite for a single one."""
    from scipy.stats import t

    if len(values) < 2:
        return math.inf
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def paired_estimate(ours: Iterable[float], theirs: Iterable[float]) -> Estimate:
    """The mean of our values less that of theirs on the same problems, and its paired 95% interval."""
    return mean_estimate([one - other for one, other in zip(ours, theirs, strict=True)])


def clustered_bootstrap(values: ArrayLike, owners: ArrayLike) -> Interval:
    """95% percentile interval of the mean of values that come in clusters, resampled over the clusters.

    Args:
        values: (num_values,), of any number to a cluster.
        owners: (num_values,), the cluster of each.
    """
    _, index = np.unique(np.asarray(owners), return_inverse=True)
    of_clusters = np.stack([np.bincount(index, weights=np.asarray(values)), np.bincount(index)], axis=1)
    sums = bootstrap(of_clusters, num_draws=4000)
    return percentile_interval(sums[:, 0] / sums[:, 1])


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
