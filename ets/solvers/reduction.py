"""What of a pruning program is clear without a solver: leaves that surely stay, and leaves that surely go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ets.closure import own_gains, paying_leaves, worth
from ets.problem import Floats, Ints, PruneProblem


class Reduced(NamedTuple):
    """The part of a program that is still open.

    Attributes:
        kept: leaves that are in some optimum together with the best of the rest; may be all there is.
        open: leaves to be decided. (num_open,)
        gains: what each of them is worth by itself. (num_open,)
        parents: position of each one's parent in `nodes`; -1 where the parent is paid for already. (num_open,)
        nodes: ancestors to be decided, parents first. (num_open_nodes,)
        node_parents: as `parents`. (num_open_nodes,)
        clusters: label of each open leaf among the open clusters; -1 where covering it brings nothing.
        num_clusters: open clusters.
        one_at_least: whether nothing is kept yet, so that one of the open leaves must be.
    """

    kept: list[int]
    open: Ints
    gains: Floats
    parents: Ints
    nodes: Ints
    node_parents: Ints
    clusters: Ints
    num_clusters: int
    one_at_least: bool


def reduce_problem(problem: PruneProblem) -> Reduced:
    """Decide what can be decided in linear time; the rest, with `kept`, holds an optimum of the whole.

    - Leaves that pay without coverage stay: their worth is supermodular and coverage never falls, so the union
      of an optimum with them is an optimum. Clusters of one leaf count as that leaf's own worth here.
    - Of the rest, a leaf that brings less than it costs and no new cluster goes; of several such leaves with the
      same parent and cluster, all but the best go; and so does a subtree that could not pay if it alone covered
      all its clusters.
    """
    gains = own_gains(problem)
    parents, node_parents = problem.leaf_parents, problem.node_parents
    kept = paying_leaves(problem, worth(problem, gains), {0})
    paid = problem.ancestors(kept) | {0}
    sizes = np.bincount(problem.clusters)
    news = sizes[problem.clusters] > 1 if problem.coverage_weight else np.zeros(problem.num_leaves, dtype=bool)
    news &= ~np.isin(problem.clusters, problem.clusters[kept])
    is_open = np.ones(problem.num_leaves, dtype=bool)
    is_open[kept] = False
    if kept:
        is_open &= (gains >= 0) | news
        is_open &= _may_pay(problem, gains + problem.cluster_value * news, is_open, paid)
    is_open &= _best_twin(problem, gains, is_open & news & (gains < 0))
    leaves = np.flatnonzero(is_open)
    nodes = np.array(sorted(problem.ancestors(leaves.tolist()) - paid), dtype=np.int64)
    index = np.full(problem.num_nodes + 1, -1, dtype=np.int64)
    index[nodes] = np.arange(len(nodes))
    clusters = np.where(news[leaves], problem.clusters[leaves], -1)
    labels, labelled = np.unique(clusters, return_inverse=True)
    no_label = int(bool(len(labels)) and labels[0] < 0)
    return Reduced(
        kept=kept,
        open=leaves,
        gains=gains[leaves],
        parents=index[parents[leaves]],
        nodes=nodes,
        node_parents=index[node_parents[nodes]],
        clusters=labelled.astype(np.int64) - no_label,
        num_clusters=len(labels) - no_label,
        one_at_least=not kept,
    )


def _may_pay(problem: PruneProblem, hopes: Floats, is_open: np.ndarray, paid: set[int]) -> np.ndarray:
    """Open leaves below no subtree whose highest hopes do not cover its costs, (num_leaves,)."""
    prices, parents = problem.node_prices.tolist(), problem.node_parents.tolist()
    hope = [0.0] * problem.num_nodes
    for leaf in np.flatnonzero(is_open & (hopes > 0)).tolist():
        hope[problem.leaf_parents[leaf]] += float(hopes[leaf])
    for node in range(problem.num_nodes - 1, 0, -1):
        if node not in paid and (left := hope[node] - prices[node]) > 0:
            hope[parents[node]] += left
    alive = [True] * problem.num_nodes
    for node in range(1, problem.num_nodes):
        alive[node] = node in paid or (alive[parents[node]] and hope[node] > prices[node])
    return np.array(alive)[problem.leaf_parents] & (hopes > 0)


def _best_twin(problem: PruneProblem, gains: Floats, rivals: np.ndarray) -> np.ndarray:
    """False for a rival beaten by another of the same parent and cluster; of equals the lower position stays."""
    stays = np.ones(problem.num_leaves, dtype=bool)
    best: dict[tuple[int, int], int] = {}
    for leaf in np.flatnonzero(rivals).tolist():
        key = (int(problem.leaf_parents[leaf]), int(problem.clusters[leaf]))
        other = best.setdefault(key, leaf)
        if other == leaf:
            continue
        if gains[leaf] > gains[other]:
            best[key] = leaf
            stays[other] = False
        else:
            stays[leaf] = False
    return stays
