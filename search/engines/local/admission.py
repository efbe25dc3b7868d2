"""Who starts next: requests in order, the rows they may start and the prefix tokens they still need.

Requests are served in the order of their trees' arrival, then of their own; those made ahead after all others, and a
row that is written ahead gives its lane up to one that is wanted. What a request needs is planned within the
turn's budget of prefix tokens, the free lanes, and the room that `pool` grants.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from search.engines.local.arena import Node
from search.engines.local.cache import TreeCache
from search.engines.local.layout import Piece
from search.engines.local.pool import BlockedError, NoRoomError
from search.engines.local.rows import Request, Row
from search.engines.stops import StopRules

if TYPE_CHECKING:
    from search.engines.local.scheduler import Scheduler


@dataclass(slots=True)
class Plan:
    """What one turn is going to do.

    Attributes:
        budget: prefix tokens it may still take.
        pieces: prefix tokens to compute.
        claimed: nodes on which a piece works; whoever else needs them waits for the next turn.
        starts: rows that start, with the logits of their next token.
        answers: requests that only read, and can.
    """

    budget: int
    pieces: list[Piece] = field(default_factory=list)
    claimed: set[Node] = field(default_factory=set)
    starts: list[tuple[Row, Tensor]] = field(default_factory=list)
    answers: list[Request] = field(default_factory=list)


class Admission:
    """The requests that have something to start, in the order in which they are served."""

    def __init__(self, scheduler: Scheduler, rules: StopRules, *, context_tokens: int, max_batch_tokens: int) -> None:
        """Admit to a scheduler's lanes and pool.

        Args:
            scheduler: whose requests they are.
            rules: where new rows' stop rules get their numbers.
            context_tokens: most tokens of a path.
            max_batch_tokens: most prefix tokens of a turn.
        """
        self._scheduler, self._rules = scheduler, rules
        self._context_tokens, self._max_batch_tokens = context_tokens, max_batch_tokens
        self._queue: list[Request] = []

    # The queue

    def add(self, request: Request) -> None:
        """Let a request wait, at its place in the order; one that waits already stays there."""
        if request not in self._queue:
            insort(self._queue, request, key=lambda r: r.order)

    def remove(self, request: Request) -> None:
        """Let a request wait no more; nothing if it does not."""
        if request in self._queue:
            self._queue.remove(request)

    def remove_dead(self, tree: TreeCache) -> list[Row]:
        """Take out, and return, a tree's waiting rows whose nodes are gone."""
        dead = []
        for request in [request for request in self._queue if request.tree is tree]:
            for row in [row for row in request.waiting if not row.node.alive]:
                request.waiting.remove(row)
                dead.append(row)
            if request.labels is None and not request.waiting and not request.children:
                self.remove(request)
        return dead

    def clear(self) -> None:
        """Forget all that wait."""
        self._queue.clear()

    # One turn

    def plan(self) -> Plan:
        """What can be started or computed now. Answers requests that only read, and fails those that can never fit."""
        scheduler, lanes = self._scheduler, self._scheduler.lanes
        plan = Plan(self._max_batch_tokens)
        scheduler.pool.begin_admission()
        some_give_way = any(row.request.last for row in lanes.rows)
        try:
            for request in sorted(self._queue, key=lambda request: request.last):
                has_lane = self._has_lane(plan) or (some_give_way and not request.last)
                if plan.budget <= 0 and not has_lane:
                    break
                if request.labels is None and request.logits is not None and not has_lane:
                    continue
                try:
                    self._serve(request, plan)
                except NoRoomError as refusal:
                    scheduler.fail(request, refusal.error)
        except BlockedError:
            pass
        scheduler.answer(plan.answers)
        return plan

    def _has_lane(self, plan: Plan) -> bool:
        lanes = self._scheduler.lanes
        return len(lanes) + len(plan.starts) < lanes.max_rows

    def _serve(self, request: Request, plan: Plan) -> None:
        """Do what is next for one request.

        Raises:
            BlockedError: there is no room for it now.
            NoRoomError: there never will be.
        """
        scheduler, tree = self._scheduler, request.tree
        tree.used = scheduler.now
        if request.parent is None or not request.parent.alive:
            request.parent, replaced = tree.resolve(request.prefix)
            request.target = next(node for node in reversed(request.parent.path()) if node.ids)
            if replaced:
                scheduler.abort_dead_rows(tree)
            scheduler.pool.check_size(request)
        assert request.target is not None
        if not self._ready(request, request.target, plan):
            return
        if request.logits is None:
            request.logits, request.hidden = request.target.logits, request.target.hidden
        logits = request.logits
        assert logits is not None
        if request.labels is not None:
            plan.answers.append(request)
            return
        if request.children:
            self._make_rows(request)
        while request.waiting and (self._has_lane(plan) or (not request.last and scheduler.give_way())):
            row = request.waiting[0]
            source = logits
            if row.ids:
                if not self._ready(request, row.node, plan):
                    return
                assert row.node.logits is not None
                source = row.node.logits
            scheduler.pool.admit_row(request, plan.pieces)
            request.waiting.popleft()
            plan.starts.append((row, source))
        if not request.waiting:
            self.remove(request)

    def _ready(self, request: Request, target: Node, plan: Plan) -> bool:
        """Whether KV and logits up to `target` are there; if not, plan to compute what is missing."""
        path = target.path()
        for node in path:
            node.used = self._scheduler.now
        missing = next((at for at, node in enumerate(path) if node.num_missing), None)
        if missing is None:
            lacking = request.layers and not set(request.layers).issubset(target.hidden or ())
            if not lacking and (target.logits is not None or (target is request.target and request.logits is not None)):
                return True
            if target not in plan.claimed and plan.budget > 0:
                plan.claimed.add(target)
                plan.budget -= 1
                span = (target, len(target.ids) - 1, 1)
                plan.pieces.append(Piece(request.tree, path, [span], True, request.ahead))
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
        self._scheduler.pool.admit_prefix(request, total, taken, plan.pieces)
        plan.budget = left
        plan.claimed.update(node for node, _, _ in spans)
        plan.pieces.append(Piece(request.tree, path, spans, ahead=request.ahead))
        return False

    def _make_rows(self, request: Request) -> None:
        """Make a row, and its node, of each child; they wait for a lane."""
        tree, parent, sampling = request.tree, request.parent, request.sampling
        assert parent is not None and sampling is not None
        start = parent.start + len(parent.ids)
        room = self._context_tokens - start
        limit = min(sampling.max_new_tokens, room)
        table = self._rules.number(sampling.stop)
        writing = self._rules[table].begin(request.prefix)
        for key, seed in request.children:
            if key in tree.nodes:
                tree.drop([key])
                self._scheduler.abort_dead_rows(tree)
            node = tree.add(key, parent, (), start)
            row = Row(request, node, seed, sampling, limit, room < sampling.max_new_tokens, table, writing.copy())
            request.waiting.append(row)
        request.children = ()
