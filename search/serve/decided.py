"""Steps that are decided while a search still runs: those that every trajectory that can yet win has in common."""

from __future__ import annotations

from search.tree import Node, SearchTree
from search.types import NodeId, NodeStatus

_LIVE = (NodeStatus.OPEN, NodeStatus.PENDING, NodeStatus.FINISHED)


class DecidedSteps:
    """Goes down a growing tree as far as its live leaves share one path. What it gave out stays right.

    A live leaf is one that may yet be, or become, the trajectory that wins: open, pending or finished. Leaves only ever
    grow below live ones, so a step above all of them stays above all of them.
    """

    def __init__(self) -> None:
        self._last: Node | None = None

    def advance(self, tree: SearchTree) -> list[Node]:
        """The steps decided since the last call, in order."""
        leaves = [node.id for status in _LIVE for node in tree.leaves(status)]
        above, new = tree.union(leaves), []
        while (step := self._only_child(tree, above)) is not None:
            new.append(step)
            self._last = step
        return new

    def rest(self, tree: SearchTree, end: NodeId) -> list[Node]:
        """The steps of the trajectory that won, from where `advance` stood."""
        path = tree.path(end)
        place = next((index for index, node in enumerate(path) if node is self._last), 0)
        self._last = path[-1]
        return path[place + 1 :]

    def _only_child(self, tree: SearchTree, above: set[NodeId]) -> Node | None:
        last = self._last or tree.root
        if last.status is not NodeStatus.EXPANDED:
            return None
        alive = [child for child in tree.children(last.id) if child in above]
        if len(alive) != 1 or tree[alive[0]].status is NodeStatus.PENDING:
            return None
        return tree[alive[0]]
