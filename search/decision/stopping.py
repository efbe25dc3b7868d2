"""When a search may stop before its width is spent: its vote cannot change any more, or almost surely will not."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from search.answers.graders import ComparingGrader, Grader
from search.decision.vote import POINTWISE, Candidate, candidates
from search.tree import SearchTree
from search.types import ROOT, NodeId, NodeStatus, Reduce, VoteRule


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
        num_neither: finished trajectories that give neither of the two heaviest answers, or none at all.
        num_unscored: finished trajectories that have no weight yet.
        first: the place in the tree of the first trajectory that gives the leading answer.
        firsts: that of each of the others, by the same texts.
        live: the first place at which a trajectory may still finish, of those that are begun.
    """

    leader: float
    others: dict[str, float]
    num_neither: int
    num_unscored: int
    first: float
    firsts: dict[str, float]
    live: float

    @property
    def second(self) -> str | None:
        """The next answer; None where there is none."""
        return next(iter(self.others), None)


class Decided:
    """Watches one search's vote.

    A trajectory that is still to come weighs at most 1, as rewards do. So the answer is decided once it leads by more
    than as many trajectories as can still finish, or by just as many where it would win the tie; and that is exact: the
    whole search would give the same answer (perhaps written in another way, or by another trajectory). Other votes than
    those of `POINTWISE` are never decided early.

    With `confidence` it also stops when the leading answer will still lead the second with that probability once all
    trajectories are in, if they are independent draws (`probability_kept`). Differs from Adaptive-Consistency
    (arXiv 2305.11860), which asks whether it would lead among infinitely many: fewer are left, so less can change.
    """

    def __init__(
        self,
        rule: VoteRule,
        reduce: Reduce,
        grader: Grader,
        confidence: float | None = None,
        by_path: bool = False,
    ) -> None:
        """Watch a vote by this rule.

        Args:
            rule: of the vote.
            reduce: how the rewards of a trajectory's steps become its weight.
            grader: finds and compares answers.
            confidence: in (0.5, 1); None for what is certain alone.
            by_path: whether nodes are numbered by their paths in the end, as those of a method of pace "leaf" are. Then
                it is known who wins a tie of counted votes.
        """
        self._rule, self._reduce, self._confidence = rule, reduce, confidence
        self._reader = _Remembering(grader)
        self._knows_ties = by_path and rule == "majority"

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
        second = standing.others.get(standing.second or "", 0.0)
        return f"the vote is {certain}: {standing.leader:g} against {second:g} with {num_left} trajectories left"

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
            agreed = standing._replace(
                leader=standing.leader + coming + num_begun,
                first=min(standing.first, standing.live, len(tree)),  # the next to be begun comes behind all there are
                live=math.inf,
            )
            return self._probability(agreed, num_held - num_begun) >= (self._confidence or 1.0)

        return next((number for number in range(num_held) if enough(number)), num_held)

    def _probability(self, standing: _Standing, num_left: int) -> float:
        """That the leading answer is the vote's when all are in; 1 only if it is certain."""
        rivals = [self._with_alike(standing, answer) for answer in standing.others]
        if all(self._stays_ahead(standing, num_left, *rival) for rival in (*rivals, (0.0, math.inf))):
            return 1.0
        if self._confidence is None:
            return 0.0
        second, first = 0.0, math.inf
        if standing.second is not None:
            second, first = standing.others[standing.second], standing.firsts[standing.second]
        kept = probability_kept(
            standing.leader, second, num_left, standing.num_neither, self._wins_tie(standing, first)
        )
        return min(kept, math.nextafter(1.0, 0.0))  # below 1, as the float nearest to a probability may be 1 itself

    def _stays_ahead(self, standing: _Standing, num_left: int, most: float, first: float) -> bool:
        """Whether the leading answer beats one of this weight, and this first place, that gets all that is left."""
        lead = standing.leader - (most + num_left)
        return lead > 0 or (lead == 0 and self._wins_tie(standing, first))

    def _wins_tie(self, standing: _Standing, first: float) -> bool:
        """Whether the leading answer wins against an equal one whose first trajectory so far has this place."""
        return self._knows_ties and standing.first < min(first, standing.live)

    def _with_alike(self, standing: _Standing, answer: str) -> tuple[float, float]:
        """The most that another answer may turn out to have, and its first place: a class has no two that differ."""
        alike = [other for other in standing.others if other == answer or self._reader.may_be_one(answer, other)]
        return math.fsum(standing.others[other] for other in alike), min(standing.firsts[other] for other in alike)

    def _standing(self, tree: SearchTree, unscored: Collection[NodeId]) -> _Standing:
        places = {node: place for place, node in enumerate(tree.in_order())}
        weights: dict[str, list[float]] = {}
        answers: dict[str, str] = {}
        firsts: dict[str, float] = {}
        live = [node.id for status in (NodeStatus.OPEN, NodeStatus.PENDING) for node in tree.leaves(status)]
        num_voters = num_unscored = 0
        for candidate in candidates(tree, self._reduce, self._reader):
            if any(node.id in unscored for node in tree.path(candidate.node)):
                num_unscored += 1
                live.append(candidate.node)
                continue
            num_voters += 1
            if (key := candidate.key) is not None and candidate.answer is not None:
                answers.setdefault(key, candidate.answer)
                weights.setdefault(key, []).append(self._weight(candidate))
                firsts[key] = min(firsts.get(key, math.inf), places[candidate.node])
        by_weight = sorted(weights, key=lambda key: (-math.fsum(weights[key]), firsts[key]))
        others = by_weight[1:]
        return _Standing(
            leader=math.fsum(weights[by_weight[0]]) if by_weight else 0.0,
            others={answers[key]: math.fsum(weights[key]) for key in others},
            num_neither=num_voters - sum(len(weights[key]) for key in by_weight[:2]),
            num_unscored=num_unscored,
            first=firsts[by_weight[0]] if by_weight else math.inf,
            firsts={answers[key]: firsts[key] for key in others},
            live=min((places[node] for node in live if node != ROOT), default=math.inf),
        )

    def _weight(self, candidate: Candidate) -> float:
        return 1.0 if self._rule == "majority" or candidate.reward is None else candidate.reward


def probability_kept(
    leader: float, second: float, num_left: int, num_neither: int = 0, wins_tie: bool = False
) -> float:
    """That the first of two answers still has more votes than the second when `num_left` more are in.

    The votes so far tell how many of those to come go to the first, the second and neither: Dirichlet(leader + 1,
    second + 1, num_neither + 1). What goes to neither changes nothing between the two.

    Args:
        leader: votes of the first so far, at least 0; weights may stand for counts.
        second: those of the other.
        num_left: votes of 1 that are still to come, at least 0.
        num_neither: those that were for neither.
        wins_tie: whether as many are enough for the first.
    """
    from scipy.special import gammaln

    to_first, to_second = np.indices((num_left + 1, num_left + 1))
    possible = to_first + to_second <= num_left
    ahead = leader + to_first >= second + to_second if wins_tie else leader + to_first > second + to_second
    to_first, to_second = to_first[possible & ahead], to_second[possible & ahead]
    counts = np.stack([to_first, to_second, num_left - to_first - to_second])
    prior = np.array([leader + 1, second + 1, num_neither + 1])
    drawn = gammaln(counts + prior[:, None]) - gammaln(prior)[:, None] - gammaln(counts + 1)
    whole = gammaln(prior.sum()) - gammaln(prior.sum() + num_left) + gammaln(num_left + 1)
    return min(1.0, float(np.exp(drawn.sum(axis=0) + whole).sum()))
