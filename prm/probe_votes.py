"""Which vote makes a probe pay: rules over rewards and answers, compared and chosen by cross-fitting over problems.

A rule that is the best of many on some problems is flattered by them. So each fold of the problems is voted on by the
rule that is best on the other folds, and that is what the choice of a rule is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prm.probe_features import Features
from prm.probe_figures import solution_rewards
from search.support.statistics import paired_estimate, standing_weights
from search.types import Reduce

Floats = NDArray[np.float64]

_EDGE = 1e-3
"""Rewards are kept so far from 0 and 1, as one step must not outweigh all others."""


class Ballot(NamedTuple):
    """The finished solutions of one problem as a vote sees them.

    Attributes:
        answers: (n,) numbers of answers; -1 does not vote.
        correct: (n,) whether they are right.
        rewards: (n,) in [0, 1].
    """

    answers: NDArray[np.int64]
    correct: NDArray[np.bool_]
    rewards: Floats

    def right(self, weights: Floats) -> float:
        """Whether the heaviest answer is right, 0 or 1; of equals the one that came first wins."""
        speaking = self.answers >= 0
        if not speaking.any():
            return 0.0
        totals: dict[int, float] = {}
        for answer, weight in zip(self.answers[speaking].tolist(), weights[speaking].tolist(), strict=True):
            totals[answer] = totals.get(answer, 0.0) + weight
        winner = max(totals, key=totals.__getitem__)
        return float(self.correct[self.answers == winner][0])


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to weigh solutions.

    Attributes:
        name: of the rule and of its number.
        weigh: (n,) weights from a ballot.
    """

    name: str
    weigh: Callable[[Ballot], Floats]


def log_odds(rewards: Floats) -> Floats:
    """ln(r / (1 - r)), kept finite."""
    kept = np.clip(rewards, _EDGE, 1 - _EDGE)
    return np.log(kept) - np.log1p(-kept)


