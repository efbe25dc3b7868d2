"""The rows being written: the KV of each one's newest tokens, and what sampling needs to know, as arrays.

All live rows advance by one token each turn, so they share one column to write to; a row that joined later just starts
at a later column. Live lanes are always the first ones: a lane that ends is filled by the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.engines.local.arena import BLOCKED, KVShape

if TYPE_CHECKING:
    from search.engines.local.rows import Row

NUM_COLUMNS = 64
"""Columns reserved a lane; older tokens of a long step move to the arena."""


class Lanes:
    """Rows in flight, their suffixes' KV and their sampling state.

    Attributes:
        rows: live rows; `rows[i]` is in lane i.
        kv: (2, num_layers, num_lanes, num_kv_heads, NUM_COLUMNS, head_dim).
        column: the column that the next token of every row goes to.
        start: (num_lanes,) first column of a row.
        mask: (num_lanes, NUM_COLUMNS) 0 where a row has a token, `BLOCKED` elsewhere.
        last: (num_lanes,) the token to be fed next.
        count: (num_lanes,) tokens of the step written so far.
        position: (num_lanes,) position of the token to be fed next.
        limit: (num_lanes,) tokens at which the step ends.
        keeps: (num_lanes,) whether the tokens' log-probabilities are kept.
    """

    def __init__(self, shape: KVShape, dtype: torch.dtype, device: torch.device, max_rows: int) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.max_rows = max_rows
        self.rows: list[Row] = []
        self.column = 0
        self.kv = self._new_kv(0)
        self.start = np.zeros(0, np.int64)
        self.mask = np.zeros((0, NUM_COLUMNS), np.float32)
        self.last = np.zeros(0, np.int64)
        self.count = np.zeros(0, np.int64)
        self.position = np.zeros(0, np.int64)
        self.limit = np.zeros(0, np.int64)
        self.seeds = np.zeros(0, np.uint64)
        self.temperature = np.zeros(0, np.float64)
        self.top_p = np.zeros(0, np.float64)
        self.table = np.zeros(0, np.int64)
        self.written = np.zeros((0, NUM_COLUMNS), np.int64)
        self.keeps = np.zeros(0, np.bool_)
        self.logprobs = np.zeros((0, NUM_COLUMNS), np.float64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_reserved(self) -> int:
        """KV slots reserved."""
        return self.kv.shape[2] * NUM_COLUMNS

    def num_suffix(self, lane: int) -> int:
        """KV slots that a lane fills."""
        return self.column - int(self.start[lane])

    def suffix(self, lane: int) -> Tensor:
        """A lane's KV, (2, num_layers, num_kv_heads, num_suffix, head_dim); a view."""
        return self.kv[:, :, lane, :, int(self.start[lane]) : self.column]

    def join(self, row: Row) -> int:
        """Put a row in a lane; the last of its tokens is fed next."""
        ids = row.ids
        lane = len(self.rows)
        if lane == len(self.start):
            self._grow(min(self.max_rows, max(8, 2 * lane)))
        self.rows.append(row)
        row.lane = lane
        self.start[lane] = self.column
        self.mask[lane] = BLOCKED
        self.last[lane], self.count[lane] = ids[-1], len(ids)
        self.position[lane] = row.node.start + len(ids) - 1
        self.limit[lane], self.seeds[lane] = row.limit, row.seed
        self.temperature[lane], self.top_p[lane] = row.sampling.temperature, row.sampling.top_p
        self.table[lane], self.keeps[lane] = row.table, row.sampling.logprobs
        self._fit_written(len(ids) + NUM_COLUMNS)
        self.written[lane, : len(ids)] = ids
        self.logprobs[lane, : len(row.logprobs)] = row.logprobs
        return lane

    def leave(self, row: Row) -> int:
        """Take a row out; its KV is gone. Returns the lane that its place was filled from."""
        lane, last = row.lane, len(self.rows) - 1
        if lane != last:
            moved = self.rows[last]
            first = int(self.start[last])
            if first < self.column:
                self.kv[:, :, lane, :, first : self.column] = self.kv[:, :, last, :, first : self.column]
            for array in self._arrays():
                array[lane] = array[last]
            self.rows[lane], moved.lane = moved, lane
        self.rows.pop()
        row.lane = -1
        if not self.rows:
            self.column = 0
        return last

    def open_column(self) -> None:
        """Let every live row see the column that its next token goes to."""
        self.mask[: len(self.rows), self.column] = 0.0

    def append(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float64] | None) -> None:
        """Take the newly sampled token of every live row; the tokens fed before now have KV."""
        live = len(self.rows)
        self.column += 1
        longest = int(self.count[:live].max())
        if longest >= self.written.shape[1]:
            self._fit_written(longest + 1)
        self.written[np.arange(live), self.count[:live]] = tokens
        if logprobs is not None:
            self.logprobs[np.arange(live), self.count[:live]] = logprobs
        self.last[:live] = tokens
        self.count[:live] += 1
        self.position[:live] += 1

    def ids(self, lane: int) -> tuple[int, ...]:
        """The tokens of a lane's step."""
        return tuple(self.written[lane, : int(self.count[lane])].tolist())

    def take_tokens(self, row: Row) -> None:
        """Write to a row what its step has so far."""
        row.ids = self.ids(row.lane)
        if row.sampling.logprobs:
            row.logprobs = tuple(self.logprobs[row.lane, : len(row.ids)].tolist())

    def long_rows(self) -> list[Row]:
        """Rows whose suffix must go to the arena before the columns can shift; empty while there is room."""
        if self.column < NUM_COLUMNS:
            return []
        return [row for row in self.rows if self.start[row.lane] < NUM_COLUMNS // 2]

    def restart(self, row: Row) -> None:
        """Forget a row's suffix, which the arena now holds."""
        self.start[row.lane] = self.column
        self.mask[row.lane] = BLOCKED

    def shift(self) -> None:
        """Move all columns to the left, so that there is room for a new one."""
        if self.column < NUM_COLUMNS:
            return
        live = len(self.rows)
        by = int(self.start[:live].min())
        assert by > 0
        kept = self.column - by
        self.kv[:, :, :live, :, :kept] = self.kv[:, :, :live, :, by : self.column].clone()
        self.mask[:live, :kept] = self.mask[:live, by : self.column].copy()
        self.mask[:live, kept:] = BLOCKED
        self.start[:live] -= by
        self.column = kept

    def _arrays(self) -> tuple[NDArray[np.generic], ...]:
        return (
            self.start,
            self.mask,
            self.last,
            self.count,
            self.position,
            self.limit,
            self.seeds,
            self.temperature,
            self.top_p,
            self.table,
            self.written,
            self.keeps,
            self.logprobs,
        )

    def _new_kv(self, num_lanes: int) -> Tensor:
        shape = self._shape
        return torch.zeros(
            (2, shape.num_layers, num_lanes, shape.num_kv_heads, NUM_COLUMNS, shape.head_dim),
            dtype=self._dtype,
            device=self._device,
        )

    def _grow(self, num_lanes: int) -> None:
        live = len(self.rows)
        kv = self._new_kv(num_lanes)
        kv[:, :, :live] = self.kv[:, :, :live]
        self.kv = kv

        def wider(array: NDArray[np.generic]) -> NDArray[np.generic]:
            new = np.zeros((num_lanes, *array.shape[1:]), array.dtype)
            new[:live] = array[:live]
            return new

        names = "start mask last count position limit seeds temperature top_p table written keeps logprobs"
        for name in names.split():
            setattr(self, name, wider(getattr(self, name)))

    def _fit_written(self, num_tokens: int) -> None:
        have = self.written.shape[1]
        if num_tokens > have:
            more = ((0, 0), (0, max(num_tokens, 2 * have) - have))
            self.written, self.logprobs = np.pad(self.written, more), np.pad(self.logprobs, more)
