"""Rows from their first token to their last: sampled, advanced, and ended.

It knows lanes, trees and stop rules; who is told of a step that ended is the scheduler's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from search.engines.local.cache import TreeCache
from search.engines.local.lanes import Lanes
from search.engines.local.rows import Row
from search.engines.local.sampling import sample, uniforms
from search.engines.stops import StopRules
from search.types import FinishReason

_REORDER_ROWS = 24
"""When so many rows of a tree start together, its arena is put in order first."""


class Ended(NamedTuple):
    """A row that wrote its last token, and has left its lane.

    Attributes:
        row: the row.
        ids: all tokens of its step.
        finish: why it ended.
    """

    row: Row
    ids: tuple[int, ...]
    finish: FinishReason


class Decoding:
    """Advances the rows in the lanes."""

    def __init__(self, lanes: Lanes, rules: StopRules) -> None:
        """Advance the rows of `lanes`; `rules` says by their numbers where steps end."""
        self._lanes, self._rules = lanes, rules

    def start(self, starts: list[tuple[Row, Tensor]]) -> list[Ended]:
        """Sample the first token of new rows (the next of preempted ones) and let them join the lanes.

        Args:
            starts: each row with the logits of its next token; put in the order in which they join.

        Returns:
            Those that ended with that token, and never joined.
        """
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
        kept = any(row.sampling.logprobs for row in rows)
        drawn = sample(torch.stack([logits for _, logits in starts]), temperature, top_p, u, logprobs=kept)
        ended = []
        for at, row in enumerate(rows):
            row.request.tree.num_sampled += 1
            if row.request.ahead is not None:
                row.request.ahead.sampled_tokens += 1
            row.ids = (*row.ids, int(drawn.ids[at]))
            if row.sampling.logprobs and drawn.logprobs is not None:
                row.logprobs = (*row.logprobs, float(drawn.logprobs[at]))
            finish = self._finish_reason(row, row.ids)
            if finish is not None:
                ended.append(Ended(row, row.ids, finish))
                continue
            self._lanes.join(row)
            row.request.tree.add_row(row)
        return ended

    def advance(self, logits: Tensor, trees: Collection[TreeCache], now: int) -> list[Ended]:
        """Book the rows' tokens, sample the next ones, and take out the rows that are done.

        Args:
            logits: (num_rows, vocab) after each row's newest token.
            trees: all trees, those of the rows among them.
            now: number of the turn.
        """
        lanes = self._lanes
        live = len(lanes)
        for tree in trees:
            if num := len(tree.rows):
                tree.num_computed += num
                tree.num_sampled += num
                for mark in [row.request.ahead for row in tree.rows if row.request.ahead is not None]:
                    mark.computed_tokens += 1
                    mark.sampled_tokens += 1
                tree.num_held += num
                tree.num_peak = max(tree.num_peak, tree.num_held)
                tree.used = now
        u = uniforms(lanes.seeds[:live], lanes.count[:live])
        kept = bool(lanes.keeps[:live].any())
        drawn = sample(logits, lanes.temperature[:live], lanes.top_p[:live], u, logprobs=kept)
        lanes.append(drawn.ids, drawn.logprobs)
        done = (lanes.count[:live] >= lanes.limit[:live]) | self._rules.maybe[lanes.table[:live], drawn.ids]
        ended = []
        for row in [lanes.rows[lane] for lane in np.flatnonzero(done)]:
            ids = lanes.ids(row.lane)
            finish = self._finish_reason(row, ids)
            if finish is not None:
                lanes.take_tokens(row)
                lanes.commit(row)
                self.remove(row, held=False)
                ended.append(Ended(row, ids, finish))
        return ended

    def remove(self, row: Row, held: bool = True) -> None:
        """Take a row out of lanes and masks; `held`: its suffix is still counted."""
        if held:
            row.request.tree.num_held -= self._lanes.num_suffix(row.lane)
        self._lanes.leave(row)
        row.request.tree.remove_row(row)

    def _finish_reason(self, row: Row, ids: tuple[int, ...]) -> FinishReason | None:
        finish = self._rules[row.table].finish(row.writing, ids, row.sampling)
        if finish is not None:
            return finish
        if len(ids) >= row.limit:
            return FinishReason.CONTEXT if row.by_context else FinishReason.LENGTH
        return None
