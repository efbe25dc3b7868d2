"""Whether the engine computes what the model's own code computes, found out at load, on the model itself.

Shapes are probed, never inferred from the configuration; then a small random tree goes through the engine's own
machinery and every step of it is compared with the model's plain forward over the whole path.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from search.engines.local.batch import Batch
from search.engines.local.forward import CascadeForward, DenseForward, Forward, RefusedError, attention_of
from search.engines.local.rows import Result
from search.engines.local.scheduler import Scheduler
from search.engines.local.stops import TokenBytes
from search.errors import ConfigError
from search.types import Generation, Prefix, Sampling, Segment


def choose_forward(network: Any, device: torch.device, dtype: torch.dtype, context_tokens: int, name: str) -> Forward:
    """The fastest forward that is exact for a model; warns once where that is the slow one.

    Raises:
        ConfigError: none is.
    """
    kind = type(network).__name__
    reason = ""
    cascade: CascadeForward | None = None
    try:
        cascade = CascadeForward(network, device, dtype, context_tokens)
        _compare(cascade, network, device, dtype, context_tokens)
        return cascade
    except RefusedError as refusal:
        reason = str(refusal)
    if cascade is not None:
        cascade.undo()
    try:
        dense = DenseForward(network, device)
        _compare(dense, network, device, dtype, context_tokens)
    except RefusedError as refusal:
        raise ConfigError(f"model {name!r}: {kind} is not supported: {reason}; {refusal}") from None
    warnings.warn(
        f"{kind}: {reason}; it runs without shared attention, exact but several times slower",
        RuntimeWarning,
        stacklevel=4,
    )
    return dense


class _Recorder:
    """Runs batches and keeps the logits by (position, token)."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.name, self.shape = forward.name, forward.shape
        self.hidden = forward.hidden
        self.seen: dict[tuple[int, int], list[Tensor]] = {}

    def __call__(self, batch: Batch) -> Tensor:
        logits = self._forward(batch)
        self.hidden = self._forward.hidden
        for at, row in zip(batch.reads.tolist(), logits, strict=True):
            key = (int(batch.positions[at]), int(batch.ids[at]))
            self.seen.setdefault(key, []).append(row.float().clone())
        return logits


def _compare(forward: Forward, network: Any, device: torch.device, dtype: torch.dtype, context_tokens: int) -> None:
    """Compare a random tree of two levels with the plain forward.

    Raises:
        RefusedError: the logits differ.
    """
    vocab = int(network.get_input_embeddings().weight.shape[0])
    recorder = _Recorder(forward)
    scheduler = Scheduler(
        recorder,
        device=device,
        dtype=dtype,
        context_tokens=context_tokens,
        vocab_size=vocab,
        table=TokenBytes.without_text(vocab),
        eos_ids=frozenset(),
        max_kv_tokens=None,
        max_rows=8,
        max_batch_tokens=6,
    )
    results: list[Result] = []
    # Hot, so that the tokens are as good as random.
    sampling = Sampling(temperature=4.0, max_new_tokens=4, stop=())
    random = torch.Generator().manual_seed(1)
    root, extra = (tuple(torch.randint(vocab, (n,), generator=random).tolist()) for n in (7, 3))

    def run(path: tuple[Segment, ...], **what: Any) -> None:
        scheduler.submit(Prefix("check", path), results.append, arrived=0.0, **what)
        while scheduler.turn():
            pass

    with torch.inference_mode():
        top = Segment(0, root)
        run((top,), children=((1, 11), (2, 12), (3, 13)), sampling=sampling)
        steps = {step.key: step.ids for step in results if isinstance(step, Generation)}
        scheduler.release("check", [1])
        middle = Segment(2, steps[2])
        run((top, middle), children=((4, 14), (5, 15)), sampling=sampling)
        run((top, middle, Segment(6, extra)), labels=(0,))
        steps |= {step.key: step.ids for step in results if isinstance(step, Generation)}
        paths = [(root, steps[1]), (root, steps[3]), (root, steps[2], steps[4]), (root, steps[2], steps[5])]
        # A written step's last token has no logits yet; a scored segment's last one has.
        wanted = [(sum(path, ()), len(root) - 1, 1) for path in paths]
        wanted.append((root + steps[2] + extra, len(root + steps[2] + extra) - 1, 0))
        with attention_of(network, "eager"):
            for ids, first, pending in wanted:
                _compare_path(network, device, dtype, ids, range(first, len(ids) - pending), recorder)


def _compare_path(
    network: Any,
    device: torch.device,
    dtype: torch.dtype,
    ids: tuple[int, ...],
    at: range,
    recorder: _Recorder,
) -> None:
    plain = network(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float()
    scale = max(1.0, float(plain.abs().max()))
    tolerance = (2e-4 if dtype == torch.float32 else 1e-1) * scale
    for position in at:
        found = recorder.seen.get((position, ids[position]), [])
        error = min((float((logits - plain[position]).abs().max()) for logits in found), default=float("inf"))
        if not error <= tolerance:
            raise RefusedError(f"its logits on a tree differ from its own by {error:.2g} at token {position}")
