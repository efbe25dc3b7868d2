"""The KV cache of one tree: every token's keys and values once, in one contiguous block a layer.

A node is a segment of the tree. Its KV lies in pieces of slots; ancestors' slots come before their descendants', also
after compaction, so a path's slots are ascending. A node's KV may lag its text: `num_cached <= len(ids)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCKED = -1.0e30
"""Added to the scores of slots a row must not see. Finite, so that a fully blocked part merges with weight 0."""

_GRAIN = 64
"""Slots are reserved in multiples of this."""


class KVShape(NamedTuple):
    """Sizes of one token's keys and values, as the model's own forward showed them; where, and in which precision."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    device: torch.device
    dtype: torch.dtype


@dataclass(slots=True, eq=False)
class Node:
    """One segment of a tree as the engine holds it.

    Attributes:
        key: as in `Segment.key`.
        parent: None above the root.
        ids: its token ids; while a row writes it, those written before the row last joined.
        start: number of path tokens before it.
        children: by key.
        pieces: (first slot, length) of its KV in an arena, ascending.
        slots: (num_cached,) where its KV lies in a pool of slots for all trees.
        num_cached: tokens whose KV is held; the first ones.
        num_ever: tokens whose KV was ever computed, to tell a first from a second computation.
        logits: (vocab,) after its last token, while they are kept.
        hidden: (dim,) hidden states there by layer, kept as long; see `heads.HiddenTap`.
        used: number of the turn that last read or wrote it.
        alive: False once released, replaced or dropped.
    """

    key: int
    parent: Node | None
    ids: tuple[int, ...]
    start: int
    children: dict[int, Node] = field(default_factory=dict)
    pieces: list[tuple[int, int]] = field(default_factory=list)
    slots: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    num_cached: int = 0
    num_ever: int = 0
    logits: Tensor | None = None
    hidden: dict[int, Tensor] | None = None
    used: int = 0
    alive: bool = True

    @property
    def num_missing(self) -> int:
        """Tokens without KV."""
        return len(self.ids) - self.num_cached

    def path(self) -> list[Node]:
        """Nodes from the root to this one."""
        nodes = [self]
        while (above := nodes[-1].parent) is not None:
            nodes.append(above)
        nodes.reverse()
        return nodes

    def extend(self, start: int, num_slots: int) -> None:
        """Make slots from `start` on its own, after those it has."""
        if self.pieces and sum(self.pieces[-1]) == start:
            start, before = self.pieces.pop()
            num_slots += before
        self.pieces.append((start, num_slots))

    def above_slot(self) -> int:
        """The slot where its parent's KV ends."""
        pieces = self.parent.pieces if self.parent is not None else []
        return sum(pieces[-1]) if pieces else 0

    def below(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


class Arena:
    """Slots for the KV of one tree; grows as needed, and closes its holes in order.

    Attributes:
        kv: (2, num_layers, num_kv_heads, capacity, head_dim): keys, then values.
        end: slots from here on are free.
        num_holes: freed slots below `end`, until `compact`.
    """

    def __init__(self, shape: KVShape) -> None:
        self._shape = shape
        self.kv = self._new(0)
        self.end = 0
        self.num_holes = 0

    @property
    def capacity(self) -> int:
        """Slots reserved."""
        return self.kv.shape[3]

    @property
    def num_held(self) -> int:
        """Slots that hold a token."""
        return self.end - self.num_holes

    def allocate(self, num_slots: int) -> int:
        """First of `num_slots` consecutive slots at the end."""
        start, self.end = self.end, self.end + num_slots
        if self.end > self.capacity:
            self._resize(max(self.end, start + start // 4))
        return start

    def free(self, pieces: Iterable[tuple[int, int]]) -> None:
        """Give slots back; they are holes until `compact`."""
        self.num_holes += sum(length for _, length in pieces)

    def store(self, start: int, kv: Tensor) -> None:
        """Copy KV (2, num_layers, num_kv_heads, num, head_dim) to the slots from `start` on."""
        self.kv[:, :, :, start : start + kv.shape[3]].copy_(kv)

    def compact(self, nodes: Iterable[Node]) -> None:
        """Close all holes and put the nodes' slots in the order given; changes their pieces.

        Parents must come before their children. Memory that is far too large is given back.
        """
        pieces = [(piece, node) for node in nodes for piece in node.pieces]
        self.num_holes = 0
        taken: list[NDArray[np.int64]] = []
        for node in {id(node): node for _, node in pieces}.values():
            node.pieces = []
        cursor = first_moved = 0
        for (start, length), node in pieces:
            if start == cursor == first_moved:
                first_moved = cursor + length
            taken.append(np.arange(start, start + length))
            node.extend(cursor, length)
            cursor += length
        if first_moved < cursor:
            slots = torch.from_numpy(np.concatenate(taken)[first_moved:]).to(self._shape.device)
            # Layer by layer: the copy that index_select makes stays small.
            for layer in range(self._shape.num_layers):
                self.kv[:, layer, :, first_moved:cursor] = self.kv[:, layer].index_select(2, slots)
        self.end = cursor
        if self.capacity > 4 * _GRAIN and cursor < self.capacity // 3:
            # With room to spare: the tree's next level comes.
            self._resize(cursor + cursor // 2)

    def _new(self, capacity: int) -> Tensor:
        shape = self._shape
        # Zeros, not empty: a blocked slot has weight 0, and 0 times a stray NaN would be NaN.
        return torch.zeros(
            (2, shape.num_layers, shape.num_kv_heads, capacity, shape.head_dim),
            dtype=shape.dtype,
            device=shape.device,
        )

    def _resize(self, num_slots: int) -> None:
        grown = self._new(-(-num_slots // _GRAIN) * _GRAIN)
        kept = min(self.end, self.capacity, grown.shape[3])
        grown[:, :, :, :kept] = self.kv[:, :, :, :kept]
        self.kv = grown
