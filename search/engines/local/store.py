"""Where the KV of an engine's trees and rows lies, and how a turn's batch finds it: the seam of the two forms."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from search.engines.local.arena import KVShape
from search.engines.local.arena_tree import ArenaTree
from search.engines.local.batch import ArenaBatch, Batch
from search.engines.local.cache import TreeCache
from search.engines.local.columns import ColumnLanes
from search.engines.local.lanes import Lanes
from search.engines.local.layout import Piece, lay_out_turn


class Store(Protocol):
    """All KV of one engine."""

    @property
    def lanes(self) -> Lanes:
        """Its rows."""

    def tree(self, name: str, order: int) -> TreeCache:
        """A new tree, without nodes."""

    def lay_out(self, trees: Collection[TreeCache], pieces: list[Piece]) -> tuple[Batch, list[Piece]]:
        """Lay out one forward: a token of every live row, and pieces of prefixes, for which slots are taken.

        Args:
            trees: all trees, those of the rows among them.
            pieces: prefix tokens to be computed; no node is in two of them.

        Returns:
            What is computed, and the pieces in the order of its logits.
        """


class ArenaStore:
    """An arena a tree, and columns for what the rows write: contiguous memory, and a call of attention a tree."""

    def __init__(self, shape: KVShape, max_rows: int) -> None:
        """Lay out for a model of this shape, and this many rows at most."""
        self._shape = shape
        self.lanes = ColumnLanes(shape, max_rows)

    def tree(self, name: str, order: int) -> ArenaTree:
        """A new tree with an empty arena."""
        return ArenaTree(name, order, self._shape)

    def lay_out(self, trees: Collection[TreeCache], pieces: list[Piece]) -> tuple[ArenaBatch, list[Piece]]:
        """As in `Store`."""
        mine = [tree for tree in trees if isinstance(tree, ArenaTree)]
        return lay_out_turn(self.lanes, mine, pieces, self._shape)
