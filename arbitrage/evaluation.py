"""Figures of a router on held-out pairs, beside those of the reward model's own verdict 1 - s_d on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arbitrage.walks import StepPair, Walk
from search.support.statistics import auc, calibration_error, clustered_bootstrap

SHARES = (0.05, 0.10, 0.20, 0.40)


def truth(pairs: Sequence[StepPair], margin: float) -> tuple[list[float], list[bool]]:
    """What escalation of each pair is worth, and whether the target's step is better.

    Where a checker judged every pair, a right step for a wrong one is worth 1, the reverse -1, and right for wrong is
    better; else it is worth its advantage D, and D > margin is better.
    """
    rights = [(pair.draft_right, pair.target_right) for pair in pairs]
    if all(right is not None for both in rights for right in both):
        gain = [float(bool(target)) - float(bool(draft)) for draft, target in rights]
        return gain, [value > 0 for value in gain]
    advantages = [pair.advantage for pair in pairs]
    return advantages, [value > margin for value in advantages]


def figures(walks: Sequence[Walk], estimates: Sequence[float | None], margin: float) -> dict[str, float | int | None]:
    """All figures; one that the data cannot give is None.

    `spearman`: rank correlation of estimate and advantage. `auc`, `auc_prm`: of the estimate and of 1 - s_d for "the
    target's step is better" (`truth`); `auc_advantage*` for D > margin and `auc_any_advantage*` for D > 0, the paper's
    label. `accuracy_0`, `accuracy_1`: of the decision at 0.5 within either class of D > margin; `calibration_error`
    against the same. `gain_vs_prm_S` with `_lo`, `_hi`: the steps that escalating the first S percent by the estimate
    rights, over all steps, less those that escalating as many by 1 - s_d does; a 95% interval by bootstrap over
    problems. `gain_S`, `gain_prm_S`, `gain_oracle_S`: these shares themselves.

    Args:
        walks: held-out.
        estimates: of all their pairs in order; None for a pair that was too long to read, which is left out.
        margin: of the router's label.
    """
    owners = [number for number, walk in enumerate(walks) for _ in walk.pairs]
    every = [pair for walk in walks for pair in walk.pairs]
    estimated = [number for number, value in enumerate(estimates) if value is not None]
    pairs = [every[number] for number in estimated]
    scores = [value for value in estimates if value is not None]
    doubts = [1.0 - pair.draft_reward for pair in pairs]
    advantages = [pair.advantage for pair in pairs]
    worth, better = truth(pairs, margin)
    helped, any_helped = ([value > cut for value in advantages] for cut in (margin, 0.0))
    sides = {
        side: [score > 0.5 for score, label in zip(scores, helped, strict=True) if label is side]
        for side in (False, True)
    }
    values: dict[str, float | int | None] = {
        "spearman": _rank_correlation(scores, advantages),
        "spearman_prm": _rank_correlation(doubts, advantages),
        "auc": auc(scores, better),
        "auc_prm": auc(doubts, better),
        "auc_advantage": auc(scores, helped),
        "auc_advantage_prm": auc(doubts, helped),
        "auc_any_advantage": auc(scores, any_helped),
        "auc_any_advantage_prm": auc(doubts, any_helped),
        "accuracy_0": 1 - sum(sides[False]) / len(sides[False]) if sides[False] else None,
        "accuracy_1": sum(sides[True]) / len(sides[True]) if sides[True] else None,
        "calibration_error": calibration_error(scores, helped),
        "share_better": sum(better) / len(pairs),
        "num_pairs": len(pairs),
        "num_problems": len({owners[number] for number in estimated}),
        "num_left_out": len(every) - len(pairs),
    }
    gain = np.array(worth)
    problems = np.array([owners[number] for number in estimated])
    for share in SHARES:
        name = f"{round(100 * share):02d}"
        ours, theirs, best = (chosen(ranking, share) * gain for ranking in (scores, doubts, worth))
        low, high = clustered_bootstrap(ours - theirs, problems)
        values[f"gain_vs_prm_{name}"] = float((ours - theirs).mean())
        values[f"gain_vs_prm_{name}_lo"], values[f"gain_vs_prm_{name}_hi"] = low, high
        values[f"gain_{name}"], values[f"gain_prm_{name}"] = float(ours.mean()), float(theirs.mean())
        values[f"gain_oracle_{name}"] = float(best.mean())
    return values


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's; None where one side is constant."""
    from scipy.stats import spearmanr

    if len({*first}) < 2 or len({*second}) < 2:
        return None
    return float(spearmanr(first, second).statistic)


def chosen(scores: Sequence[float], share: float) -> np.ndarray:
    """(num_pairs,) 1 for the share of pairs with the highest scores, the first of equals, else 0."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    taken = np.zeros(len(order))
    taken[order[: round(share * len(order))]] = 1.0
    return taken
