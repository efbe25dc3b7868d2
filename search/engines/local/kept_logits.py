"""Logits that are kept at the ends of nodes, so that children start from them without another forward.

A turn's are one block, copied once: however many nodes it ends, a turn launches as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from torch import Tensor

from search.engines.local.arena import Node

_Block = list[tuple[Node, Tensor]]


class KeptLogits:
    """The newest blocks."""

    def __init__(self, max_rows: int) -> None:
        """Keep blocks of `max_rows` rows together at most; rows of nodes that are gone count with their block."""
        self._max_rows = max_rows
        self._blocks: deque[_Block] = deque()

    def keep(self, nodes: Sequence[Node], logits: Tensor, hidden: Mapping[int, Tensor]) -> None:
        """Keep logits (num_nodes, vocab), and hidden states (num_nodes, dim) by layer."""
        if not nodes:
            return
        # Clones: views of the forward's own would keep the whole batch alive.
        rows = logits.clone().unbind()
        states = {layer: one.clone().unbind() for layer, one in hidden.items()}
        for at, (node, row) in enumerate(zip(nodes, rows, strict=True)):
            node.logits, node.hidden = row, {layer: one[at] for layer, one in states.items()}
        self._blocks.append(list(zip(nodes, rows, strict=True)))

    def forget(self) -> None:
        """Forget the oldest blocks where there is too much."""
        num_rows = sum(map(len, self._blocks))
        while num_rows > self._max_rows:
            block = self._blocks.popleft()
            num_rows -= len(block)
            for node, row in block:
                if node.logits is row:
                    node.logits = node.hidden = None

    def sweep(self) -> None:
        """Give back blocks none of whose nodes has its logits any more."""
        self._blocks = deque(block for block in self._blocks if any(node.logits is row for node, row in block))

    def clear(self) -> None:
        """Keep nothing."""
        self._blocks.clear()
