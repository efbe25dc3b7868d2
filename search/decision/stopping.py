"""When a search may stop before its width is spent: its vote cannot change any more, or almost surely will not."""

from __future__ import annotations

import math
from collections.abc import Collection

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


class Decided:
    """Watches one search's vote.

    A trajectory that is still to come weighs at most 1, as rewards do. So the answer is decided once it leads by more
    than as many trajectories as can still finish, and that is exact: the whole search would give the same answer
    (perhaps written in another way, or by another trajectory). Other votes than those of `POINTWISE` are never decided
    early.

    With `confidence` it also stops when the leading answer is ahead of the second with that probability, if the votes
    so far were independent draws: the posterior of their shares is Beta(w1 + 1, w2 + 1), as in Adaptive-Consistency
    (arXiv 2305.11860). Differs: weights of the vote stand for counts.
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
        leader, rival, num_unscored = self._standing(tree, unscored)
        num_left += num_unscored
        if not leader:
            return ""
        stands = f"{leader:g} against {rival:g} with {num_left} trajectories left"
        if leader > rival + num_left:
            return f"the vote is decided: {stands}"
        if self._confidence is not None:
            ahead = probability_ahead(leader, rival)
            if ahead >= self._confidence:
                return f"the vote is {ahead:.3f} certain: {stands}"
        return ""

    def num_needed(self, tree: SearchTree, num_running: int, num_held: int, unscored: Collection[NodeId]) -> int:
        """How many further trajectories to begin: the fewest with which the vote could be decided.

        That is if all that come give the answer that leads. A vote that is never decided early needs all at once.

        Args:
            tree: as far as it has come.
            num_running: trajectories that were begun and may still finish.
            num_held: trajectories that were not begun.
            unscored: nodes whose reward is still to come.
        """
        if self._rule not in POINTWISE:
            return num_held
        leader, rival, num_unscored = self._standing(tree, unscored)
        # The least n with leader + num_running + n > rival + num_held - n.
        behind = rival + num_held - leader - num_running - num_unscored
        return min(num_held, max(0, math.floor(behind / 2) + 1))

    def _standing(self, tree: SearchTree, unscored: Collection[NodeId]) -> tuple[float, float, int]:
        """The weights of the leading answer and of its rival, and how many finished trajectories have no weight yet."""
        weights: dict[str, float] = {}
        num_unscored = 0
        for one in candidates(tree, self._reduce, self._reader):
            if any(node.id in unscored for node in tree.path(one.node)):
                num_unscored += 1
            elif one.key is not None:
                weights[one.key] = weights.get(one.key, 0.0) + self._weight(one)
        leader, *others = sorted(weights.values(), reverse=True) or [0.0]
        # Where a grader may find answers of two keys to be one after all, the others could turn out to be a single one.
        rival = math.fsum(others) if self._merges else others[0] if others else 0.0
        return leader, rival, num_unscored

    def _weight(self, one: Candidate) -> float:
        return 1.0 if self._rule == "majority" or one.reward is None else one.reward


def probability_ahead(leader: float, rival: float) -> float:
    """P(p > 1/2) for p ~ Beta(leader + 1, rival + 1): that the first of two answers is given more often.

    Args:
        leader: its votes so far, at least 0.
        rival: the other's.
    """
    from scipy.special import betainc

    # By symmetry it is the distribution function of the other share at 1/2.
    return float(betainc(rival + 1, leader + 1, 0.5))
