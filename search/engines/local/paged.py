"""One pool of KV slots for all trees of an engine, token by token: nothing is ever copied or compacted.

A node and a row just list their slots; what writes new KV scatters it, and what reads it goes by the turn's plan. So a
turn costs as many launches whatever its number of trees and rows, which is what counts on a GPU. On a CPU contiguous
arenas are faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.engines.local.arena import KVShape, Node
from search.engines.local.batch import Batch
from search.engines.local.cache import TreeCache
from search.engines.local.lanes import Lanes
from search.engines.local.layout import Piece
from search.engines.local.paged_attention import Jobs
from search.engines.local.paged_plan import SPLIT_KEYS, Ints, Reader, job_width, make_plan
from search.engines.local.rows import Row

_LEAST_SLOTS = 1024
_LEAST_DEVICE_BYTES = 2**29
"""What a pool takes at first where growing costs the recorded turns; see `graphs`."""
_ALIGNED = 4
"""Arrays that go to the device in one block begin at multiples of this many numbers, as kernels like them to."""


class Sizes(NamedTuple):
    """Sizes of a turn that shape what is launched.

    Attributes:
        num_tokens: flat tokens, those without a use included.
        num_jobs: jobs of its plan.
        most_parts: most partial results of a query.
    """

    num_tokens: int
    num_jobs: int
    most_parts: int


class SlotPool:
    """Slots for keys and values; grows by half when it is full.

    Attributes:
        kv: by layer, (2, capacity + 1, num_kv_heads, head_dim): keys, then values. The last slot is nobody's: what
            pads a turn is written there.
        generation: how often it has grown; `kv` lies elsewhere since.
    """

    def __init__(self, shape: KVShape, max_slots: int | None) -> None:
        """A pool without memory yet; past `max_slots` it grows by no more than it must."""
        size = (2, 1, shape.num_kv_heads, shape.head_dim)
        self.kv = [torch.zeros(size, device=shape.device, dtype=shape.dtype) for _ in range(shape.num_layers)]
        self.generation = 0
        slot_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * shape.dtype.itemsize
        self._least_slots = (
            _LEAST_SLOTS if shape.device.type == "cpu" else max(_LEAST_SLOTS, _LEAST_DEVICE_BYTES // slot_bytes)
        )
        self._max_slots = max_slots
        self._free = np.zeros(0, np.int32)
        self._num_free = 0

    @property
    def capacity(self) -> int:
        """Slots there are."""
        return len(self._free)

    @property
    def num_held(self) -> int:
        """Slots taken."""
        return len(self._free) - self._num_free

    def take(self, num_slots: int) -> Ints:
        """Slots that nobody has."""
        if num_slots > self._num_free:
            self._grow(self.num_held + num_slots)
        self._num_free -= num_slots
        return self._free[self._num_free : self._num_free + num_slots].copy()

    def give(self, slots: Ints) -> None:
        """Take slots back."""
        self._free[self._num_free : self._num_free + len(slots)] = slots
        self._num_free += len(slots)

    def _grow(self, least: int) -> None:
        before = self.capacity
        wanted = max(before + before // 2, self._least_slots)
        after = max(least, wanted if self._max_slots is None else min(wanted, self._max_slots))
        for layer, old in enumerate(self.kv):
            # Layer by layer, so that old and new stand side by side for one layer only. Zeros: what is masked in
            # the plain form has weight 0, and 0 times a stray NaN would be NaN.
            new = torch.zeros((2, after + 1, *old.shape[2:]), device=old.device, dtype=old.dtype)
            new[:, :before] = old[:, :before]
            self.kv[layer] = new
        self.generation += 1
        free = np.zeros(after, np.int32)
        fresh = np.arange(after - 1, before - 1, -1, dtype=np.int32)
        free[: len(fresh)] = fresh
        free[len(fresh) : len(fresh) + self._num_free] = self._free[: self._num_free]
        self._free, self._num_free = free, self._num_free + len(fresh)


class PagedTree(TreeCache):
    """A tree whose nodes' slots lie anywhere in the pool."""

    def __init__(self, name: str, order: int, pool: SlotPool) -> None:
        super().__init__(name, order)
        self._pool = pool

    def take(self, node: Node, num_tokens: int) -> Ints:
        """Slots for a node's next tokens; their KV is about to be written."""
        slots = self._pool.take(num_tokens)
        self.hold(node, slots)
        self.num_held += num_tokens
        return slots

    @staticmethod
    def hold(node: Node, slots: Ints) -> None:
        """Make slots a node's own, after those it has."""
        node.slots = np.concatenate([node.slots, slots])
        node.num_cached += len(slots)

    def _free(self, node: Node) -> None:
        self._pool.give(node.slots)
        node.slots = node.slots[:0]


