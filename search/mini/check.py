"""``ets mini check``: the figures of the mini family's gate, on problems never trained or tuned on.

All of it is measured on independent samples (``search.mini.sample``). The gate's lines on tree search are measured by
the search engine and added to the same figures; ``search.mini.gate`` judges what it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch

from search.errors import ConfigError
from search.mini.assets import weights_folder
from search.mini.checkpoint import load_model
from search.mini.corpus import Document
from search.mini.evaluate import Attempt, attempts, auc, labelled_documents, up_to_first_error
from search.mini.gate import GateResult, judge
from search.mini.model import MiniModel
from search.mini.problems import MiniProblem, problems
from search.mini.sample import step_rewards
from search.mini.walk import walk_figures
from search.statistics import clustered_bootstrap

WIDTH = 16
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check measured.

    Attributes:
        figures: means over the evaluation seeds; intervals are 95%, paired by problem.
        per_seed: the same figures for each seed alone, without intervals.
        gate: the gate's lines.
        split: problems measured on.
        num_problems: how many.
        seconds: wall seconds.
    """

    figures: dict[str, float]
    per_seed: dict[int, dict[str, float]]
    gate: tuple[GateResult, ...]
    split: str
    num_problems: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every line that was measured passes."""
        return all(result.passed for result in self.gate)

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values."""
        lines = {
            result.line.figure: {
                "low": result.line.low,
                "high": result.line.high,
                "value": result.value,
                "passed": result.passed,
            }
            for result in self.gate
        }
        return {
            "figures": self.figures,
            "per_seed": {str(seed): found for seed, found in self.per_seed.items()},
            "gate": lines,
            "passed": self.passed,
            "split": self.split,
            "num_problems": self.num_problems,
            "seconds": self.seconds,
        }


