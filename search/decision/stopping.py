"""When a search may stop before its width is spent: its vote cannot change any more, or almost surely will not."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from search.answers.graders import ComparingGrader, Grader
from search.decision.vote import POINTWISE, candidates, vote
from search.tree import SearchTree
from search.types import ROOT, NodeId, NodeStatus, Reduce, VoteRule


class _Remembering:
    """A grader that reads each text, and compares two answers, once: they are looked at again and again."""

    def __init__(self, grader: Grader) -> None:
        self.extract, self.key = cache(grader.extract), grader.key
        self._same = cache(grader.equivalent) if isinstance(grader, ComparingGrader) else None

    def may_be_one(self, answer: str, other: str) -> bool:
        """Whether two answers of unequal keys may be one to the vote."""
        return self._same is not None and self._same(*sorted((answer, other)))


class _Answer(NamedTuple):
    """An answer in a vote: its text, its weight, how many gave it, and the place in the tree of the first that did."""

    text: str
    weight: float
    num: int
    first: float


_NOBODY = _Answer("", 0.0, 0, math.inf)
"""An answer that nothing has given yet."""


class _Standing(NamedTuple):
    """How a vote stands.

    Attributes:
        leader: the answer that leads.
        others: the others, heaviest first.
        num_voters: finished trajectories that have their weight, with an answer or without.
        num_unscored: those that have none yet.
        live: the first place at which a trajectory may still finish, of those that are begun.
    """

    leader: _Answer
    others: tuple[_Answer, ...]
    num_voters: int
    num_unscored: int
    live: float

    @property
    def second(self) -> _Answer:
        """The next answer."""
        return self.others[0] if self.others else _NOBODY


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
        if not standing.leader.weight:
            return ""
        probability = self._probability(standing, num_left)
        if probability < (self._confidence or 1.0):
            return ""
        certain = "decided" if probability == 1.0 else f"{probability:.3f} certain"
        leader, second = standing.leader.weight, standing.second.weight
        return f"the vote is {certain}: {leader:g} against {second:g} with {num_left} trajectories left"

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
        leader, coming = standing.leader, num_running + standing.num_unscored

        def enough(num_begun: int) -> bool:
            agreed = leader._replace(
                weight=leader.weight + coming + num_begun,
                first=min(leader.first, standing.live, len(tree)),  # the next to be begun comes behind all there are
            )
            probability = self._probability(standing._replace(leader=agreed, live=math.inf), num_held - num_begun)
            return probability >= (self._confidence or 1.0)

        return bisect_left(range(num_held), True, key=enough)  # the more agree, the surer

    def _probability(self, standing: _Standing, num_left: int) -> float:
        """That the leading answer is the vote's when all are in; 1 only if it is certain."""
        leader, second = standing.leader, standing.second
        leads = [(leader.weight - (rival.weight + num_left), rival) for rival in self._rivals(standing)]
        if all(lead > 0 or (lead == 0 and self._wins_tie(standing, rival)) for lead, rival in leads):
            return 1.0
        if self._confidence is None:
            return 0.0
        num_neither = standing.num_voters - leader.num - second.num
        kept = probability_kept(leader.weight, second.weight, num_left, num_neither, self._wins_tie(standing, second))
        return min(kept, math.nextafter(1.0, 0.0))  # below 1, as the float nearest to a probability may be 1 itself

    def _wins_tie(self, standing: _Standing, rival: _Answer) -> bool:
        """Whether the leading answer wins against another one of the same weight."""
        return self._knows_ties and standing.leader.first < min(rival.first, standing.live)

    def _rivals(self, standing: _Standing) -> Iterator[_Answer]:
        """The others with what may turn out to be one with each, as a class has no two that differ; and a new one."""
        for answer in standing.others:
            alike = [
                other
                for other in standing.others
                if other is answer or self._reader.may_be_one(answer.text, other.text)
            ]
            weight, first = math.fsum(other.weight for other in alike), min(other.first for other in alike)
            yield answer._replace(weight=weight, first=first)
        yield _NOBODY

    def _standing(self, tree: SearchTree, unscored: Collection[NodeId]) -> _Standing:
        places = {node: place for place, node in enumerate(tree.in_order())}
        ended = candidates(tree, self._reduce, self._reader)
        voters = [one for one in ended if not any(node.id in unscored for node in tree.path(one.node))]
        answers = [
            _Answer(one.answer, one.weight, len(one.nodes), min(places[node] for node in one.nodes))
            for one in vote(voters, self._rule).classes
        ]
        leader, *others = sorted(answers, key=lambda answer: (-answer.weight, answer.first)) or [_NOBODY]
        live = {node.id for status in (NodeStatus.OPEN, NodeStatus.PENDING) for node in tree.leaves(status)}
        live |= {one.node for one in ended} - {one.node for one in voters}
        still = min((places[node] for node in live if node != ROOT), default=math.inf)
        return _Standing(leader, tuple(others), len(voters), len(ended) - len(voters), still)


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
    from scipy.stats import dirichlet_multinomial

    to_first, to_second = np.indices((num_left + 1, num_left + 1))
    possible = to_first + to_second <= num_left
    ahead = leader + to_first >= second + to_second if wins_tie else leader + to_first > second + to_second
    to_first, to_second = to_first[possible & ahead], to_second[possible & ahead]
    counts = np.stack([to_first, to_second, num_left - to_first - to_second], axis=-1)
    chances = dirichlet_multinomial.pmf(counts, (leader + 1, second + 1, num_neither + 1), num_left)
    return min(1.0, float(chances.sum()))
