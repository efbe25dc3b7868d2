"""The rolling frontier: a level-wise method is asked about the leaves that are open while others are being written."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from search.protocols import Policy
from search.tree import Node, SearchTree
from search.types import ROOT, Expansion, NodeId, NodeStatus, Pace, Selection

LATE_TOKENS = 8
"""How much shorter than the newest leaf's a path may be for its end to be given more children: later ones would have
the search wait for them."""


class Frontier(SearchTree):
    """A view of a tree in which steps that are being written are open leaves as well.

    What they say is not known yet, so each stands there with the text and the features of the step above it, and with
    the mean reward of its siblings and of that step, 1 below the prompt. Were it the siblings' alone, the first to end
    could never be worse than what is still written, and would take width that better ones lack later. It has the tokens
    that were written of it by now: its path is about as long as the newest leaf's, as all are written at one speed.
    """

    def __init__(self, tree: SearchTree, writing: Sequence[Node]) -> None:
        """Look at a tree; it is not changed, nor is this view to be.

        Args:
            tree: as far as it has come.
            writing: its steps that are being written.
        """
        super().__init__(tree.id, tree.root.ids, tree.root.text, tree.question, tree.root.seed)
        self.nodes = [*tree.nodes]
        self._children = tree._children
        self._num_finished = tree.num_finished
        newest = _newest(tree)
        for node in writing:
            assert node.parent is not None
            above = tree[node.parent]
            known = [reward for child in tree.children(above.id) if (reward := tree[child].reward) is not None]
            known.append(tree.path_reward(above.id, "last"))
            self.nodes[node.id] = replace(
                node,
                text=above.text,
                features=above.features,
                reward=sum(known) / len(known),
                status=NodeStatus.OPEN,
                num_path_tokens=max(newest, above.num_path_tokens + 1),
            )


@dataclass(frozen=True, slots=True)
class Rolling:
    """A level-wise policy on a rolling frontier: no leaf waits until a level is whole.

    Whenever steps have been scored, the policy is asked about them together with all that are being written
    (`Frontier`), as if these were a level. What it says of the open leaves is done: they are pruned, or get children as
    far as width is free. What is being written goes on, whatever it says of it. Width that the pruned leaves leave goes
    to who lacks most of what the policy gives it: open leaves, or steps whose children are being written, if
    their paths are not more than `LATE_TOKENS` shorter. So a leaf that says the same as a step which is
    expanded already is pruned, and that step gets its share, as in ETS's clusters on a level.

    As in the particle cascade (arXiv 1407.2864), a step is weighed against those that came before it and not against a
    whole generation.

    Differs: ETS (arXiv 2502.13575) and REBASE (arXiv 2408.00724) select level by level; this is another method, with
    other results.

    Attributes:
        policy: what is asked; it lets no leaf wait.
    """

    pace: ClassVar[Pace] = "rolling"

    policy: Policy

    @property
    def name(self) -> str:
        """The policy's own, as rolling."""
        return f"{self.policy.name}-rolling"

    @property
    def features(self) -> frozenset[str]:
        """The policy's own; also of steps whose children are being written."""
        return self.policy.features

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Ask about the open leaves among all that is being written."""
        leaves = {leaf.id for leaf in tree.leaves()}
        writing = tree.leaves(NodeStatus.PENDING)
        if not writing:
            return self.policy.select(tree, width, rng)
        selection = self.policy.select(Frontier(tree, writing), width + len(writing), rng)
        continued = {node.id: node.parent for node in writing if node.parent is not None}
        said = self._said_before(selection, continued)
        reasons = {node: reason for node, reason in selection.reasons.items() if node in leaves}
        lacking: Counter[NodeId] = Counter()
        for node, num_children in ((one.node, one.num_children) for one in selection.expansions):
            if node in said:
                reasons[node] = f"{self.name}: node {said[node]} says the same and is continued"
            lacking[said.get(node) or continued.get(node, node)] += num_children
        lacking.subtract(continued.values())
        given = _share(tree, leaves, lacking, width)
        return Selection(
            tuple(Expansion(node, given[node]) for node in sorted(given)),
            reasons,
            selection.note,
            {node: cluster for node, cluster in selection.clusters.items() if node in leaves},
            selection.cluster_distance,
        )

    @staticmethod
    def _said_before(selection: Selection, continued: Mapping[NodeId, NodeId]) -> dict[NodeId, NodeId]:
        """Leaves that were kept in place of steps of their cluster which are continued, and such a step for each."""
        kept = {expansion.node for expansion in selection.expansions}
        by_cluster = {selection.clusters[node]: continued[node] for node in continued if node in selection.clusters}
        covered = {selection.clusters[node] for node in continued if node in kept and node in selection.clusters}
        return {
            node: by_cluster[cluster]
            for node in kept - continued.keys()
            if (cluster := selection.clusters.get(node)) in by_cluster and cluster not in covered
        }


def _share(tree: SearchTree, leaves: Collection[NodeId], lacking: Counter[NodeId], width: int) -> Counter[NodeId]:
    """Children for each node out of the free width: one for every leaf that is kept, then one by one to who lacks most.

    Args:
        tree: as far as it has come.
        leaves: the open ones.
        lacking: the children that each node is to have beyond those that are being written.
        width: children to hand out.
    """
    kept = [leaf for leaf in sorted(leaves) if lacking[leaf] > 0]
    given = Counter(dict.fromkeys(kept[:width], 1))
    newest = _newest(tree)
    able = [
        node
        for node in sorted(lacking)
        if node in leaves or (node != ROOT and newest - tree[node].num_path_tokens <= LATE_TOKENS)
    ]
    for _ in range(width - given.total()):
        wanted = [node for node in able if lacking[node] > given[node]]
        if not wanted:
            break
        given[max(wanted, key=lambda node: (lacking[node] - given[node], -node))] += 1
    return given


def _newest(tree: SearchTree) -> int:
    """Tokens of the longest path to an open leaf."""
    return max(leaf.num_path_tokens for leaf in tree.leaves())
