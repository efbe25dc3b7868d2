"""What one forward computes: the rows' next tokens, then pieces of prefixes that the cache still misses.

A batch is flat: (1, num_tokens). First come the live lanes in their order, then the prefill tokens, tree by tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.engines.local.arena import BLOCKED, Arena, KVShape
from search.engines.local.bands import Band

_MAX_BLOCK_KEYS = 32_768
"""Most padded keys of a block, unless one group has more."""


@dataclass(slots=True)
class DecodePart:
    """The live rows of one tree over that tree's arena.

    Attributes:
        arena: where the rows' prefixes lie.
        mask: (num_rows, extent) additive; slots from `extent` on are seen by no row.
        trunk: slots [0, trunk) are seen by every row, and left out of `bands`; may be 0.
        bands: (first row, last row, first slot, last slot), ends excluded: what is seen beyond the trunk.
        lanes: the rows' lanes.
    """

    arena: Arena
    mask: Tensor
    trunk: int
    bands: Sequence[Band]
    lanes: list[int]
    _calls: list[tuple[Band, Tensor]] | None = None

    def calls(self, group: int) -> list[tuple[Band, Tensor]]:
        """The calls of attention in any layer, one a band, then the trunk's.

        Args:
            group: query heads that share keys.

        Returns:
            Each with its mask, (group * num_rows, high - low).
        """
        if self._calls is None:
            ranges = list(self.bands)
            if self.trunk:
                # Every row sees the whole trunk, so its columns of the mask are zeros.
                ranges.append(Band(0, len(self.lanes), 0, self.trunk))
            self._calls = [
                (band, self.mask[band.first : band.last, band.low : band.high].repeat(group, 1)) for band in ranges
            ]
        return self._calls


@dataclass(slots=True)
class Chunk:
    """Consecutive new tokens of one path.

    Attributes:
        ids: the tokens.
        position: position of the first.
        prefix: (num_prefix,) slots of the path before them, ascending.
        start: first of their own consecutive slots.
        group: chunks of one group have the same prefix.
        reads: places in `ids` whose logits are wanted: where segments end.
    """

    ids: tuple[int, ...]
    position: int
    prefix: NDArray[np.int64]
    start: int
    group: int
    reads: tuple[int, ...]


@dataclass(slots=True)
class Block:
    """Groups of chunks of one tree that attend together, padded to one shape.

    Attributes:
        first: first flat token.
        num_tokens: flat tokens in it.
        queries: (num_groups * num_queries,) flat tokens relative to `first`, padded by 0; None: no padding.
        unpad: (num_tokens,) where each token's row is in the padded form; None: no padding.
        slots: (num_groups, num_keys) arena slots, padded by 0.
        mask: (num_groups, 1, num_queries, num_keys) additive.
    """

    first: int
    num_tokens: int
    queries: Tensor | None
    unpad: Tensor | None
    slots: Tensor
    mask: Tensor


@dataclass(slots=True)
class PrefillPart:
    """The new tokens of one tree: flat tokens [first, last) go to the arena's slots from `start` on."""

    arena: Arena
    chunks: list[Chunk]
    first: int = 0
    last: int = 0
    start: int = 0
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """One forward, wherever the KV lies.

    Attributes:
        ids: (num_tokens,) flat.
        positions: (num_tokens,).
        reads: (num_reads,) flat tokens whose logits are wanted: all lanes, then chunks in order.
        num_lanes: live lanes, the first tokens.
    """

    ids: Tensor
    positions: Tensor
    reads: Tensor
    num_lanes: int


@dataclass(slots=True)
class ArenaBatch(Batch):
    """One forward over arenas and columns.

    Attributes:
        lanes_kv: as `ColumnLanes.kv`.
        column: the column the lanes write to.
        first_column: the first column that any lane fills.
        lanes_mask: (num_lanes, 1, 1, column + 1 - first_column) additive.
        decode: the lanes by tree.
        order: (num_lanes,) lanes in the order of `decode`, and its inverse; None where that is the lanes' order.
        prefill: the new tokens by tree.
    """

    lanes_kv: Tensor
    column: int
    first_column: int
    lanes_mask: Tensor
    decode: list[DecodePart]
    order: tuple[Tensor, Tensor] | None
    prefill: list[PrefillPart]


def lay_out(part: PrefillPart, first: int, shape: KVShape) -> None:
    """Build the blocks of a tree's chunks; fills `part`.

    The chunks' slots must be consecutive in the order in which `part.chunks` has them.

    Args:
        part: a tree's chunks, those of a group next to each other.
        first: the flat token at which they begin.
        shape: of the model.
    """
    part.first, part.start = first, part.chunks[0].start
    groups: list[list[Chunk]] = []
    for chunk in part.chunks:
        if groups and groups[-1][0].group == chunk.group:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    sizes = [(sum(len(c.ids) for c in group), len(group[0].prefix)) for group in groups]
    cursor = first
    begin = 0
    while begin < len(groups):
        end, num_queries, num_keys = begin, 0, 0
        while end < len(groups):
            queries = max(num_queries, sizes[end][0])
            keys = max(num_keys, sum(sizes[end]))
            many = end - begin + 1
            # Padding must not cost more than it saves: groups of very different sizes go apart.
            uneven = queries * keys * many > 3 * sum(q * (q + p) for q, p in sizes[begin : end + 1])
            if end > begin and (uneven or keys * many > _MAX_BLOCK_KEYS):
                break
            end, num_queries, num_keys = end + 1, queries, keys
        block = _block(groups[begin:end], sizes[begin:end], cursor, num_queries, num_keys, shape)
        part.blocks.append(block)
        cursor += block.num_tokens
        begin = end
    part.last = cursor


def _block(
    groups: list[list[Chunk]],
    sizes: list[tuple[int, int]],
    first: int,
    num_queries: int,
    num_keys: int,
    shape: KVShape,
) -> Block:
    slots = np.zeros((len(groups), num_keys), np.int64)
    mask = np.full((len(groups), 1, num_queries, num_keys), BLOCKED, np.float32)
    queries = np.zeros((len(groups), num_queries), np.int64)
    unpad: list[NDArray[np.int64]] = []
    token = 0
    for g, (group, (num_new, num_prefix)) in enumerate(zip(groups, sizes, strict=True)):
        slots[g, :num_prefix] = group[0].prefix
        mask[g, 0, :num_new, :num_prefix] = 0.0
        at = 0
        for chunk in group:
            n = len(chunk.ids)
            slots[g, num_prefix + at : num_prefix + at + n] = np.arange(chunk.start, chunk.start + n)
            own = mask[g, 0, at : at + n, num_prefix + at : num_prefix + at + n]
            own[np.tri(n, dtype=bool)] = 0.0
            at += n
        # A padded query sees the first key, so that its (unused) softmax is not over nothing.
        mask[g, 0, num_new:, 0] = 0.0
        queries[g, :num_new] = np.arange(token, token + num_new)
        unpad.append(np.arange(num_new) + g * num_queries)
        token += num_new
    padded = token != len(groups) * num_queries
    return Block(
        first=first,
        num_tokens=token,
        queries=torch.from_numpy(queries.reshape(-1)).to(shape.device) if padded else None,
        unpad=torch.from_numpy(np.concatenate(unpad)).to(shape.device) if padded else None,
        slots=torch.from_numpy(slots).to(shape.device),
        mask=torch.from_numpy(mask).to(device=shape.device, dtype=shape.dtype),
    )