def _ranks(values: Floats) -> Floats:
    """Shares in (0, 1]: the largest is 1; equals share their mean."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values) / len(values), np.float64)


def _normal(ballot: Ballot, power: float) -> Floats:
    """`standing_weights` of those that answer, to a power."""
    weights, speaking = np.zeros(len(ballot.rewards)), ballot.answers >= 0
    weights[speaking] = np.array(standing_weights(ballot.rewards[speaking].tolist())) ** power
    return weights


def _answer_level(ballot: Ballot, power: float) -> Floats:
    """An answer weighs its count to a power times the odds of its mean log-odds, shared by its solutions."""
    odds = log_odds(ballot.rewards)
    weights = np.zeros(len(odds))
    for answer in np.unique(ballot.answers[ballot.answers >= 0]):
        mine = ballot.answers == answer
        weights[mine] = mine.sum() ** power * np.exp(odds[mine].mean()) / mine.sum()
    return weights


def _rules() -> tuple[Rule, ...]:
    rules = [
        Rule("majority", lambda b: np.ones(len(b.rewards))),
        Rule("weighted", lambda b: b.rewards),
        Rule("best", lambda b: np.where(b.rewards == b.rewards[b.answers >= 0].max(), b.rewards, 0.0)),
    ]
    for power in (0.25, 0.5, 1.0):
        rules.append(Rule(f"odds^{power:g}", lambda b, p=power: np.exp(p * log_odds(b.rewards))))  # type: ignore[misc]
    for shift in (1.0, 2.0, 3.0, 4.0, 6.0):
        rules.append(Rule(f"log-odds+{shift:g}", lambda b, s=shift: np.maximum(0.0, s + log_odds(b.rewards))))  # type: ignore[misc]
    for power in (0.5, 1.0, 2.0):
        rules.append(Rule(f"rank^{power:g}", lambda b, p=power: _ranks(b.rewards) ** p))  # type: ignore[misc]
    rules.append(Rule("normalised", lambda b: _normal(b, 1.0)))
    for power in (0.5, 2.0):
        rules.append(Rule(f"normalised^{power:g}", lambda b, p=power: _normal(b, p)))  # type: ignore[misc]
    for power in (1.0, 2.0, 3.0):
        rules.append(Rule(f"answer^{power:g}", lambda b, p=power: _answer_level(b, p)))  # type: ignore[misc]
    for share in (0.25, 0.5):
        rules.append(Rule(f"top-{1 - share:.0%}", lambda b, s=share: (_ranks(b.rewards) > s).astype(np.float64)))  # type: ignore[misc]
    return tuple(rules)


RULES = _rules()


def ballots(features: Features, rewards: Floats, reduce: Reduce) -> list[Ballot]:
    """The ballots of all problems, in their order, by one reduction of the steps' rewards.

    Args:
        features: with answers.
        rewards: (num_places,) in [0, 1].
        reduce: of a solution's steps.
    """
    reduced, problems = solution_rewards(features, rewards, reduce), features.problems[features.leaves]
    return [
        Ballot(features.answers[mine], features.correct[mine], reduced[mine])
        for mine in (problems == problem for problem in range(len(features.problem_ids)))
        if mine.any()
    ]


def vote_figures(
    features: Features, rewards: Floats, reductions: Sequence[Reduce], *, num_folds: int = 10, seed: int = 0
) -> dict[str, Any]:
    """What votes are worth against the majority's.

    Args:
        features: of problems that the rewards' probe did not see.
        rewards: (num_places,) in [0, 1].
        reductions: to try, each with every rule.
        num_folds: of the problems, for the choice of a rule.
        seed: of the folds.

    Returns:
        Flat: `vote_majority` and `vote_oracle` (an answer that any solution gave), both shares of problems; of each
        rule and reduction `vote_RULE/REDUCE`; `vote_crossfit` is what a choice on other problems gave, and
        `vote_best_rule` the rule that is best on all. Of these two and of the plain weighted vote also the gain over
        the majority and its 95% interval.
    """
    accuracy: dict[str, list[float]] = {}
    majority: list[float] = []
    oracle = 0.0
    for reduce in reductions:
        kept = ballots(features, rewards, reduce)
        for rule in RULES:
            right = [ballot.right(rule.weigh(ballot)) if (ballot.answers >= 0).any() else 0.0 for ballot in kept]
            if rule.name == "majority":
                majority = right
            else:
                accuracy[f"{rule.name}/{reduce}"] = right
        oracle = float(np.mean([ballot.correct.any() for ballot in kept]))
    table = np.array([majority, *accuracy.values()])
    names = ["majority", *accuracy]
    folds = np.random.default_rng(seed).permutation(table.shape[1]) % num_folds
    crossfit, taken = np.zeros(table.shape[1]), []
    for fold in range(num_folds):
        mine = folds == fold
        if mine.any():
            # Of equals the first: the majority, where nothing is better on the other folds.
            chosen = int(table[:, ~mine].mean(1).argmax()) if (~mine).any() else 0
            crossfit[mine] = table[chosen, mine]
            taken.append(names[chosen])
    best = int(table.mean(1).argmax())
    figures: dict[str, Any] = {
        "vote_majority": float(np.mean(majority)),
        "vote_oracle": oracle,
        **{f"vote_{name}": float(np.mean(values)) for name, values in accuracy.items()},
        "vote_crossfit": float(crossfit.mean()),
        "vote_crossfit_rules": sorted(set(taken)),
        "vote_best_rule": names[best],
    }
    compared = {"crossfit": crossfit, "best": table[best]}
    compared |= {name: table[at] for at, name in enumerate(names) if name.startswith(("weighted/", "normalised/"))}
    for name, values in compared.items():
        gain = paired_estimate(values.tolist(), majority)
        figures |= zip((f"vote_{name}_{what}" for what in ("gain", "low", "high")), gain, strict=True)
    return figures