def check(
    *,
    weights: Path | None = None,
    split: str = "test",
    num_problems: int = 300,
    seeds: Sequence[int] = (0, 1),
    say: Say = lambda _: None,
) -> CheckReport:
    """Measure the family.

    Args:
        weights: folder with ``target``, ``draft`` and ``prm``; the shipped ones where not given.
        split: problems to measure on.
        num_problems: how many, from the first.
        seeds: seeds of the sampling; each measures everything anew on the same problems.
        say: told what is being measured.

    Raises:
        ConfigError: if the split is unknown, or there is no problem or seed.
        DataError: if a checkpoint cannot be read.
    """
    if num_problems < 1 or not seeds:
        raise ConfigError("a check needs at least one problem and one seed")
    started = time.monotonic()
    folder = weights or weights_folder()
    family = _Family(*(load_model(folder / name) for name in ("target", "draft", "prm")))
    found = list(problems(split, num_problems))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = {seed: _measure(family, found, seed, say) for seed in seeds}
    finally:
        torch.set_num_threads(before)
    per_seed = {seed: one.figures for seed, one in measured.items()}
    figures = {name: float(np.mean([one[name] for one in per_seed.values()])) for name in next(iter(per_seed.values()))}
    figures.update(_intervals([one.per_problem for one in measured.values()]))
    figures["params_ratio"] = family.target.num_parameters() / family.draft.num_parameters()
    figures["greedy_minus_pass1"] = figures["target_greedy"] - figures["target_pass1"]
    gate = tuple(judge(figures))
    return CheckReport(figures, per_seed, gate, split, num_problems, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Family:
    target: MiniModel
    draft: MiniModel
    prm: MiniModel


@dataclass(frozen=True, slots=True)
class _Measured:
    """Figures, and for some of them one value a problem, from which intervals are drawn."""

    figures: dict[str, float]
    per_problem: dict[str, list[float]]


def _measure(family: _Family, found: Sequence[MiniProblem], seed: int, say: Say) -> _Measured:
    say(f"seed {seed}: target, {WIDTH} samples a problem")
    target = attempts(family.target, found, 2 * seed, num_samples=WIDTH)
    greedy = attempts(family.target, found, 0, temperature=0.0)
    say(f"seed {seed}: draft, {WIDTH} samples a problem")
    draft = attempts(family.draft, found, 2 * seed + 1, num_samples=WIDTH)
    say(f"seed {seed}: rewards")
    votes = [vote(family.prm, item, tries) for item, tries in zip(found, target, strict=True)]
    per_problem = {
        "target_pass1": _pass1(target),
        "target_pass16": _passed(target),
        "target_greedy": [float(tries[0].correct) for tries in greedy],
        "target_majority16": [float(one.majority == item.answer) for one, item in zip(votes, found, strict=True)],
        "target_weighted16": [float(one.weighted == item.answer) for one, item in zip(votes, found, strict=True)],
        "draft_pass1": _pass1(draft),
        "draft_pass16": _passed(draft),
    }
    figures = {name: float(np.mean(values)) for name, values in per_problem.items()}
    figures["weighted_minus_majority_16"] = figures["target_weighted16"] - figures["target_majority16"]
    figures["prm_auc"] = _step_auc(family.prm, found, target)
    figures["prm_auc_draft"] = _step_auc(family.prm, found, draft)
    steps = [len(attempt.verdict(item).steps) for item, t in zip(found, target, strict=True) for attempt in t]
    figures["mean_steps"] = float(np.mean(steps))
    say(f"seed {seed}: steps of target and draft side by side")
    figures.update(walk_figures(family.target, family.draft, found, seed))
    return _Measured(figures, per_problem)


@dataclass(frozen=True, slots=True)
class Votes:
    """What two votes over the same attempts say; None where no attempt states an answer.

    Attributes:
        majority: the answer stated most often; the first of equals.
        weighted: the answer with the largest sum of rewards, an attempt's reward being the product over its steps.
    """

    majority: str | None
    weighted: str | None


def vote(prm: MiniModel, found: MiniProblem, tries: Sequence[Attempt]) -> Votes:
    """Vote over attempts at one problem."""
    counts: dict[str, float] = {}
    weights: dict[str, float] = {}
    answered = [attempt for attempt in tries if attempt.answer is not None]
    documents: list[Document] = []
    answers: list[str] = []
    for attempt in answered:
        assert attempt.answer is not None
        counts[attempt.answer] = counts.get(attempt.answer, 0.0) + 1
        labelled = labelled_documents([found], [[attempt]])
        documents.extend(labelled)
        answers.extend([attempt.answer] * len(labelled))
    for answer, rewards in zip(answers, step_rewards(prm, documents), strict=True):
        weights[answer] = weights.get(answer, 0.0) + prod(rewards)
    return Votes(_largest(counts), _largest(weights))


def _largest(sums: Mapping[str, float]) -> str | None:
    return max(sums, key=sums.__getitem__) if sums else None


def _pass1(tries: Sequence[Sequence[Attempt]]) -> list[float]:
    return [sum(attempt.correct for attempt in part) / len(part) for part in tries]


def _passed(tries: Sequence[Sequence[Attempt]]) -> list[float]:
    return [float(any(attempt.correct for attempt in part)) for part in tries]


def _step_auc(prm: MiniModel, found: Sequence[MiniProblem], tries: Sequence[Sequence[Attempt]]) -> float:
    """AUC up to the first error, over four attempts a problem."""
    documents = labelled_documents(found, [part[:4] for part in tries])
    return auc(*up_to_first_error(step_rewards(prm, documents), [document.labels for document in documents]))


def _intervals(per_seed: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """95% bootstrap intervals over problems of the means, and of the weighted vote's gain, paired."""
    means = {name: np.mean([one[name] for one in per_seed], axis=0) for name in per_seed[0]}
    means["weighted_minus_majority_16"] = means["target_weighted16"] - means["target_majority16"]
    figures: dict[str, float] = {}
    for name, values in means.items():
        low, high = clustered_bootstrap(values, range(len(values)))
        figures[f"{name}_lo"], figures[f"{name}_hi"] = low, high
    return figures
