"""When a search may stop before its width is spent: its vote cannot change any more, or almost surely will not."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from search.answers.graders import ComparingGrader, Grader
from search.decision.vote import POINTWISE, Candidate, candidates
from search.tree import SearchTree
from search.types import NodeId, Reduce, VoteRule


class _Remembering:
    """A grader that reads each text once: the same finished trajectories are looked at again and again."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._answers: dict[str, str | None] = {}

    def extract(self, text: str) -> str | None:
        if text not in self._answers:
            self._answers[text] = self._grader.extract(text)
        return self._answers[text]

    def key(self, answer: str) -> str:
        return self._grader.key(answer)


class _Standing(NamedTuple):
    """How a vote stands.

    Attributes:
        leader: weight of the leading answer.
        second: of the next one.
        others: the most that one other answer may turn out to have.
        num_unscored: finished trajectories that have no weight yet.
    """

    leader: float
    second: float
    others: float
    num_unscored: int


class Decided:
    """Watches one search's vote.

    A trajectory that is still to come weighs at most 1, as rewards do. So the answer is decided once it leads by more
    than as many trajectories as can still finish, and that is exact: the whole search would give the same answer
    (perhaps written in another way, or by another trajectory). Other votes than those of `POINTWISE` are never decided
    early.

    With `confidence` it also stops when the leading answer will still lead the second with that probability once all
    trajectories are in, if they are independent draws (`probability_kept`). Differs from Adaptive-Consistency
    (arXiv 2305.11860), which asks whether it would lead among infinitely many: fewer are left, so less can change.
    """

    def __init__(self, rule: VoteRule, reduce: Reduce, grader: Grader, confidence: float | None = None) -> None:
        """Watch a vote by this rule.

        Args:
            rule: of the vote.
            reduce: how the rewards of a trajectory's steps become its weight.
            grader: finds and compares answers.
            confidence: in (0.5, 1); None for what is certain alone.
        """
        self._rule, self._reduce, self._confidence = rule, reduce, confidence
        self._reader = _Remembering(grader)
        self._merges = isinstance(grader, ComparingGrader)

    def reason(self, tree: SearchTree, num_left: int, unscored: Collection[NodeId]) -> str:
        """Why the search may stop now; empty if it may not.

        Args:
            tree: as far as it has come.
            num_left: trajectories that may still finish, at most.
            unscored: nodes whose reward is still to come; what finished below them has no weight yet.
        """
        if self._rule not in POINTWISE:
            return ""
        standing = self._standing(tree, unscored)
        num_left += standing.num_unscored
        if not standing.leader:
            return ""
        probability = self._probability(standing, num_left)
        if probability < (self._confidence or 1.0):
            return ""
        certain = "decided" if probability == 1.0 else f"{probability:.3f} certain"
        return (
            f"the vote is {certain}: {standing.leader:g} against {standing.second:g} with {num_left} trajectories left"
        )

    def num_needed(self, tree: SearchTree, num_running: int, num_held: int, unscored: Collection[NodeId]) -> int:
        """How many further trajectories to begin: the fewest with which the vote could be decided, or certain enough.

        That is if all that come give the answer that leads. A vote that is never decided early needs all at once.

        Args:
            tree: as far as it has come.
            num_running: trajectories that were begun and may still finish.
            num_held: trajectories that were not begun.
            unscored: nodes whose reward is still to come.
        """
        if self._rule not in POINTWISE:
            return num_held
        standing = self._standing(tree, unscored)
        coming = num_running + standing.num_unscored

        def enough(num_begun: int) -> bool:
            agreed = standing._replace(leader=standing.leader + coming + num_begun)
            return self._probability(agreed, num_held - num_begun) >= (self._confidence or 1.0)

        return next((number for number in range(num_held) if enough(number)), num_held)

    def _probability(self, standing: _Standing, num_left: int) -> float:
        """That the leading answer is the vote's when all are in; 1 only if it is certain."""
        if standing.leader > standing.others + num_left:
            return 1.0
        if self._confidence is None:
            return 0.0
        # Below 1, as the float nearest to a probability may be 1 itself.
        return min(probability_kept(standing.leader, standing.second, num_left), math.nextafter(1.0, 0.0))

    def _standing(self, tree: SearchTree, unscored: Collection[NodeId]) -> _Standing:
        weights: dict[str, float] = {}
        num_unscored = 0
        for candidate in candidates(tree, self._reduce, self._reader):
            if any(node.id in unscored for node in tree.path(candidate.node)):
                num_unscored += 1
            elif candidate.key is not None:
                weights[candidate.key] = weights.get(candidate.key, 0.0) + self._weight(candidate)
        leader, *others = sorted(weights.values(), reverse=True) or [0.0]
        second = others[0] if others else 0.0
        # Where a grader may find answers of two keys to be one after all, the others could turn out to be a single one.
        return _Standing(leader, second, math.fsum(others) if self._merges else second, num_unscored)

    def _weight(self, candidate: Candidate) -> float:
        return 1.0 if self._rule == "majority" or candidate.reward is None else candidate.reward


def probability_kept(leader: float, second: float, num_left: int) -> float:
    """That the first of two answers still has more votes than the second when `num_left` more are in.

    The votes so far tell how the two share what comes, Beta(leader + 1, second + 1), and all that comes goes to one of
    them: what goes to neither changes nothing between them.

    Args:
        leader: votes of the first so far, at least 0; weights may stand for counts.
        second: those of the other.
        num_left: votes of 1 that are still to come, at least 0.
    """
    from scipy.stats import betabinom

    most_too_few = math.floor((second + num_left - leader) / 2)
    return float(betabinom.sf(most_too_few, num_left, leader + 1, second + 1))
