"""Continuous batching over trees: which rows and which prefix tokens go through the model next.

Single-threaded: the worker calls `submit`, `cancel`, `release` and `turn`. A turn is one forward: one token of every
live row, and new prefix tokens up to a budget. Requests are served in the order of their trees' arrival, then of
their own; what that order means when the pool is full is in `pool`.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from search.engines.local.arena import Node
from search.engines.local.batch import Batch, Chunk, DecodePart, PrefillPart, lay_out
from search.engines.local.cache import TreeCache
from search.engines.local.forward import Forward
from search.engines.local.lanes import Lanes
from search.engines.local.pool import BlockedError, NoRoomError, Pool
from search.engines.local.rows import Reads, Request, Result, Row
from search.engines.local.sampling import sample, uniforms
from search.engines.local.stops import StopRule, TokenBytes
from search.errors import EngineError
from search.types import FinishReason, Generation, Prefix, Sampling

_KEPT_LOGITS_BYTES = 32 * 2**20
_MAX_BLOCK_KEYS = 32_768
_REORDER_ROWS = 24
"""When so many rows of a tree start together, its arena is put in order first."""


@dataclass(slots=True, eq=False)
class _Piece:
    """Tokens of one path to be computed this turn: (node, first token, number) along it.

    `again`: the last token is only read again; it keeps its slot.
    """

    tree: TreeCache
    path: list[Node]
    spans: list[tuple[Node, int, int]]
    again: bool = False

    def ends(self) -> list[tuple[Node, int]]:
        """The nodes that it completes, with the place of their last token in it."""
        found, at = [], 0
        for node, first, num in self.spans:
            at += num
            if first + num == len(node.ids):
                found.append((node, at - 1))
        return found


@dataclass(slots=True)
class _Plan:
    """What one turn is going to do.

    Attributes:
        budget: prefix tokens it may still take.
        pieces: prefix tokens to compute.
        claimed: nodes on which a piece works; whoever else needs them waits for the next turn.
        starts: rows that start, with the logits of their next token.
    """

    budget: int
    pieces: list[_Piece] = field(default_factory=list)
    claimed: set[Node] = field(default_factory=set)
    starts: list[tuple[Row, Tensor]] = field(default_factory=list)


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
        device: torch.device,
        dtype: torch.dtype,
        context_tokens: int,
        vocab_size: int,
        table: TokenBytes,
        eos_ids: frozenset[int],
        max_kv_tokens: int | None,
        max_rows: int,
        max_batch_tokens: int,
        head: nn.Module | None = None,
    ) -> None:
        self._forward, self._device, self._dtype = forward, device, dtype
        self._shape = forward.shape
        self._context_tokens = context_tokens
        self._text, self._eos_ids = table, eos_ids
        self._head = head
        self._max_batch_tokens = max_batch_tokens
        self._max_kept_logits = max(16, min(1024, _KEPT_LOGITS_BYTES // (4 * vocab_size)))
        self.trees: dict[str, TreeCache] = {}
        self.lanes = Lanes(forward.shape, dtype, device, max_rows)
        self.pool = Pool(self, max_kv_tokens)
        self.requests: dict[Request, None] = {}
        self.now = 0
        self._queue: list[Request] = []
        self._arrivals = 0
        self._kept_logits: dict[Node, None] = {}
        self._rules: dict[tuple[str, ...], int] = {}
        self._rule_list: list[StopRule] = []
        self._maybe = np.zeros((0, 0), np.bool_)

    # Messages

    def tree(self, name: str) -> TreeCache:
        """The tree of a name, made on first use."""
        found = self.trees.get(name)
        if found is None:
            self._arrivals += 1
            found = TreeCache(name, self._arrivals, self._shape, self._dtype, self._device)
            found.used = self.now
            self.trees[name] = found
        return found

    def submit(
        self,
        prefix: Prefix,
        deliver: Callable[[Result], None],
        *,
        labels: tuple[int, ...] | None = None,
        reads: Reads = "labels",
        children: Sequence[tuple[int, int]] = (),
        sampling: Sampling | None = None,
        arrived: float,
    ) -> Request:
        """Take a request; its results go to `deliver`, one by one."""
        tree = self.tree(prefix.tree)
        self._arrivals += 1
        request = Request((tree.order, self._arrivals), tree, prefix, deliver, arrived, labels, children, sampling)
        request.reads = reads
        request.num_open = 1 if labels is not None else len(children)
        tree.num_calls += 1
        self.requests[request] = None
        insort(self._queue, request, key=lambda r: r.order)
        return request

    def cancel(self, request: Request) -> None:
        """Stop what a request still does; what it finished stays cached."""
        if request not in self.requests:
            return
        tree = request.tree
        for row in [row for row in tree.rows if row.request is request]:
            self._remove_row(row)
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
                    self._deliver(request, self._generation(request, key, (), FinishReason.ABORT))
            del self.trees[name]
        else:
            tree.compact()
        self._kept_logits = {node: None for node in self._kept_logits if node.logits is not None}

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
        self._queue.clear()
        self.lanes = Lanes(self._shape, self._dtype, self._device, self.lanes.max_rows)
        self._kept_logits.clear()
        for name, old in list(self.trees.items()):
            new = TreeCache(name, old.order, self._shape, self._dtype, self._device)
            new.num_computed, new.num_recomputed = old.num_computed, old.num_recomputed
            new.num_sampled, new.num_calls, new.num_peak = old.num_sampled, old.num_calls, old.num_peak
            self.trees[name] = new

    # One turn

    def turn(self) -> bool:
        """Run one forward. False: nothing could be done; the pool says whether that is for want of room."""
        self.now += 1
        self.pool.fit_rows()
        pieces = self._admit()
        if not self.lanes.rows and not pieces:
            return False
        self._flush_long_rows()
        batch, pieces = self._lay_out(pieces)
        logits = self._forward(batch)
        live = batch.num_lanes
        self._take_pieces(pieces, logits[live:], self._forward.hidden[live:])
        if live:
            self._advance(logits[:live])
        return True

    def _admit(self) -> list[_Piece]:
        """Start what can be started, in order; returns the prefix tokens to be computed this turn."""
        plan = _Plan(self._max_batch_tokens)
        self.pool.begin_admission()
        try:
            for request in list(self._queue):
                if plan.budget <= 0 and not self._has_lane(plan):
                    break
                if request.labels is None and request.logits is not None and not self._has_lane(plan):
                    continue
                try:
                    self._serve(request, plan)
                except NoRoomError as refusal:
                    self.fail(request, refusal.error)
        except BlockedError:
            pass
        while len(self._kept_logits) > self._max_kept_logits:
            node = next(iter(self._kept_logits))
            del self._kept_logits[node]
            node.logits = node.hidden = None
        if plan.starts:
            self._start(plan.starts)
        return plan.pieces

    def _has_lane(self, plan: _Plan) -> bool:
        return len(self.lanes) + len(plan.starts) < self.lanes.max_rows

    def _serve(self, request: Request, plan: _Plan) -> None:
        """Do what is next for one request.

        Raises:
            BlockedError: there is no room for it now.
            NoRoomError: there never will be.
        """
        tree = request.tree
        tree.used = self.now
        if request.parent is None or not request.parent.alive:
            request.parent, replaced = tree.resolve(request.prefix)
            request.target = next(node for node in reversed(request.parent.path()) if node.ids)
            if replaced:
                self.abort_dead_rows(tree)
            self.pool.check_size(request)
        assert request.target is not None
        if not self._ready(request, request.target, plan):
            return
        if request.logits is None:
            request.logits, request.hidden = request.target.logits, request.target.hidden
        logits = request.logits
        assert logits is not None
        if request.labels is not None:
            self._deliver(request, self._read(request, logits))
            return
        if request.children:
            self._make_rows(request)
        while request.waiting and self._has_lane(plan):
            row = request.waiting[0]
            source = logits
            if row.ids:
                if not self._ready(request, row.node, plan):
                    return
                assert row.node.logits is not None
                source = row.node.logits
            self.pool.admit_row(request, plan.pieces)
            request.waiting.popleft()
            plan.starts.append((row, source))
        if not request.waiting:
            self._queue.remove(request)

    def _ready(self, request: Request, target: Node, plan: _Plan) -> bool:
        """Whether KV and logits up to `target` are there; if not, plan to compute what is missing."""
        path = target.path()
        for node in path:
            node.used = self.now
        missing = next((at for at, node in enumerate(path) if node.num_missing), None)
        if missing is None:
            if target.logits is not None or (target is request.target and request.logits is not None):
                return True
            if target not in plan.claimed and plan.budget > 0:
                plan.claimed.add(target)
                plan.budget -= 1
                span = (target, len(target.ids) - 1, 1)
                plan.pieces.append(_Piece(request.tree, path, [span], again=True))
            return False
        if plan.budget <= 0 or path[missing] in plan.claimed:
            return False
        spans = []
        left = plan.budget
        for node in path[missing:]:
            if node in plan.claimed or not left:
                break
            num = min(left, node.num_missing)
            if num:
                spans.append((node, node.num_cached, num))
                left -= num
        total = sum(node.num_missing for node in path[missing:])
        taken = plan.budget - left
        self.pool.admit_prefix(request, total, taken, plan.pieces)
        plan.budget = left
        plan.claimed.update(node for node, _, _ in spans)
        plan.pieces.append(_Piece(request.tree, path, spans))
        return False

    def _make_rows(self, request: Request) -> None:
        tree, parent, sampling = request.tree, request.parent, request.sampling
        assert parent is not None and sampling is not None
        start = parent.start + len(parent.ids)
        room = self._context_tokens - start
        limit = min(sampling.max_new_tokens, room)
        table = self._rule(sampling.stop)
        for key, seed in request.children:
            if key in tree.nodes:
                tree.drop([key])
                self.abort_dead_rows(tree)
            node = tree.add(key, parent, (), start)
            row = Row(request, node, seed, sampling, limit, room < sampling.max_new_tokens, table)
            request.waiting.append(row)
        request.children = ()

    def _start(self, starts: list[tuple[Row, Tensor]]) -> None:
        """Sample the first token of new rows (the next of preempted ones) and let them join the lanes."""
        joining = Counter(row.request.tree for row, _ in starts)
        for tree, number in joining.items():
            if number >= _REORDER_ROWS and not tree.rows:
                tree.compact(reorder=True)
        # Neighbours in the arena become neighbours among the rows.
        starts.sort(key=lambda start: (start[0].request.order[0], start[0].node.above_slot()))
        rows = [row for row, _ in starts]
        counts = np.array([len(row.ids) for row in rows], np.int64)
        u = uniforms(np.array([row.seed for row in rows], np.uint64), counts)
        temperature = np.array([row.sampling.temperature for row in rows])
        top_p = np.array([row.sampling.top_p for row in rows])
        tokens = sample(torch.stack([logits for _, logits in starts]), temperature, top_p, u)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.request.tree.num_sampled += 1
            row.ids = (*row.ids, token)
            finish = self._finish_reason(row, row.ids)
            if finish is not None:
                self._finish(row, row.ids, finish)
                continue
            self.lanes.join(row, row.ids)
            row.request.tree.add_row(row)

    # The forward

    def _flush_long_rows(self) -> None:
        for row in self.lanes.long_rows():
            self._commit(row)
            self.lanes.restart(row)
            row.request.tree.refill(row)
        if self.lanes.rows:
            self.lanes.shift()

    def _lay_out(self, pieces: list[_Piece]) -> tuple[Batch, list[_Piece]]:
        """The turn's batch, and the pieces in the order of its logits."""
        lanes, device = self.lanes, self._device
        live = len(lanes)
        lanes.open_column()
        decode = []
        for tree in self.trees.values():
            if tree.rows:
                view = tree.view()
                mask = torch.from_numpy(view.mask).to(device=device, dtype=self._dtype)
                seen = [row.lane for row in tree.rows]
                decode.append(DecodePart(tree.arena, mask.shape[1], mask, view.trunk, view.bands, seen))
        order = None
        flat = [lane for part in decode for lane in part.lanes]
        if flat != list(range(live)):
            forth = torch.tensor(flat, device=device)
            order = (forth, torch.argsort(forth))
        first = int(lanes.start[:live].min()) if live else 0
        lanes_mask = torch.from_numpy(lanes.mask[:live, None, None, first : lanes.column + 1])

        parts, ordered = self._lay_out_pieces(pieces, live)
        ids = [lanes.last[:live]] + [np.array(c.ids, np.int64) for part in parts for c in part.chunks]
        positions = [lanes.position[:live]]
        positions += [np.arange(c.position, c.position + len(c.ids)) for part in parts for c in part.chunks]
        reads = list(range(live))
        cursor = live
        for part in parts:
            for chunk in part.chunks:
                reads.extend(cursor + at for at in chunk.reads)
                cursor += len(chunk.ids)
        batch = Batch(
            ids=torch.from_numpy(np.concatenate(ids)).to(device),
            positions=torch.from_numpy(np.concatenate(positions)).to(device),
            reads=torch.tensor(reads, dtype=torch.long, device=device),
            num_lanes=live,
            lanes_kv=lanes.kv,
            column=lanes.column,
            first_column=first,
            lanes_mask=lanes_mask.to(device=device, dtype=self._dtype),
            decode=decode,
            order=order,
            prefill=parts,
        )
        return batch, ordered

    def _lay_out_pieces(self, pieces: list[_Piece], first: int) -> tuple[list[PrefillPart], list[_Piece]]:
        """Take slots for new prefix tokens, and lay them out tree by tree, siblings together."""
        by_tree: dict[object, list[tuple[int, _Piece, np.ndarray[tuple[int], np.dtype[np.int64]]]]] = {}
        slots: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        for piece in pieces:
            node, at, _ = piece.spans[0]
            group = id(node) if at or node.parent is None else id(node.parent)
            if group not in slots:
                above = piece.path[: piece.path.index(node) + 1]
                # An `again` token lies in its own slot already: its path is what comes before that.
                slots[group] = TreeCache.slots(above)[: node.start + at]
            place: object = piece if piece.again else piece.tree
            by_tree.setdefault(place, []).append((group, piece, slots[group]))
        parts, ordered = [], []
        for members in by_tree.values():
            members.sort(key=lambda member: (len(member[2]), member[0]))
            part = PrefillPart(members[0][1].tree.arena, [])
            for group, piece, prefix in members:
                if piece.again:
                    begin = int(TreeCache.slots(piece.path)[-1])
                else:
                    taken = [piece.tree.take(node, num) for node, _, num in piece.spans]
                    begin = taken[0]
                ids = [token for node, at, num in piece.spans for token in node.ids[at : at + num]]
                reads = tuple(at for _, at in piece.ends())
                chunk = Chunk(tuple(ids), len(prefix), prefix, begin, group, reads)
                part.chunks.append(chunk)
                ordered.append(piece)
            lay_out(part, first, _MAX_BLOCK_KEYS, self._device, self._dtype)
            first = part.last
            parts.append(part)
        return parts, ordered

    def _take_pieces(self, pieces: list[_Piece], logits: Tensor, hidden: Tensor) -> None:
        """Book computed prefix tokens, and keep the logits of completed ones."""
        at = 0
        for piece in pieces:
            for node, first, num in piece.spans:
                piece.tree.count_computed(node, first, num)
            piece.tree.num_peak = max(piece.tree.num_peak, piece.tree.num_held)
            for node, _ in piece.ends():
                # A clone: a view would keep the whole batch's logits alive.
                node.logits, node.hidden = logits[at].clone(), hidden[at].clone()
                self._kept_logits.pop(node, None)
                self._kept_logits[node] = None
                at += 1
        self.pool.note()

    def _advance(self, logits: Tensor) -> None:
        """Book the rows' tokens, sample the next ones, and end the rows that are done."""
        lanes = self.lanes
        live = len(lanes)
        for tree in self.trees.values():
            if num := len(tree.rows):
                tree.num_computed += num
                tree.num_sampled += num
                tree.num_held += num
                tree.num_peak = max(tree.num_peak, tree.num_held)
                tree.used = self.now
        self.pool.note()
        u = uniforms(lanes.seeds[:live], lanes.count[:live])
        tokens = sample(logits, lanes.temperature[:live], lanes.top_p[:live], u)
        lanes.append(tokens)
        done = (lanes.count[:live] >= lanes.limit[:live]) | self._maybe[lanes.table[:live], tokens]
        for row in [lanes.rows[lane] for lane in np.flatnonzero(done)]:
            ids = lanes.ids(row.lane)
            finish = self._finish_reason(row, ids)
            if finish is not None:
                self._commit(row)
                self._remove_row(row, held=False)
                self._finish(row, ids, finish)

    # Rows

    def _finish_reason(self, row: Row, ids: tuple[int, ...]) -> FinishReason | None:
        rule = self._rule_list[row.table]
        if rule.is_eos(ids[-1]):
            return FinishReason.EOS
        if rule.maybe[ids[-1]] and rule.is_stop(ids):
            return FinishReason.STOP
        if len(ids) >= row.limit:
            return FinishReason.CONTEXT if row.by_context else FinishReason.LENGTH
        return None

    def _commit(self, row: Row) -> None:
        """Move a row's suffix to its node in the arena; its lane still has to be left or restarted."""
        lanes, tree, node = self.lanes, row.request.tree, row.node
        num = lanes.num_suffix(row.lane)
        if num:
            tree.num_held -= num
            start = tree.take(node, num)
            tree.arena.store(start, lanes.suffix(row.lane))
            node.num_ever = max(node.num_ever, node.num_cached)

    def _finish(self, row: Row, ids: tuple[int, ...], finish: FinishReason) -> None:
        row.node.ids = ids
        row.node.used = self.now
        self.pool.note_step(len(ids))
        self._deliver(row.request, self._generation(row.request, row.node.key, ids, finish))

    def _remove_row(self, row: Row, held: bool = True) -> None:
        """Take a row out of lanes and masks; `held`: its suffix is still counted."""
        if held:
            row.request.tree.num_held -= self.lanes.num_suffix(row.lane)
        self.lanes.leave(row)
        row.request.tree.remove_row(row)

    def preempt(self, row: Row) -> None:
        """Put a row back to the waiting ones; its tokens stay, its KV goes and is computed again later."""
        tree, node, request = row.request.tree, row.node, row.request
        row.ids = node.ids = self.lanes.ids(row.lane)
        node.num_ever = max(node.num_ever, node.num_cached + self.lanes.num_suffix(row.lane))
        self._remove_row(row)
        tree.forget_kv(node)
        tree.compact()
        request.waiting.appendleft(row)
        if request not in self._queue:
            insort(self._queue, request, key=lambda r: r.order)

    def abort_dead_rows(self, tree: TreeCache) -> None:
        """End a tree's rows whose nodes are gone, those that wait included; what was written comes back."""
        for row in [row for row in tree.rows if not row.node.alive]:
            ids = self.lanes.ids(row.lane)
            self._remove_row(row)
            self._deliver(row.request, self._generation(row.request, row.node.key, ids, FinishReason.ABORT))
        for request in [request for request in self._queue if request.tree is tree]:
            for row in [row for row in request.waiting if not row.node.alive]:
                request.waiting.remove(row)
                self._deliver(request, self._generation(request, row.node.key, row.ids, FinishReason.ABORT))
            if request.labels is None and not request.waiting and not request.children:
                self._queue = [other for other in self._queue if other is not request]

    # Small things

    def _rule(self, stops: tuple[str, ...]) -> int:
        if stops not in self._rules:
            self._rules[stops] = len(self._rule_list)
            self._rule_list.append(StopRule(self._text, stops, self._eos_ids))
            self._maybe = np.stack([rule.maybe for rule in self._rule_list])
        return self._rules[stops]

    def _read(self, request: Request, logits: Tensor) -> tuple[float, ...]:
        """What a request reads at the last token of its prefix."""
        if request.reads == "labels":
            assert request.labels is not None
            return tuple(torch.log_softmax(logits.double(), -1)[list(request.labels)].tolist())
        assert request.hidden is not None, "kept as long as the logits"
        if request.reads == "hidden":
            return tuple(request.hidden.double().tolist())
        assert self._head is not None, "refused before"
        return tuple(self._head(request.hidden).double().tolist())

    def _generation(self, request: Request, key: int, ids: tuple[int, ...], finish: FinishReason) -> Generation:
        return Generation(key, ids, self._text.join(ids), finish, time.perf_counter() - request.arrived)

    def _deliver(self, request: Request, result: Result) -> None:
        request.deliver(result)
        request.num_open -= 1
        if not request.num_open:
            self._close(request)

    def _close(self, request: Request) -> None:
        self.requests.pop(request, None)
        if request in self._queue:
            self._queue.remove(request)
        request.waiting.clear()
        request.children = ()

    def _drop_node(self, tree: TreeCache, node: Node) -> None:
        if node.alive and tree.nodes.get(node.key) is node:
            tree.drop([node.key])
