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
    """A grader that reads each text, and compares two answers, once: they are looked at again and again."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._answers: dict[str, str | None] = {}
        self._same: dict[frozenset[str], bool] = {}

    def extract(self, text: str) -> str | None:
        if text not in self._answers:
            self._answers[text] = self._grader.extract(text)
        return self._answers[text]

    def key(self, answer: str) -> str:
        return self._grader.key(answer)

    def may_be_one(self, answer: str, other: str) -> bool:
        """Whether two answers of unequal keys may be one to the vote."""
        if not isinstance(self._grader, ComparingGrader):
            return False
        pair = frozenset((answer, other))
        if pair not in self._same:
            self._same[pair] = self._grader.equivalent(answer, other)
        return self._same[pair]


class _Standing(NamedTuple):
    """How a vote stands.

    Attributes:
        leader: weight of the leading answer.
        others: those of the others by a text of each, heaviest first.
        num_unscored: finished trajectories that have no weight yet.
    """

    leader: float
    others: dict[str, float]
    num_unscored: int

    @property
    def second(self) -> float:
        """Weight of the next answer."""
        return next(iter(self.others.values()), 0.0)


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
        if standing.leader > standing.second + num_left and standing.leader > self._most_other(standing) + num_left:
            return 1.0
        if self._confidence is None:
            return 0.0
        # Below 1, as the float nearest to a probability may be 1 itself.
        return min(probability_kept(standing.leader, standing.second, num_left), math.nextafter(1.0, 0.0))

    def _most_other(self, standing: _Standing) -> float:
        """The most that one other answer may turn out to have: a class has no two members that differ."""
        others = standing.others.items()
        alike = (
            [weight for other, weight in others if other == answer or self._reader.may_be_one(answer, other)]
            for answer in standing.others
        )
        return max(map(math.fsum, alike), default=0.0)

    def _standing(self, tree: SearchTree, unscored: Collection[NodeId]) -> _Standing:
        weights: dict[str, list[float]] = {}
        answers: dict[str, str] = {}
        num_unscored = 0
        for candidate in candidates(tree, self._reduce, self._reader):
            if any(node.id in unscored for node in tree.path(candidate.node)):
                num_unscored += 1
            elif candidate.answer is not None and candidate.key is not None:
                answers.setdefault(candidate.key, candidate.answer)
                weights.setdefault(candidate.key, []).append(self._weight(candidate))
        leader, *others = sorted(((math.fsum(weights[key]), key) for key in weights), reverse=True) or [(0.0, "")]
        return _Standing(leader[0], {answers[key]: weight for weight, key in others}, num_unscored)

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
