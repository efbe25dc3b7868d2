"""One tree's nodes and counters; where its KV lies is said by those who derive from this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING

from search.engines.local.arena import Node
from search.types import Prefix, Usage

if TYPE_CHECKING:
    from search.engines.local.rows import Row


class TreeCache(ABC):
    """What the engine holds and did for one tree.

    Attributes:
        name: the tree's id.
        order: its place in the order of arrival; older trees are served first.
        nodes: by key.
        rows: live rows over it.
        used: number of the turn that last worked for it.
    """

    def __init__(self, name: str, order: int) -> None:
        self.name, self.order = name, order
        self.nodes: dict[int, Node] = {}
        self.rows: list[Row] = []
        self.used = 0
        self.num_computed = 0
        self.num_recomputed = 0
        self.num_sampled = 0
        self.num_calls = 0
        self.num_held = 0
        self.num_peak = 0

    def usage(self) -> Usage:
        """The counters now."""
        return Usage(
            computed_tokens=self.num_computed,
            sampled_tokens=self.num_sampled,
            num_calls=self.num_calls,
            kv_tokens_held=self.num_held,
            kv_tokens_peak=self.num_peak,
            recomputed_tokens=self.num_recomputed,
        )

    # Nodes

    def resolve(self, prefix: Prefix) -> tuple[Node, bool]:
        """The prefix's last node, made where the tree lacks it.

        Returns:
            The node, and whether other nodes had to go because their ids changed.
        """
        parent: Node | None = None
        replaced = False
        start = 0
        for segment in prefix.segments:
            node = self.nodes.get(segment.key)
            if node is None or node.parent is not parent or node.ids != segment.ids:
                if node is not None:
                    self.drop([segment.key])
                    replaced = True
                node = self.add(segment.key, parent, segment.ids, start)
            start += len(segment.ids)
            parent = node
        assert parent is not None, "a prefix has at least one segment"
        return parent, replaced

    def add(self, key: int, parent: Node | None, ids: tuple[int, ...], start: int) -> Node:
        """Add a node without KV."""
        node = Node(key, parent, ids, start, used=self.used)
        self.nodes[key] = node
        if parent is not None:
            parent.children[key] = node
        return node

    def drop(self, keys: Collection[int] | None) -> None:
        """Forget nodes and all below them (None: all), with their KV; `compact` closes the holes.

        Rows that run below stay in the lanes until the caller takes them out.
        """
        tops = [self.nodes[key] for key in keys if key in self.nodes] if keys is not None else None
        if tops is None:
            tops = [node for node in self.nodes.values() if node.parent is None]
        for top in tops:
            if not top.alive:
                continue
            for node in list(top.below()):
                self.forget_kv(node)
                node.alive = False
                del self.nodes[node.key]
            if top.parent is not None:
                del top.parent.children[top.key]

    def forget_kv(self, node: Node) -> None:
        """Free a node's slots; the node stays."""
        self._free(node)
        self.num_held -= node.num_cached
        node.num_cached, node.logits, node.hidden = 0, None, None

    @abstractmethod
    def _free(self, node: Node) -> None:
        """Give a node's slots back."""

    def compact(self, reorder: bool = False) -> None:  # noqa: B027 - where slots are scattered there is nothing to do
        """After slots were given back: close holes, where that means anything.

        Args:
            reorder: bring slots to the best order without holes too.
        """

    def count_computed(self, node: Node, first: int, num_tokens: int) -> None:
        """Count a node's tokens [first, first + num_tokens) as computed, and as recomputed where they were before."""
        self.num_computed += num_tokens
        self.num_recomputed += max(0, min(node.num_ever, first + num_tokens) - first)
        node.num_ever = max(node.num_ever, first + num_tokens)

    # Rows

    def add_row(self, row: Row) -> None:
        """Let a row see its path."""
        self.rows.append(row)

    def remove_row(self, row: Row) -> None:
        """Forget a row; the others keep their order."""
        self.rows.remove(row)
