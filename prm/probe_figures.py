"""Figures of a probe: how well it ranks, how well it is calibrated, and what its votes are worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prm.probe_features import Features
from search.support.statistics import auc, calibration_error
from search.tree import reduce_rewards
from search.types import Reduce

Floats = NDArray[np.float64]

NUM_POSITIONS = 4
"""Parts of a solution for which figures are given apart; a step is in the part in which it ends."""


def concordance(scores: Floats, labels: Floats, problems: NDArray[np.int64]) -> float:
    """How often the better of two steps of one problem scores higher: mean over problems, ties counted half.

    Pairs count by how far their labels differ, so with labels 0 and 1 it is the AUC within problems.

    Args:
        scores: (n,) any numbers.
        labels: (n,) in [0, 1].
        problems: (n,) whose steps they are.

    Returns:
        In [0, 1]; 0.5 where no problem has unequal labels.
    """
    shares = []
    for problem in np.unique(problems):
        mine = problems == problem
        lead = np.maximum(labels[mine][:, None] - labels[mine][None], 0.0)
        if (whole := lead.sum()) > 0:
            apart = scores[mine][:, None] - scores[mine][None]
            shares.append(float((lead * ((apart > 0) + 0.5 * (apart == 0))).sum() / whole))
    return math.fsum(shares) / len(shares) if shares else 0.5


def solution_rewards(features: Features, rewards: Floats, reduce: Reduce) -> Floats:
    """(num_all_solutions,) the rewards of each solution's steps reduced to one."""
    return np.array([reduce_rewards(rewards[features.path(int(leaf))].tolist(), reduce) for leaf in features.leaves])


def solution_figures(features: Features, rewards: Floats, reduce: Reduce) -> dict[str, float | None]:
    """AUC of whole solutions, over all and within problems, by a reduction of their steps' rewards."""
    scores = solution_rewards(features, rewards, reduce)
    problems = features.problems[features.leaves]
    return {
        "auc": auc(scores.tolist(), features.correct.tolist()),
        "auc_within": concordance(scores, features.correct.astype(np.float64), problems),
    }


def figures(features: Features, rewards: Floats, reduce: Reduce) -> dict[str, Any]:
    """All figures of ranking and calibration.

    Args:
        features: with their labels.
        rewards: (num_places,) of every step, in [0, 1].
        reduce: how they become a solution's.

    Returns:
        Flat: counts; `auc_steps` over all steps of all solutions and `auc_steps_within` problems; `auc` and
        `auc_within` of whole solutions, also half way through; `auc_position_N` of the steps in each quarter of a
        solution; `calibration_error` of the solutions' last steps. None where one class is missing.
    """
    paths = [features.path(int(leaf)) for leaf in features.leaves]
    steps = np.array([place for path in paths for place in path], np.int64)
    truths = np.repeat(features.correct, [len(path) for path in paths])
    parts = np.array([-(-(at + 1) * NUM_POSITIONS // len(path)) - 1 for path in paths for at in range(len(path))])
    half = np.array([path[(len(path) - 1) // 2] for path in paths], np.int64)
    ends = features.leaves
    figures_by_name: dict[str, Any] = {
        "num_problems": len(features.problem_ids),
        "num_solutions": len(ends),
        "num_steps": len(steps),
        "share_right": float(features.correct.mean()),
        "auc_steps": auc(rewards[steps].tolist(), truths.tolist()),
        "auc_steps_within": concordance(rewards, features.labels, features.problems),
        **solution_figures(features, rewards, reduce),
        "auc_half_way": auc(rewards[half].tolist(), features.correct.tolist()),
        "auc_half_way_within": concordance(rewards[half], features.correct.astype(np.float64), features.problems[ends]),
        "calibration_error": calibration_error(rewards[ends].tolist(), features.correct.tolist()),
    }
    for part in range(NUM_POSITIONS):
        mine = parts == part
        figures_by_name[f"auc_position_{part + 1}"] = auc(rewards[steps[mine]].tolist(), truths[mine].tolist())
    return figures_by_name
