"""Why a leaf was left out, in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from ets.coverage import Clusters
from search.tree import Node, SearchTree
from search.types import NodeId


@dataclass(slots=True)
class LeafFate:
    """What one selection decided, for all its leaves.

    Attributes:
        policy: the policy's name, which starts every reason.
        tree: as it was at the selection.
        leaves: the candidates.
        kept: positions that the program kept.
        allocation: REBASE's children for each before pruning.
        width: children that were handed out.
        solved: whether a solver found an optimum.
        clusters: of the leaves; None where coverage did not count.
        by_chance: whether leaves paid by what they add to the chance of a right path, and not by their children.
        union: nodes on the paths to the kept leaves.
        members: positions of each cluster's leaves.
    """

    policy: str
    tree: SearchTree
    leaves: Sequence[Node]
    kept: Collection[int]
    allocation: Sequence[int]
    width: int
    solved: bool
    clusters: Clusters | None
    by_chance: bool = False
    union: set[NodeId] = field(init=False)
    members: dict[int, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = frozenset(self.kept)
        self.union = self.tree.union(self.leaves[position].id for position in self.kept)
        self.members = {}
        for position, label in enumerate(() if self.clusters is None else self.clusters.labels.tolist()):
            self.members.setdefault(label, []).append(position)

    def own(self, position: int) -> tuple[int, int]:
        """Nodes, and their tokens, that this leaf alone or with other pruned ones would hold in the cache."""
        node: NodeId | None = self.leaves[position].id
        num_nodes = num_tokens = 0
        while node is not None and node not in self.union:
            num_nodes += 1
            num_tokens += self.tree.num_step_tokens(node)
            node = self.tree[node].parent
        return num_nodes, num_tokens

    def representative(self, position: int) -> int | None:
        """Who stands for this leaf's cluster: of its kept leaves, else of all, the one that was allocated the most.

        None where the leaf is a cluster of its own.
        """
        assert self.clusters is not None
        members = self.members[int(self.clusters.labels[position])]
        others = [other for other in members if other in self.kept] or members
        if len(members) == 1:
            return None
        return max(others, key=lambda other: (self.allocation[other], -other))

    def distance(self, leaf: int, other: int) -> float:
        """Cosine distance of two leaves' embeddings; NaN where they are not finite."""
        # By hand, as `cosine_distances` is made for many rows and this is asked for every pruned leaf.
        first, second = (np.asarray(self.leaves[position].features["embedding"], float) for position in (leaf, other))
        lengths = math.sqrt(float(first @ first)), math.sqrt(float(second @ second))
        if not all(lengths):
            return float(any(lengths))
        return 1.0 - float(first @ second) / (lengths[0] * lengths[1])


def pruned_reason(fate: LeafFate, position: int) -> str:
    """One line for a leaf that gets no children."""
    share = f"{fate.allocation[position]} of {fate.width} children"
    if not fate.solved:
        return f"{fate.policy}: REBASE allocated {share}"
    if position in fate.kept:
        return f"{fate.policy}: kept by the program, then allocated 0 of {fate.width} children"
    num_nodes, num_tokens = fate.own(position)
    cost = f"{num_nodes} node{'s' if num_nodes > 1 else ''} of its own ({num_tokens} tokens)"
    if fate.by_chance and fate.allocation[position]:
        reason = f"{fate.policy}: {cost} for too little more chance of a right path; REBASE allocated {share}"
    elif fate.allocation[position]:
        reason = f"{fate.policy}: its {share} do not pay for {cost}"
    else:
        reason = f"{fate.policy}: REBASE allocated {share}, and it has {cost}"
    return reason if fate.clusters is None else f"{reason}; {_cluster(fate, position)}"


def _cluster(fate: LeafFate, position: int) -> str:
    """What became of a pruned leaf's cluster, by the name of who stands for it."""
    other = fate.representative(position)
    if other is None:
        return "it is a cluster of its own"
    if other == position:
        return "its cluster's best, of which none is kept"
    what = "which is kept" if other in fate.kept else "of whose cluster none is kept"
    return f"says what node {fate.leaves[other].id} says, {what} (distance {fate.distance(position, other):.2f})"
