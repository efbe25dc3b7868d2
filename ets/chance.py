"""Coverage by chance: how likely it is that a kept leaf is on a right path, and which leaves are worth what they cost.

Of leaves that may all be right, one is enough; where none is sure, several are. So what one more leaf is worth falls
with every leaf that is kept, and is more where what is kept is doubtful.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ets.problem import Floats, Ints, PruneProblem

NUM_RATES = 25
"""Points at which the unknown share of right leaves is looked at."""

NUM_TRUSTS = 3
"""Points at which it is looked at how far rewards can be believed."""

LEAST = 0.05
"""Rewards are taken to lie this far from 0 and from 1: no reward model is surer than one in twenty.

At 0.001 a reward of 0.999 beats all others, and the mini family's searches lost right paths by it; simulated rewards of
a real model's steps hardly come so far.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Chance:
    """The chance that a kept leaf is right, as far as a level's own rewards tell.

    Some share of what the policy writes here is right, and every share is as likely at first. A reward says how
    far the odds of its leaf are from those of the level's others, in log-odds from their mean. So a reward model
    that is too sure of all of them, or of none, tells the same. How much of that is true is not known either: every
    part of the distance, from none to all of it, is as likely. Leaves of one cluster are right or wrong together.

    Attributes:
        right: the chance of each leaf, where the share of right ones is the middle of each of `NUM_RATES` equal parts
            of [0, 1], and what rewards can be believed that of each of `NUM_TRUSTS`.
            (NUM_RATES * NUM_TRUSTS, num_leaves)
        clusters: label of each leaf, 0 .. K - 1. (num_leaves,)
    """

    right: Floats
    clusters: Ints

    @classmethod
    def of_rewards(cls, rewards: Sequence[float], clusters: Ints) -> Chance:
        """From the rewards of the leaves, in [0, 1]."""
        inside = [min(max(reward, LEAST), 1 - LEAST) for reward in rewards]
        logits = [math.log(reward / (1 - reward)) for reward in inside]
        mean = math.fsum(logits) / len(logits)
        trusts, rates = _middles(NUM_TRUSTS)[:, None], _middles(NUM_RATES)[:, None, None]
        odds = np.exp(trusts * np.array([logit - mean for logit in logits]))
        return cls((rates * odds / (rates * odds + 1 - rates)).reshape(-1, len(logits)), clusters)

    def of(self, kept: Collection[int]) -> float:
        """The chance that one of some leaves is right; in a cluster the likeliest of them counts."""
        all_wrong = np.ones(len(self.right))
        leaves = np.array(sorted(kept), dtype=np.int64)
        for label in np.unique(self.clusters[leaves]).tolist():
            all_wrong *= 1 - self.right[:, leaves[self.clusters[leaves] == label]].max(axis=1)
        return float(1 - all_wrong.mean())


def _middles(count: int) -> Floats:
    """The middles of so many equal parts of [0, 1]."""
    return (np.arange(count) + 0.5) / count


def keep_by_chance(problem: PruneProblem, chance: Chance, candidates: Collection[int]) -> list[int]:
    """Leaves to keep: those that raise the chance by more than what they add to the tree costs.

    One by one the leaf is taken that raises the chance the most for its price, nodes that are paid for already not
    counted; of equals the lower position. The first one is taken at any price.

    Args:
        problem: what nodes cost; its leaves' values and its coverage play no part.
        chance: of its leaves.
        candidates: positions of the leaves that may be kept; at least one.

    Returns:
        Positions in the order in which they were taken.
    """
    prices = _Prices(problem)
    right, labels = chance.right, chance.clusters
    all_wrong = np.ones(len(right))
    covered: dict[int, Floats] = {}
    # What each leaf takes off the chance to be wrong, beside what its own cluster's kept leaf does.
    more = right.copy()
    is_open = np.zeros(problem.num_leaves, dtype=bool)
    is_open[list(candidates)] = True
    kept: list[int] = []
    while is_open.any():
        # Down the first axis, sums go row by row for each leaf alone, so they do not depend on the leaves' order.
        gains = (all_wrong[:, None] * more).sum(axis=0) / len(right)
        worth = np.where(is_open, gains / np.maximum(prices.leaves, 1e-12), -1.0)
        best = int(worth.argmax())
        if kept and worth[best] < 1:
            break
        kept.append(best)
        is_open[best] = False
        label = int(labels[best])
        before = covered.get(label, np.zeros(len(right)))
        covered[label] = np.maximum(before, right[:, best])
        all_wrong = all_wrong * (1 - covered[label]) / (1 - before)
        covered_here, same = covered[label][:, None], labels == label
        more[:, same] = np.maximum(right[:, same] - covered_here, 0.0) / (1 - covered_here)
        prices.pay(best)
    return kept


class _Prices:
    """What each leaf would add to the tree's price, given what is paid for already.

    Shares are of what can be pruned: the prompt stays whatever is kept, so it costs nothing and takes no share. All of
    it together costs lambda_b / N, for N leaves. Of equal leaves the n-th is worth 1 / (n (n + 1)), where nothing is
    known of them, and costs lambda_b / N^2; so N / sqrt(lambda_b) are kept, the same part at every
    width to 256. Of more it is less, as `NUM_RATES` points do not tell so small gains apart.
    """

    def __init__(self, problem: PruneProblem) -> None:
        shares = problem.node_shares.copy()
        shares[0] = 0.0
        scale = problem.node_cost_weight / problem.num_leaves / (shares.sum() + problem.leaf_shares.sum() or 1.0)
        self._own, self._nodes = scale * problem.leaf_shares, scale * shares
        self._parents, self._above = problem.node_parents.tolist(), problem.leaf_parents
        self.leaves = self._add_up()

    def pay(self, leaf: int) -> None:
        """This leaf is kept: what is above it costs no more."""
        node, is_new = int(self._above[leaf]), False
        while node >= 0:
            is_new = is_new or self._nodes[node] > 0
            self._nodes[node] = 0.0
            node = self._parents[node]
        if is_new:
            self.leaves = self._add_up()

    def _add_up(self) -> Floats:
        paths = self._nodes.tolist()
        for node, parent in enumerate(self._parents):
            if parent >= 0:
                paths[node] += paths[parent]
        return np.asarray(self._own + np.array(paths)[self._above])