class PagedLanes(Lanes):
    """Rows that list the slots of what they wrote."""

    def __init__(self, pool: SlotPool, max_rows: int) -> None:
        super().__init__(max_rows)
        self._pool = pool
        self._slots = np.zeros((0, 64), np.int32)
        self._held = np.zeros(0, np.int64)

    def num_suffix(self, lane: int) -> int:
        """Slots of what a row wrote since it joined."""
        return int(self._held[lane])

    def suffix(self, lane: int, more: int = 0) -> Ints:
        """These slots; `more`: and those after them that were opened."""
        return self._slots[lane, : int(self._held[lane]) + more]

    def join(self, row: Row) -> int:
        """Put a row in a lane; the last of its tokens is fed next."""
        lane = super().join(row)
        self._held[lane] = 0
        return lane

    def leave(self, row: Row) -> int:
        """Take a row out; slots that were not committed are given back."""
        self._pool.give(self.suffix(row.lane))
        return super().leave(row)

    def make_room(self) -> None:
        """There is always room for the next tokens."""

    def open(self) -> Ints:
        """A slot for the next token of every row, in their order."""
        live = len(self.rows)
        slots = self._pool.take(live)
        if live:
            longest, have = int(self._held[:live].max()), self._slots.shape[1]
            if longest >= have:
                self._slots = np.pad(self._slots, ((0, 0), (0, have)))
            self._slots[np.arange(live), self._held[:live]] = slots
        return slots

    def append(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float64] | None) -> None:
        """Take the newly sampled token of every live row; the tokens fed before now have KV."""
        self._held[: len(self.rows)] += 1
        super().append(tokens, logprobs)

    def commit(self, row: Row) -> None:
        """The slots become the node's; the tree held them all along."""
        PagedTree.hold(row.node, self.suffix(row.lane))
        row.node.num_ever = max(row.node.num_ever, row.node.num_cached)
        self._held[row.lane] = 0


@dataclass(slots=True)
class PagedBatch(Batch):
    """One forward over a pool.

    Attributes:
        slots: (num_tokens,) where each token's KV goes.
        pool: the pool.
        jobs: what attends to what.
        num_reads: reads that are somebody's; the rest of `reads` pads it.
        block: on the device, all numbers that say this.
        shapes: of its parts; the last is the jobs' table.
        sizes: what it was padded to; None: to nothing.
    """

    slots: Tensor
    pool: SlotPool
    jobs: Jobs
    num_reads: int
    block: Tensor
    shapes: list[tuple[int, ...]]
    sizes: Sizes | None

    def over(self, block: Tensor) -> PagedBatch:
        """The same over another block, whose first numbers are the same; its table goes on to that block's end."""
        fixed = sum(_aligned(shape) for shape in self.shapes[:-1])
        shapes = [*self.shapes[:-1], (len(block) - fixed,)]
        return replace(self, **_on_device(block, shapes, self.jobs.most_keys))


class PagedStore:
    """A pool for all trees; implements `store.Store`.

    Attributes:
        round_sizes: what a turn of some sizes is padded to; None: to nothing.
    """

    def __init__(self, shape: KVShape, max_rows: int, max_kv_tokens: int | None, num_heads: int) -> None:
        """Lay out for a model of this shape and so many query heads; see `SlotPool` for the rest."""
        self._pool = SlotPool(shape, max_kv_tokens)
        self._device = shape.device
        self._width = job_width(num_heads, shape.num_kv_heads)
        self.lanes = PagedLanes(self._pool, max_rows)
        self.round_sizes: Callable[[Sizes], Sizes | None] = lambda sizes: None

    def tree(self, name: str, order: int) -> PagedTree:
        """A new tree."""
        return PagedTree(name, order, self._pool)

    def lay_out(self, trees: Collection[TreeCache], pieces: list[Piece]) -> tuple[PagedBatch, list[Piece]]:
        """As in `store.Store`."""
        lanes, live = self.lanes, len(self.lanes)
        slots = [lanes.open()]
        readers = [
            Reader(lane, 1, _path(row.node), own := lanes.suffix(lane, 1), len(own))
            for lane, row in enumerate(lanes.rows)
        ]
        ids, positions = [lanes.last[:live]], [lanes.position[:live]]
        reads = list(range(live))
        at = live
        for piece in pieces:
            reader, new = _read_piece(piece, at)
            readers.append(reader)
            slots.append(new)
            tokens = [token for node, first, num in piece.spans for token in node.ids[first : first + num]]
            ids.append(np.array(tokens, np.int64))
            node, first, _ = piece.spans[0]
            positions.append(np.arange(node.start + first, node.start + first + len(tokens)))
            reads.extend(at + end for _, end in piece.ends())
            at += len(tokens)
        plan = make_plan(readers, self._width)
        arrays = [_joined(ids), _joined(positions), _joined(slots), np.array(reads, np.int32), *plan[1:], plan.slots]
        sizes = self.round_sizes(Sizes(at, len(plan.first), plan.parts.shape[1]))
        most_keys = int(plan.lengths.max())
        if sizes is not None:
            arrays, most_keys = _padded(arrays, sizes, self._pool.capacity), SPLIT_KEYS
        shapes = [array.shape for array in arrays]
        block = torch.from_numpy(_block(arrays)).to(self._device)
        numbers = _on_device(block, shapes, most_keys)
        return PagedBatch(num_lanes=live, num_reads=len(reads), pool=self._pool, sizes=sizes, **numbers), pieces


