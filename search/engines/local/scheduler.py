"""Continuous batching over trees: the requests of an engine, turn by turn, until each has its results.

Single-threaded: the worker calls `submit`, `cancel`, `release` and `turn`. A turn is one forward: one token of every
live row, and new prefix tokens up to a budget. `admission` says what goes in, `layout` makes it a batch, `decoding`
samples what comes out, and `pool` rules when there is no room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from search.engines.local.admission import Admission
from search.engines.local.arena import Node
from search.engines.local.cache import TreeCache
from search.engines.local.decoding import Decoding, Ended
from search.engines.local.forward import Forward
from search.engines.local.hidden_states import FINAL
from search.engines.local.kept_logits import KeptLogits
from search.engines.local.layout import Piece
from search.engines.local.pool import Pool
from search.engines.local.rows import Reads, Request, Result, Row
from search.engines.local.store import Store
from search.engines.stops import StopRules, TokenTable
from search.errors import EngineError
from search.types import FinishReason, Generation, Prefix, Sampling

_KEPT_LOGITS_BYTES, _KEPT_DEVICE_BYTES = 32 * 2**20, 512 * 2**20
_READS_AT_ONCE = 256
"""Requests read together: so many rows of a large vocabulary in float64 are some hundred megabytes."""


class Scheduler:
    """All state of one engine. Not thread-safe.

    Attributes:
        trees: by name.
        pool: the budget of KV slots.
        lanes: rows being written.
        requests: all that are owed something.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        context_tokens: int,
        vocab_size: int,
        table: TokenTable,
        eos_ids: frozenset[int],
        max_kv_tokens: int | None,
        max_rows: int,
        max_batch_tokens: int,
        head: nn.Module | None = None,
    ) -> None:
        self._forward, self._shape = forward, forward.shape
        self._new_store: Callable[[], Store] = partial(forward.store, max_rows, max_kv_tokens)
        self._store = self._new_store()
        self._text = table
        self._head = head
        kept_bytes = _KEPT_LOGITS_BYTES if forward.shape.device.type == "cpu" else _KEPT_DEVICE_BYTES
        self._kept = KeptLogits(max(16, min(1024, kept_bytes // (4 * vocab_size))))
        self.trees: dict[str, TreeCache] = {}
        self.lanes = self._store.lanes
        self.pool = Pool(self, max_kv_tokens)
        self.requests: dict[Request, None] = {}
        self._watches: dict[Callable[[], None], tuple[str, int, int]] = {}
        self.now = 0
        self._arrivals = 0
        self._rules = StopRules(table, eos_ids)
        self._decoding = Decoding(self.lanes, self._rules)
        self._admission = Admission(self, self._rules, context_tokens=context_tokens, max_batch_tokens=max_batch_tokens)

    # Messages

    def tree(self, name: str) -> TreeCache:
        """The tree of a name, made on first use."""
        cache = self.trees.get(name)
        if cache is None:
            self._arrivals += 1
            cache = self._store.tree(name, self._arrivals)
            cache.used = self.now
            self.trees[name] = cache
        return cache

    def submit(
        self,
        prefix: Prefix,
        deliver: Callable[[Result], None],
        *,
        labels: tuple[int, ...] | None = None,
        reads: Reads = "labels",
        layers: Sequence[int] = (),
        children: Sequence[tuple[int, int]] = (),
        sampling: Sampling | None = None,
        arrived: float,
    ) -> Request:
        """Take a request; its results go to `deliver`, one by one."""
        tree = self.tree(prefix.tree)
        self._arrivals += 1
        request = Request((tree.order, self._arrivals), tree, prefix, deliver, arrived, labels, children, sampling)
        request.reads = reads
        if reads == "hidden":
            # The last layer is kept with all logits; others from when they are first asked for.
            request.layers = tuple(FINAL if one == self._shape.num_layers else one for one in layers) or (FINAL,)
            self._forward.tap.want(request.layers)
        request.num_open = 1 if labels is not None else len(children)
        tree.num_calls += 1
        self.requests[request] = None
        self._admission.add(request)
        return request

    def cancel(self, request: Request) -> None:
        """Stop what a request still does; what it finished stays cached."""
        if request not in self.requests:
            return
        tree = request.tree
        for row in [row for row in tree.rows if row.request is request]:
            self._decoding.remove(row)
            self._drop_node(tree, row.node)
        for row in request.waiting:
            self._drop_node(tree, row.node)
        self._close(request)
        tree.compact()

    def release(self, name: str, keys: Collection[int] | None) -> None:
        """Free nodes and all below, or close the tree; steps being written below end as aborted."""
        tree = self.trees.get(name)
        if tree is None:
            return
        tree.drop(keys)
        self.abort_dead_rows(tree)
        if keys is None:
            for request in [r for r in self.requests if r.tree is tree]:
                if request.labels is not None:
                    self.fail(request, EngineError("the tree was released", retryable=False))
                    continue
                for key, _ in request.children:
                    self._deliver(request, Generation(key, (), "", FinishReason.ABORT, _seconds(request)))
            del self.trees[name]
        else:
            tree.compact()
        self._kept.sweep()

    def fail(self, request: Request, error: Exception) -> None:
        """End a request with an error."""
        if request in self.requests:
            request.deliver(error)
            self.cancel(request)

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End every request with an error of its own and forget all KV: after an exception nothing in it is certain."""
        for request in list(self.requests):
            request.deliver(error())
        self.requests.clear()
        self._admission.clear()
        self._store = self._new_store()
        self.lanes = self._store.lanes
        self._decoding = Decoding(self.lanes, self._rules)
        self._kept.clear()
        for name, old in list(self.trees.items()):
            new = self._store.tree(name, old.order)
            new.num_computed, new.num_recomputed = old.num_computed, old.num_recomputed
            new.num_sampled, new.num_calls, new.num_peak = old.num_sampled, old.num_calls, old.num_peak
            self.trees[name] = new

    def watch(self, name: str, key: int, num_tokens: int, tell: Callable[[], None]) -> None:
        """Have it told once when the step written under `key` goes on after `num_tokens` tokens."""
        self._watches[tell] = (name, key, num_tokens)

    def unwatch(self, tell: Callable[[], None]) -> None:
        """Nobody waits any more."""
        self._watches.pop(tell, None)

    def tell_watchers(self) -> None:
        """Tell those whose step is as long as they asked, and goes on."""
        if not self._watches:
            return
        lengths = {(row.request.tree.name, row.node.key): self.lanes.count[row.lane] for row in self.lanes.rows}
        for tell, (name, key, num_tokens) in list(self._watches.items()):
            if lengths.get((name, key), 0) >= num_tokens:
                del self._watches[tell]
                tell()

    # One turn

    def turn(self) -> bool:
        """Run one forward. False: nothing could be done; the pool says whether that is for want of room."""
        self.now += 1
        self.pool.fit_rows()
        plan = self._admission.plan()
        self._kept.forget()
        if plan.starts:
            self._finish(self._decoding.start(plan.starts))
        if not self.lanes.rows and not plan.pieces:
            # Rows may have started and ended on their first token, which makes room for those that wait.
            return bool(plan.starts)
        self.lanes.make_room()
        batch, pieces = self._store.lay_out(self.trees.values(), plan.pieces)
        logits = self._forward(batch)
        live = batch.num_lanes
        self._take_pieces(pieces, logits[live:], {layer: one[live:] for layer, one in self._forward.hidden.items()})
        if live:
            ended = self._decoding.advance(logits[:live], self.trees.values(), self.now)
            self.pool.note()
            self._finish(ended)
        return True

    def _take_pieces(self, pieces: list[Piece], logits: Tensor, hidden: Mapping[int, Tensor]) -> None:
        """Book computed prefix tokens, and keep the logits of completed ones."""
        for piece in pieces:
            for node, first, num in piece.spans:
                piece.tree.count_computed(node, first, num)
                if piece.ahead is not None:
                    piece.ahead.prefix_tokens += num
            piece.tree.num_peak = max(piece.tree.num_peak, piece.tree.num_held)
        self._kept.keep([node for piece in pieces for node, _ in piece.ends()], logits, hidden)
        self.pool.note()

    def _finish(self, ended: list[Ended]) -> None:
        """Book the steps that ended, and send them."""
        for row, ids, finish in ended:
            row.node.ids = ids
            row.node.used = self.now
            self.pool.note_step(len(ids))
            self._deliver(row.request, self._generation(row, ids, finish))

    # Rows

    def preempt(self, row: Row) -> None:
        """Put a row back to the waiting ones; its tokens stay, its KV goes and is computed again later."""
        tree, node, request = row.request.tree, row.node, row.request
        self.lanes.take_tokens(row)
        node.ids = row.ids
        node.num_ever = max(node.num_ever, node.num_cached + self.lanes.num_suffix(row.lane))
        self._decoding.remove(row)
        tree.forget_kv(node)
        tree.compact()
        request.waiting.appendleft(row)
        self._admission.add(request)

    def give_way(self) -> bool:
        """Put back a row that is written ahead, the youngest; False: there is none."""
        rows = [row for row in self.lanes.rows if row.request.last]
        if rows:
            self.preempt(max(rows, key=lambda row: (row.request.order, row.node.key)))
        return bool(rows)

    def abort_dead_rows(self, tree: TreeCache) -> None:
        """End a tree's rows whose nodes are gone, those that wait included; what was written comes back."""
        for row in [row for row in tree.rows if not row.node.alive]:
            self.lanes.take_tokens(row)
            self._decoding.remove(row)
            self._deliver(row.request, self._generation(row, row.ids, FinishReason.ABORT))
        for row in self._admission.remove_dead(tree):
            self._deliver(row.request, self._generation(row, row.ids, FinishReason.ABORT))

    # Results

    def answer(self, requests: Sequence[Request]) -> None:
        """Send requests what they read at the last tokens of their prefixes; their logits are known."""
        reads = {"labels": self._read_labels, "hidden": self._read_hidden, "head": self._read_head}
        alike: dict[tuple[str, tuple[int, ...]], list[Request]] = {}
        for request in requests:
            alike.setdefault((request.reads, request.layers), []).append(request)
        for (kind, _), asked in alike.items():
            for at in range(0, len(asked), _READS_AT_ONCE):
                some = asked[at : at + _READS_AT_ONCE]
                for request, found in zip(some, reads[kind](some), strict=True):
                    self._deliver(request, found)

    def _read_labels(self, requests: list[Request]) -> list[tuple[float, ...]]:
        labels = [request.labels or () for request in requests]
        index = np.zeros((len(labels), max(1, *map(len, labels))), np.int64)
        for row, own in zip(index, labels, strict=True):
            row[: len(own)] = own
        logits = torch.stack([request.logits for request in requests if request.logits is not None])
        chosen = torch.log_softmax(logits.double(), -1).gather(-1, torch.from_numpy(index).to(logits.device))
        return [tuple(row[: len(own)]) for row, own in zip(chosen.tolist(), labels, strict=True)]

    def _read_hidden(self, requests: list[Request]) -> list[tuple[float, ...]]:
        states = torch.cat([_states(requests, layer) for layer in requests[0].layers], -1)
        return list(map(tuple, states.double().tolist()))

    def _read_head(self, requests: list[Request]) -> list[tuple[float, ...]]:
        assert self._head is not None, "refused before"
        return list(map(tuple, self._head(_states(requests, FINAL)).double().tolist()))

    def _generation(self, row: Row, ids: tuple[int, ...], finish: FinishReason) -> Generation:
        text = self._text.step_text(row.request.prefix, ids, finish)
        logprobs = row.logprobs[: len(ids)] if row.sampling.logprobs else None
        return Generation(row.node.key, ids, text, finish, _seconds(row.request), logprobs)

    def _deliver(self, request: Request, result: Result) -> None:
        request.deliver(result)
        request.num_open -= 1
        if not request.num_open:
            self._close(request)

    def _close(self, request: Request) -> None:
        self.requests.pop(request, None)
        self._admission.remove(request)
        request.waiting.clear()
        request.children = ()

    def _drop_node(self, tree: TreeCache, node: Node) -> None:
        if node.alive and tree.nodes.get(node.key) is node:
            tree.drop([node.key])


def _seconds(request: Request) -> float:
    return time.perf_counter() - request.arrived


def _states(requests: list[Request], layer: int) -> Tensor:
    """Hidden states (num_requests, dim) of one layer, kept as long as the logits."""
    return torch.stack([request.hidden[layer] for request in requests if request.hidden is not None])
