"""Lanes whose rows keep the KV of their newest tokens in columns of one block, apart from the trees' arenas.

All live rows advance by one token each turn, so they share one column to write to; a row that joined later just starts
at a later column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from search.engines.local.arena import BLOCKED, KVShape
from search.engines.local.arena_tree import ArenaTree
from search.engines.local.lanes import Lanes

if TYPE_CHECKING:
    from search.engines.local.rows import Row

NUM_COLUMNS = 64
"""Columns reserved a lane; older tokens of a long step move to the arena."""


class ColumnLanes(Lanes):
    """Rows of trees with arenas.

    Attributes:
        kv: (2, num_layers, num_lanes, num_kv_heads, NUM_COLUMNS, head_dim).
        column: the column that the next token of every row goes to.
        start: (num_lanes,) first column of a row.
        mask: (num_lanes, NUM_COLUMNS) 0 where a row has a token, `BLOCKED` elsewhere.
    """

    def __init__(self, shape: KVShape, max_rows: int) -> None:
        super().__init__(max_rows)
        self._shape = shape
        self.column = 0
        self.kv = self._new_kv(0)
        self.start = np.zeros(0, np.int64)
        self.mask = np.zeros((0, NUM_COLUMNS), np.float32)

    def num_suffix(self, lane: int) -> int:
        """KV slots that a lane fills."""
        return self.column - int(self.start[lane])

    def join(self, row: Row) -> int:
        """Put a row in a lane; the last of its tokens is fed next."""
        lane = super().join(row)
        self.start[lane] = self.column
        self.mask[lane] = BLOCKED
        return lane

    def leave(self, row: Row) -> int:
        """Take a row out; its KV is gone. Returns the lane that its place was filled from."""
        lane, last = row.lane, len(self.rows) - 1
        first = int(self.start[last])
        if lane != last and first < self.column:
            self.kv[:, :, lane, :, first : self.column] = self.kv[:, :, last, :, first : self.column]
        super().leave(row)
        if not self.rows:
            self.column = 0
        return last

    def open_column(self) -> None:
        """Let every live row see the column that its next token goes to."""
        self.mask[: len(self.rows), self.column] = 0.0

    def append(self, tokens: np.ndarray, logprobs: np.ndarray | None) -> None:
        """Take the newly sampled token of every live row; the tokens fed before now have KV."""
        self.column += 1
        super().append(tokens, logprobs)

    def make_room(self) -> None:
        """See to it that there is a column for the next tokens; long suffixes go to their arenas."""
        if self.column < NUM_COLUMNS:
            return
        for row in self.rows:
            if self.start[row.lane] < NUM_COLUMNS // 2:
                self.commit(row)
                # The arena holds its suffix now.
                self.start[row.lane] = self.column
                self.mask[row.lane] = BLOCKED
                self._tree(row).refill(row)
        if self.rows:
            self._shift()

    def commit(self, row: Row) -> None:
        """Copy a row's suffix to its node in the arena; its lane still has to be left or restarted."""
        tree, node = self._tree(row), row.node
        num = self.num_suffix(row.lane)
        if num:
            tree.num_held -= num
            start = tree.take(node, num)
            suffix = self.kv[:, :, row.lane, :, int(self.start[row.lane]) : self.column]
            tree.arena.store(start, suffix)
            node.num_ever = max(node.num_ever, node.num_cached)

    @staticmethod
    def _tree(row: Row) -> ArenaTree:
        tree = row.request.tree
        assert isinstance(tree, ArenaTree)
        return tree

    def _shift(self) -> None:
        """Move all columns to the left, so that there is room for a new one."""
        live = len(self.rows)
        by = int(self.start[:live].min())
        assert by > 0
        kept = self.column - by
        self.kv[:, :, :live, :, :kept] = self.kv[:, :, :live, :, by : self.column].clone()
        self.mask[:live, :kept] = self.mask[:live, by : self.column].copy()
        self.mask[:live, kept:] = BLOCKED
        self.start[:live] -= by
        self.column = kept

    def _new_kv(self, num_lanes: int) -> Tensor:
        shape = self._shape
        return torch.zeros(
            (2, shape.num_layers, num_lanes, shape.num_kv_heads, NUM_COLUMNS, shape.head_dim),
            dtype=shape.dtype,
            device=shape.device,
        )

    def _grow(self, num_lanes: int) -> None:
        live = len(self.rows)
        kv = self._new_kv(num_lanes)
        kv[:, :, :live] = self.kv[:, :, :live]
        self.kv = kv
        super()._grow(num_lanes)
