"""One tree's nodes, arena and counters, and the masks of the rows that run over it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from search.engines.local.arena import BLOCKED, Arena, KVShape, Node
from search.engines.local.bands import Band, cut
from search.types import Prefix, Usage

if TYPE_CHECKING:
    from search.engines.local.rows import Row


class View(NamedTuple):
    """What a tree's rows see.

    Attributes:
        mask: (num_rows, extent) additive; no row sees a slot from `extent` on.
        trunk: slots [0, trunk) are seen by every row.
        bands: cover all rows in order.
    """

    mask: NDArray[np.float32]
    trunk: int
    bands: list[Band]


class TreeCache:
    """What the engine holds and did for one tree.

    Attributes:
        name: the tree's id.
        order: its place in the order of arrival; older trees are served first.
        arena: its KV.
        nodes: by key.
        rows: live rows over it, in the order of their masks.
        used: number of the turn that last worked for it.
    """

    def __init__(self, name: str, order: int, shape: KVShape, dtype: torch.dtype, device: torch.device) -> None:
        self.name, self.order = name, order
        self.arena = Arena(shape, dtype, device)
        self._num_channels = shape.num_kv_heads * shape.head_dim
        self.nodes: dict[int, Node] = {}
        self.rows: list[Row] = []
        self.used = 0
        self.num_computed = 0
        self.num_recomputed = 0
        self.num_sampled = 0
        self.num_calls = 0
        self.num_held = 0
        self.num_peak = 0
        self._masks = np.zeros((0, 0), np.float32)
        self._extents: list[int] = []
        self._view: View | None = None

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
        self.arena.free(node.pieces)
        self.num_held -= node.num_cached
        node.pieces, node.num_cached, node.logits, node.hidden = [], 0, None, None

    def compact(self, reorder: bool = False) -> None:
        """Close the arena's holes and rebuild the masks.

        Slots are laid out depth first, so that what a group of neighbouring leaves sees lies close together.

        Args:
            reorder: do it without holes too, to bring what was appended since then to its place.
        """
        if self.arena.num_holes or reorder:
            tops = [node for node in self.nodes.values() if node.parent is None]
            self.arena.compact(node for top in tops for node in top.below())
            for index in range(len(self.rows)):
                self._fill(index)

    def take(self, node: Node, num_tokens: int) -> int:
        """Slots for a node's next tokens; their KV is about to be written. Returns the first."""
        start = self.arena.allocate(num_tokens)
        if node.pieces and sum(node.pieces[-1]) == start:
            first, length = node.pieces[-1]
            node.pieces[-1] = (first, length + num_tokens)
        else:
            node.pieces.append((start, num_tokens))
        node.num_cached += num_tokens
        self.num_held += num_tokens
        return start

    def count_computed(self, node: Node, first: int, num_tokens: int) -> None:
        """Count a node's tokens [first, first + num_tokens) as computed, and as recomputed where they were before."""
        self.num_computed += num_tokens
        self.num_recomputed += max(0, min(node.num_ever, first + num_tokens) - first)
        node.num_ever = max(node.num_ever, first + num_tokens)

    @staticmethod
    def slots(path: Sequence[Node]) -> NDArray[np.int64]:
        """Slots of a path's cached tokens, root first."""
        pieces = [np.arange(start, start + length) for node in path for start, length in node.pieces]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    # Rows

    def add_row(self, row: Row) -> None:
        """Let a row see its path."""
        self.rows.append(row)
        self._extents.append(0)
        self._fill(len(self.rows) - 1)

    def remove_row(self, row: Row) -> None:
        """Forget a row's mask; the others keep their order, in which neighbours see much the same."""
        index, last = self.rows.index(row), len(self.rows) - 1
        self._masks[index:last] = self._masks[index + 1 : last + 1]
        del self.rows[index], self._extents[index]
        self._view = None

    def refill(self, row: Row) -> None:
        """A row's own node got new slots."""
        self._fill(self.rows.index(row))

    def view(self) -> View:
        """What the rows see of the arena now."""
        if self._view is None:
            extent = max(self._extents)
            mask = self._masks[: len(self.rows), :extent]
            self._view = View(mask, *cut(mask, self._num_channels))
        return self._view

    def _fill(self, index: int) -> None:
        rows, width = self._masks.shape
        if index >= rows or self.arena.end > width:
            grown = np.full(
                (max(rows, 2 * index, 8), max(width, self.arena.end + self.arena.end // 4)), BLOCKED, np.float32
            )
            grown[:rows, :width] = self._masks
            self._masks = grown
        self._view = None
        mask = self._masks[index]
        mask[:] = BLOCKED
        extent = 0
        for node in self.rows[index].node.path():
            for start, length in node.pieces:
                mask[start : start + length] = 0.0
                extent = start + length
        self._extents[index] = extent
