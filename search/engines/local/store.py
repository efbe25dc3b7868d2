"""Where the KV of an engine's trees and rows lies, and how a turn's batch finds it: the seam of the two forms."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch

from search.engines.local.arena import KVShape
from search.engines.local.arena_tree import ArenaTree
from search.engines.local.batch import ArenaBatch, Batch, DecodePart
from search.engines.local.cache import TreeCache
from search.engines.local.columns import ColumnLanes
from search.engines.local.lanes import Lanes
from search.engines.local.layout import Piece, lay_out_pieces


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
        lanes, shape, live = self.lanes, self._shape, len(self.lanes)
        lanes.open_column()
        decode = []
        for tree in trees:
            if isinstance(tree, ArenaTree) and tree.rows:
                seen, trunk, bands = tree.view()
                mask = torch.from_numpy(seen).to(device=shape.device, dtype=shape.dtype)
                decode.append(DecodePart(tree.arena, mask, trunk, bands, [row.lane for row in tree.rows]))
        order = None
        flat = [lane for part in decode for lane in part.lanes]
        if flat != list(range(live)):
            forth = torch.tensor(flat, device=shape.device)
            order = (forth, torch.argsort(forth))
        first = int(lanes.start[:live].min()) if live else 0
        lanes_mask = torch.from_numpy(lanes.mask[:live, None, None, first : lanes.column + 1])

        parts, ordered = lay_out_pieces(pieces, live, shape)
        ids = [lanes.last[:live]] + [np.array(c.ids, np.int64) for part in parts for c in part.chunks]
        positions = [lanes.position[:live]]
        positions += [np.arange(c.position, c.position + len(c.ids)) for part in parts for c in part.chunks]
        reads = list(range(live))
        cursor = live
        for part in parts:
            for chunk in part.chunks:
                reads.extend(cursor + at for at in chunk.reads)
                cursor += len(chunk.ids)
        batch = ArenaBatch(
            ids=torch.from_numpy(np.concatenate(ids)).to(shape.device),
            positions=torch.from_numpy(np.concatenate(positions)).to(shape.device),
            reads=torch.tensor(reads, dtype=torch.long, device=shape.device),
            num_lanes=live,
            lanes_kv=lanes.kv,
            column=lanes.column,
            first_column=first,
            lanes_mask=lanes_mask.to(device=shape.device, dtype=shape.dtype),
            decode=decode,
            order=order,
            prefill=parts,
        )
        return batch, ordered
