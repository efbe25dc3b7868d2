"""The rows being written, and what sampling needs to know of them, as arrays.

Live lanes are always the first ones: a lane that ends is filled by the last. Where the KV of the rows' newest tokens
lies is said by those who derive from this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from search.engines.local.rows import Row

_WRITTEN = 64
"""Tokens for which a new row has room at first."""


class Lanes(ABC):
    """Rows in flight and their sampling state.

    A row's suffix is what was computed since it joined; it becomes part of its node when it is committed.

    Attributes:
        rows: live rows; `rows[i]` is in lane i.
        last: (num_lanes,) the token to be fed next.
        count: (num_lanes,) tokens of the step written so far.
        position: (num_lanes,) position of the token to be fed next.
        limit: (num_lanes,) tokens at which the step ends.
        keeps: (num_lanes,) whether the tokens' log-probabilities are kept.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.rows: list[Row] = []
        self.last = np.zeros(0, np.int64)
        self.count = np.zeros(0, np.int64)
        self.position = np.zeros(0, np.int64)
        self.limit = np.zeros(0, np.int64)
        self.seeds = np.zeros(0, np.uint64)
        self.temperature = np.zeros(0, np.float64)
        self.top_p = np.zeros(0, np.float64)
        self.table = np.zeros(0, np.int64)
        self.written = np.zeros((0, _WRITTEN), np.int64)
        self.keeps = np.zeros(0, np.bool_)
        self.logprobs = np.zeros((0, _WRITTEN), np.float64)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _names(self) -> list[str]:
        """Its arrays, which all have one entry a lane, those of who derives from this among them."""
        return [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]

    @abstractmethod
    def num_suffix(self, lane: int) -> int:
        """KV slots of a lane's suffix."""

    @abstractmethod
    def make_room(self) -> None:
        """Before a forward: see to it that every row has room for its token."""

    @abstractmethod
    def commit(self, row: Row) -> None:
        """Make a row's suffix part of its node; the row goes on with none, or leaves."""

    def join(self, row: Row) -> int:
        """Put a row in a lane; the last of its tokens is fed next."""
        ids = row.ids
        lane = len(self.rows)
        if lane == len(self.last):
            self._grow(min(self.max_rows, max(8, 2 * lane)))
        self.rows.append(row)
        row.lane = lane
        self.last[lane], self.count[lane] = ids[-1], len(ids)
        self.position[lane] = row.node.start + len(ids) - 1
        self.limit[lane], self.seeds[lane] = row.limit, row.seed
        self.temperature[lane], self.top_p[lane] = row.sampling.temperature, row.sampling.top_p
        self.table[lane], self.keeps[lane] = row.table, row.sampling.logprobs
        self._fit_written(len(ids) + _WRITTEN)
        self.written[lane, : len(ids)] = ids
        self.logprobs[lane, : len(row.logprobs)] = row.logprobs
        return lane

    def leave(self, row: Row) -> int:
        """Take a row out; a suffix that was not committed is gone. Returns the lane that its place was filled from."""
        lane, last = row.lane, len(self.rows) - 1
        if lane != last:
            moved = self.rows[last]
            for name in self._names:
                array = getattr(self, name)
                array[lane] = array[last]
            self.rows[lane], moved.lane = moved, lane
        self.rows.pop()
        row.lane = -1
        return last

    def append(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float64] | None) -> None:
        """Take the newly sampled token of every live row; the tokens fed before now have KV."""
        live = len(self.rows)
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

    def _grow(self, num_lanes: int) -> None:
        live = len(self.rows)
        for name in self._names:
            array = getattr(self, name)
            wider = np.zeros((num_lanes, *array.shape[1:]), array.dtype)
            wider[:live] = array[:live]
            setattr(self, name, wider)

    def _fit_written(self, num_tokens: int) -> None:
        have = self.written.shape[1]
        if num_tokens > have:
            more = ((0, 0), (0, max(num_tokens, 2 * have) - have))
            self.written, self.logprobs = np.pad(self.written, more), np.pad(self.logprobs, more)