def _on_device(block: Tensor, shapes: list[tuple[int, ...]], most_keys: int) -> dict[str, Any]:
    """The attributes of a batch that its numbers on the device say."""
    ids, positions, slots, reads, first, lengths, queries, limits, parts, table = _parted(block, shapes)
    jobs = Jobs(table, first, lengths, queries, limits, parts, most_keys)
    wide = {"ids": ids.long(), "positions": positions.long(), "slots": slots.long(), "reads": reads.long()}
    return {"block": block, "shapes": shapes, "jobs": jobs, **wide}


def _padded(arrays: Sequence[Ints], sizes: Sizes, spill: int) -> list[Ints]:
    """A turn's numbers, as `_on_device` has them, and tokens that write to slot `spill`, and jobs of no keys."""
    num_tokens, num_jobs, most_parts = sizes
    fillers = [0, 0, spill, 0, 0, 0, -1, 0, -1]
    rows = [num_tokens] * 4 + [num_jobs] * 4 + [num_tokens]
    found = []
    for array, filler, number in zip(arrays, fillers, rows, strict=False):
        shape = (number, most_parts if array is arrays[8] else array.shape[1]) if array.ndim == 2 else (number,)
        padded = np.full(shape, filler, np.int32)
        padded[tuple(slice(size) for size in array.shape)] = array
        found.append(padded)
    return [*found, arrays[-1]]


def _joined(arrays: Sequence[NDArray[np.integer[Any]]]) -> Ints:
    """Arrays one after the other."""
    return np.concatenate(arrays).astype(np.int32)


def _path(node: Node) -> list[Ints]:
    """Slots of a path's nodes, root first, without those that have none."""
    return [one.slots for one in node.path() if len(one.slots)]


def _read_piece(piece: Piece, first: int) -> tuple[Reader, Ints]:
    """Who reads a piece of a prefix, from query `first` on; and its tokens' slots, taken if they are new."""
    tree = piece.tree
    assert isinstance(tree, PagedTree)
    head = piece.spans[0][0]
    above = [node.slots for node in piece.path[: piece.path.index(head)] if len(node.slots)]
    if piece.again:
        # Its own last slot is written once more; all that it sees is there already.
        return Reader(first, 1, above, head.slots, len(head.slots)), head.slots[-1:]
    before = head.slots
    if len(before):
        above.append(before)
    new = np.concatenate([tree.take(node, num) for node, _, num in piece.spans])
    return Reader(first, len(new), above, new, 1), new


def _aligned(shape: tuple[int, ...]) -> int:
    """Numbers that an array of this shape takes in a block."""
    return -(-math.prod(shape) // _ALIGNED) * _ALIGNED


def _block(arrays: Sequence[Ints]) -> Ints:
    """Arrays one after the other, so that one copy takes them all."""
    block = np.zeros(sum(_aligned(array.shape) for array in arrays), np.int32)
    at = 0
    for array in arrays:
        block[at : at + array.size] = array.ravel()
        at += _aligned(array.shape)
    return block


def _parted(block: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Views of a block's arrays."""
    found, at = [], 0
    for shape in shapes:
        found.append(block[at : at + math.prod(shape)].view(shape))
        at += _aligned(shape)
    return found
