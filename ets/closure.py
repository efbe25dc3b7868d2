"""Keeping leaves when nothing but their own worth counts: a maximum closure on a tree, exact in linear time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from ets.problem import Floats, PruneProblem

TIE = 1e-12
"""Sums within this of zero count as zero: a subtree that costs exactly what it is worth is kept."""


class Worth(NamedTuple):
    """What keeping the best of a subtree adds, its top included, if all above is paid for.

    Attributes:
        leaves: of each leaf.
        nodes: of each ancestor, at least one leaf below it kept.
        best_child: of each ancestor none of whose children pays, the child to keep if one must be: a leaf as its
            position, a node as -1 - its index; None where a child pays.
    """

    leaves: Sequence[float]
    nodes: Sequence[float]
    best_child: Sequence[int | None]


def own_gains(problem: PruneProblem) -> Floats:
    """Each leaf's gain; a cluster of one leaf is that leaf's own worth, (num_leaves,)."""
    gains = problem.leaf_gains
    if problem.coverage_weight:
        alone = np.bincount(problem.clusters) == 1
        gains = gains + np.where(alone[problem.clusters], problem.cluster_value, 0.0)
    return gains


def worth(problem: PruneProblem, gains: Floats) -> Worth:
    """Go up the tree once; of equal children the leaf, then the lower position, is the best."""
    num_nodes = problem.num_nodes
    prices, parents = problem.node_prices.tolist(), problem.node_parents.tolist()
    leaves = gains.tolist()
    paying, pays = [0.0] * num_nodes, [False] * num_nodes
    best, best_child = [float("-inf")] * num_nodes, [0] * num_nodes

    def add(parent: int, value: float, child: int) -> None:
        if value >= -TIE:
            paying[parent] += value
            pays[parent] = True
        elif value > best[parent]:
            best[parent], best_child[parent] = value, child

    for leaf, parent in enumerate(problem.leaf_parents.tolist()):
        if parent >= 0:
            add(parent, leaves[leaf], leaf)
    nodes = [0.0] * num_nodes
    for node in range(num_nodes - 1, -1, -1):
        nodes[node] = (paying[node] if pays[node] else best[node]) - prices[node]
        if node:
            add(parents[node], nodes[node], -1 - node)
    return Worth(leaves, nodes, [None if pays[node] else best_child[node] for node in range(num_nodes)])


def paying_leaves(problem: PruneProblem, worths: Worth, given: Collection[int]) -> list[int]:
    """Leaves that pay for themselves and for all between them and the ancestors that are `given`, rising.

    Of all sets that are worth the most beyond the given ancestors this is the largest one, and the only one.
    """
    taken = [False] * problem.num_nodes
    for node, parent in enumerate(problem.node_parents.tolist()):
        taken[node] = node in given or (parent >= 0 and taken[parent] and worths.nodes[node] >= -TIE)
    return [
        leaf
        for leaf, parent in enumerate(problem.leaf_parents.tolist())
        if worths.leaves[leaf] >= -TIE and (parent < 0 or taken[parent])
    ]


def best_closure(problem: PruneProblem, gains: Floats) -> list[int]:
    """The best leaves to keep, at least one, if each is worth its gain and clusters do not count; rising.

    Ties: everything that costs exactly its worth is kept. If nothing pays, the one best leaf stays; of equals
    the one found by going down to a leaf before a node and to the lower position.
    """
    if problem.num_nodes == 0:
        return [0]
    worths = worth(problem, gains)
    kept = paying_leaves(problem, worths, {0})
    if kept:
        return kept
    path = {0}
    child = worths.best_child[0]
    while child is not None and child < 0:
        path.add(-1 - child)
        child = worths.best_child[-1 - child]
        if child is None:
            return paying_leaves(problem, worths, path)
    assert child is not None
    return [child]
