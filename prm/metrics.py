"""Figures of a process reward model: step AUC, calibration, first-error F1 as of ProcessBench (arXiv 2412.06559)."""

from __future__ import annotations

from collections.abc import Sequence

from prm.labels import LabelledSolution
from search.support.statistics import auc, calibration_error


def first_below(rewards: Sequence[float], threshold: float) -> int:
    """The first step whose reward is below `threshold`; -1 if none is."""
    return next((number for number, reward in enumerate(rewards) if reward < threshold), -1)


def figures(
    solutions: Sequence[LabelledSolution], rewards: Sequence[Sequence[float]], threshold: float = 0.5
) -> dict[str, float | int | None]:
    """All figures of one evaluation; a figure that the data cannot give is None.

    `f1` is the harmonic mean of the accuracy on solutions with an error (the first one is found exactly) and of that on
    solutions without (none is found), as ProcessBench defines it. Solutions with a missing label before their first
    error, and unfinished ones without an error, count for the steps alone.
    """
    scores: list[float] = []
    truths: list[bool] = []
    hits_by_kind: dict[bool, list[bool]] = {True: [], False: []}
    for solution, given in zip(solutions, rewards, strict=True):
        for label, reward in zip(solution.labels, given, strict=True):
            if label is not None:
                scores.append(reward)
                truths.append(label)
        first = solution.first_error
        if first is not None and (first >= 0 or solution.complete):
            hits_by_kind[first >= 0].append(first_below(given, threshold) == first)
    error, correct = (sum(hits) / len(hits) if hits else None for hits in (hits_by_kind[True], hits_by_kind[False]))
    f1: float | None = None
    if error is not None and correct is not None:
        f1 = 2 * error * correct / (error + correct) if error + correct else 0.0
    return {
        "step_auc": auc(scores, truths),
        "calibration_error": calibration_error(scores, truths) if scores else None,
        "first_error_f1": f1,
        "error_accuracy": error,
        "correct_accuracy": correct,
        "threshold": threshold,
        "num_steps": len(scores),
        "num_wrong_steps": len(truths) - sum(truths),
        "num_solutions": len(solutions),
        "num_error_solutions": len(hits_by_kind[True]),
        "num_correct_solutions": len(hits_by_kind[False]),
    }
