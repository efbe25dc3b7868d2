"""A turn's forward as one launch: CUDA graphs over the pool, for turns of a few rounded sizes.

A model of 28 layers is some hundred kernels, and launching them from Python takes several times as long as a GPU takes
to run them for a few rows. So a turn is padded to rounded sizes; the first of its size runs kernel by kernel, which
also compiles what has to be compiled, the second is recorded, and every further one is a single launch. All of a turn
that changes lies in one block of integers on the device. Prefix tokens are in it like any others, so turns that begin
steps are launched no differently from those that only go on.

Turns of more than `MOST_TOKENS` tokens run kernel by kernel: there the launches are not what takes the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from search.engines.local.batch import Batch
from search.engines.local.forward import PagedForward
from search.engines.local.paged import PagedBatch, PagedStore, Sizes, SlotPool
from search.errors import first_line

_log = logging.getLogger(__name__)

MOST_TOKENS = 512
"""Most tokens of a turn that is recorded."""
_LEAST_TOKENS, _LEAST_JOBS, _LEAST_PARTS = 8, 16, 16
_STEPS_A_DOUBLING = 4
_MOST_NUMBERS = 2**21
"""Integers of the block that recorded turns read: 8 MB, some thousand slots for each of their queries."""


class Recording(NamedTuple):
    """A forward that can be run again over what then stands in the block.

    Attributes:
        replay: runs it.
        logits: (num_tokens, vocab) what it computes.
        hidden: (num_tokens, dim) hidden states by layer.
    """

    replay: Callable[[], None]
    logits: Tensor
    hidden: dict[int, Tensor]


Recorder = Callable[[Callable[[], tuple[Tensor, dict[int, Tensor]]]], Recording]
"""Records what one call of a function launches; whatever that reads must stay where it is."""


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory, as they never run side by side.

    The pool is gone with the last of them, so a recorder serves those of one time.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Callable[[], tuple[Tensor, dict[int, Tensor]]]) -> Recording:
        """As in `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: an embedder, another engine's loading.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits, hidden = run()
        self._pool = graph.pool()
        return Recording(graph.replay, logits, hidden)


class GraphedForward:
    """A forward over a pool whose turns are recorded once and launched as a whole; implements `forward.Forward`."""

    def __init__(self, plain: PagedForward, new_recorder: Callable[[], Recorder]) -> None:
        """Record turns of `plain`, which passed its self-check; a new recorder wherever all begins anew."""
        self._plain, self._new_recorder = plain, new_recorder
        self._record = new_recorder()
        self.name, self.shape, self.tap = plain.name, plain.shape, plain.tap
        self.hidden: dict[int, Tensor] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._recordings: dict[tuple[int, ...], Recording] = {}
        self._pool: SlotPool | None = None
        self._generation = -1
        self._block = torch.zeros(0, dtype=torch.int32)
        self._logits = torch.zeros((0, 0))
        self.num_replayed = 0
        self.refusal = ""

    def store(self, max_rows: int, max_kv_tokens: int | None) -> PagedStore:
        """A pool whose turns come in rounded sizes."""
        store = self._plain.store(max_rows, max_kv_tokens)
        store.round_sizes = rounded
        return store

    def __call__(self, batch: Batch) -> Tensor:
        """As in `forward.Forward`; the logits are overwritten by the next call."""
        assert isinstance(batch, PagedBatch)
        logits = self._launched_whole(batch) if batch.sizes is not None and not self.refusal else None
        if logits is None:
            logits, self.hidden = self._run(batch)
        num_reads = batch.num_reads
        self.hidden = {layer: states[:num_reads] for layer, states in self.hidden.items()}
        return logits[:num_reads]

    def _run(self, batch: PagedBatch) -> tuple[Tensor, dict[int, Tensor]]:
        logits = self._plain(batch)
        return logits, self._plain.hidden

    def _launched_whole(self, batch: PagedBatch) -> Tensor | None:
        """The logits by a recording; None: this turn has to run kernel by kernel."""
        assert batch.sizes is not None
        if batch.pool is not self._pool or batch.pool.generation != self._generation:
            # What was recorded reads KV that lies elsewhere now.
            self._pool, self._generation = batch.pool, batch.pool.generation
            self._recordings.clear()
            self._record = self._new_recorder()
        if len(batch.block) > _MOST_NUMBERS:
            return None
        # Which layers' states are kept only ever grows.
        key = (*batch.sizes, len(self.tap.last))
        if key not in self._seen:
            self._seen.add(key)
            return None
        if len(self._block) == 0:
            self._block = torch.zeros(_MOST_NUMBERS, dtype=torch.int32, device=batch.block.device)
        self._block[: len(batch.block)].copy_(batch.block)
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recorded(batch)
            if recording is None:
                return None
            self._recordings[key] = recording
        recording.replay()
        self.num_replayed += 1
        self.hidden = recording.hidden
        return recording.logits

    def _recorded(self, batch: PagedBatch) -> Recording | None:
        """Record a turn of this size; None: it cannot be, which is said once."""

        def run() -> tuple[Tensor, dict[int, Tensor]]:
            logits, hidden = self._run(batch.over(self._block))
            # All recordings write their logits to one place: a large vocabulary's would fill the memory.
            kept = self._logits[: len(logits)].copy_(logits)
            return kept, hidden

        if len(self._logits) == 0:
            logits, _ = self._run(batch)
            self._logits = logits.new_zeros((MOST_TOKENS, logits.shape[1]))
        try:
            return self._record(run)
        except Exception as error:  # what a model's own code does under capture is not to be listed
            self.refusal = first_line(error)
            _log.warning(
                "its turns cannot be recorded as CUDA graphs; they run kernel by kernel, which is slower (%s)",
                self.refusal,
            )
            return None


def rounded(sizes: Sizes) -> Sizes | None:
    """The sizes that a turn is padded to; None: it is too large to be recorded."""
    if sizes.num_tokens > MOST_TOKENS:
        return None
    return Sizes(
        _up(sizes.num_tokens, _LEAST_TOKENS), _up(sizes.num_jobs, _LEAST_JOBS), _up(sizes.most_parts, _LEAST_PARTS, 1)
    )


def _up(number: int, least: int, steps: int = _STEPS_A_DOUBLING) -> int:
    """The next of `least`, and from there `steps` equal steps to each doubling."""
    if number <= least:
        return least
    doubling = least << ((number - 1) // least).bit_length() - 1
    step = max(1, doubling // steps)
    return -(-number // step) * step
