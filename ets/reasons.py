"""Why a leaf was left out, in words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

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
        union: nodes on the paths to the kept leaves.
        covered: clusters with a kept leaf.
    """

    policy: str
    tree: SearchTree
    leaves: Sequence[Node]
    kept: Collection[int]
    allocation: Sequence[int]
    width: int
    solved: bool
    clusters: Clusters | None
    union: set[NodeId] = field(init=False)
    covered: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = frozenset(self.kept)
        self.union = self.tree.union(self.leaves[position].id for position in self.kept)
        labels = None if self.clusters is None else self.clusters.labels
        self.covered = set() if labels is None else {int(labels[position]) for position in self.kept}

    def own(self, position: int) -> tuple[int, int]:
        """Nodes, and their tokens, that this leaf alone or with other pruned ones would hold in the cache."""
        node: NodeId | None = self.leaves[position].id
        num_nodes = num_tokens = 0
        while node is not None and node not in self.union:
            num_nodes += 1
            num_tokens += len(self.tree[node].ids)
            node = self.tree[node].parent
        return num_nodes, num_tokens


def pruned_reason(fate: LeafFate, position: int) -> str:
    """One line for a leaf that gets no children."""
    share = f"{fate.allocation[position]} of {fate.width} children"
    if not fate.solved:
        return f"{fate.policy}: REBASE allocated {share}"
    if position in fate.kept:
        return f"{fate.policy}: kept by the program, then allocated 0 of {fate.width} children"
    num_nodes, num_tokens = fate.own(position)
    cost = f"{num_nodes} node{'s' if num_nodes > 1 else ''} of its own ({num_tokens} tokens)"
    if fate.allocation[position]:
        reason = f"{fate.policy}: its {share} do not pay for {cost}"
    else:
        reason = f"{fate.policy}: REBASE allocated {share}, and it has {cost}"
    if fate.clusters is None:
        return reason
    label = int(fate.clusters.labels[position])
    return f"{reason}; cluster {label} is {'covered' if label in fate.covered else 'not worth covering'}"
