"""The pieces of prefixes that a turn computes, and their places in its forward over arenas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.engines.local.arena import KVShape, Node
from search.engines.local.arena_tree import ArenaTree
from search.engines.local.batch import Chunk, PrefillPart, lay_out
from search.engines.local.cache import TreeCache
from search.types import Ahead


@dataclass(slots=True, eq=False)
class Piece:
    """Tokens of one path to be computed in a turn.

    Attributes:
        tree: whose path it is.
        path: nodes from the root down.
        spans: (node, first token, number) along the path.
        again: the last token is only read again; it keeps its slot.
        ahead: the mark of the request that it is computed for, if that is made ahead.
    """

    tree: TreeCache
    path: list[Node]
    spans: list[tuple[Node, int, int]]
    again: bool = False
    ahead: Ahead | None = None

    def ends(self) -> list[tuple[Node, int]]:
        """The nodes that it completes, with the place of their last token in it."""
        found, at = [], 0
        for node, first, num in self.spans:
            at += num
            if first + num == len(node.ids):
                found.append((node, at - 1))
        return found


def lay_out_pieces(pieces: list[Piece], first: int, shape: KVShape) -> tuple[list[PrefillPart], list[Piece]]:
    """Take slots for new prefix tokens, and lay them out tree by tree, siblings together."""
    by_tree: dict[object, list[tuple[int, Piece, NDArray[np.int64]]]] = {}
    slots: dict[int, NDArray[np.int64]] = {}
    for piece in pieces:
        node, at, _ = piece.spans[0]
        group = id(node) if at or node.parent is None else id(node.parent)
        if group not in slots:
            above = piece.path[: piece.path.index(node) + 1]
            # An `again` token lies in its own slot already: its path is what comes before that.
            slots[group] = ArenaTree.slots(above)[: node.start + at]
        place: object = piece if piece.again else piece.tree
        by_tree.setdefault(place, []).append((group, piece, slots[group]))
    parts, ordered = [], []
    for members in by_tree.values():
        members.sort(key=lambda member: (len(member[2]), member[0]))
        tree = members[0][1].tree
        assert isinstance(tree, ArenaTree)
        part = PrefillPart(tree.arena, [])
        for group, piece, prefix in members:
            if piece.again:
                begin = int(ArenaTree.slots(piece.path)[-1])
            else:
                taken = [tree.take(node, num) for node, _, num in piece.spans]
                begin = taken[0]
            ids = [token for node, at, num in piece.spans for token in node.ids[at : at + num]]
            reads = tuple(at for _, at in piece.ends())
            chunk = Chunk(tuple(ids), len(prefix), prefix, begin, group, reads)
            part.chunks.append(chunk)
            ordered.append(piece)
        lay_out(part, first, shape)
        first = part.last
        parts.append(part)
    return parts, ordered
