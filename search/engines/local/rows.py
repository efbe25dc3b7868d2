"""What the worker keeps for each request and for each step being written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from search.engines.local.arena import Node
from search.engines.local.cache import TreeCache
from search.engines.stops import Writing
from search.types import Ahead, Generation, Prefix, Sampling

Result = Generation | tuple[float, ...] | Exception
"""A step, the numbers that were read, or what ended the request."""

Reads = Literal["labels", "head", "hidden"]
"""What a request reads after its prefix: label log-probabilities, the reward head's outputs, or hidden states."""


@dataclass(slots=True, eq=False)
class Row:
    """One step being written.

    Attributes:
        request: the request it belongs to.
        node: the tree's node that it fills.
        seed: of its sampling.
        sampling: how it is sampled.
        limit: tokens at which it ends.
        by_context: whether that limit is the context's.
        table: number of its stop rule.
        writing: what that rule knows of it.
        ids: tokens written before it last joined the lanes; empty for a new row.
        logprobs: their log-probabilities, where `sampling` wants them kept; else empty.
        lane: where it runs; -1 while it waits.
    """

    request: Request
    node: Node
    seed: int
    sampling: Sampling
    limit: int
    by_context: bool
    table: int
    writing: Writing
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    lane: int = -1


@dataclass(slots=True, eq=False)
class Request:
    """One call: the steps of a `generate`, or what is read after a prefix.

    Attributes:
        order: (arrival of its tree, arrival): the order in which requests are served.
        tree: the cache it uses.
        prefix: what it reads.
        deliver: takes each result, or the exception that ends the request; called in the worker thread.
        arrived: `time.perf_counter()` at its arrival.
        labels: ids whose log-probabilities are asked; None for a `generate`, none for another reading.
        children: (key, seed) of the steps not yet made into rows.
        sampling: for a `generate`.
        target: the prefix's last node with tokens, once found.
        parent: the prefix's last node, above the children.
        logits: (vocab,) after the prefix, once known.
        hidden: (dim,) hidden states there by layer.
        reads: what is asked where `labels` is not None.
        layers: whose hidden states are asked; see `heads.HiddenTap`.
        waiting: rows that have no lane.
        num_open: results still owed.
    """

    order: tuple[int, int]
    tree: TreeCache
    prefix: Prefix
    deliver: Callable[[Result], None]
    arrived: float
    labels: tuple[int, ...] | None = None
    children: Sequence[tuple[int, int]] = ()
    sampling: Sampling | None = None
    target: Node | None = None
    parent: Node | None = None
    logits: Tensor | None = None
    hidden: dict[int, Tensor] | None = None
    reads: Reads = "labels"
    layers: tuple[int, ...] = ()
    waiting: deque[Row] = field(default_factory=deque)
    num_open: int = 1

    @property
    def ahead(self) -> Ahead | None:
        """Its mark, if it is made ahead."""
        return self.prefix.ahead

    @property
    def last(self) -> bool:
        """Whether it is served after all others: it is made ahead, and not wanted yet."""
        return self.prefix.ahead is not None and not self.prefix.ahead.wanted
