"""A tree whose KV lies in an arena of its own, and the masks of the rows that run over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.engines.local.arena import BLOCKED, Arena, KVShape, Node
from search.engines.local.bands import Band, cut
from search.engines.local.cache import TreeCache

if TYPE_CHECKING:
    from search.engines.local.rows import Row


class ArenaTree(TreeCache):
    """A tree over its own arena; `rows` are in the order of their masks.

    Attributes:
        arena: its KV.
    """

    def __init__(self, name: str, order: int, shape: KVShape) -> None:
        super().__init__(name, order)
        self.arena = Arena(shape)
        self._num_channels = shape.num_kv_heads * shape.head_dim
        self._masks = np.zeros((0, 0), np.float32)
        self._extents: list[int] = []
        self._view: tuple[NDArray[np.float32], int, list[Band]] | None = None

    # Slots

    def _free(self, node: Node) -> None:
        self.arena.free(node.pieces)
        node.pieces = []

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
        node.extend(start, num_tokens)
        node.num_cached += num_tokens
        self.num_held += num_tokens
        return start

    @staticmethod
    def slots(path: Sequence[Node]) -> NDArray[np.int64]:
        """Slots of a path's cached tokens, root first."""
        pieces = [np.arange(start, start + length) for node in path for start, length in node.pieces]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)

    # Rows

    def add_row(self, row: Row) -> None:
        """Let a row see its path."""
        super().add_row(row)
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

    def view(self) -> tuple[NDArray[np.float32], int, list[Band]]:
        """What the rows see of the arena now: mask, trunk and bands, as `batch.DecodePart` has them."""
        if self._view is None:
            extent = max(self._extents)
            mask = self._masks[: len(self.rows), :extent]
            self._view = (mask, *cut(mask, self._num_channels))
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
