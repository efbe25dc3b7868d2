"""`ets bench sampling`: what it costs to draw a token for every row of a batch, against a plain form in float64.

The plain form is the textbook's: softmax, sort and cumulative sum over the whole vocabulary. Both draw from the same
logits with the same numbers, in turns in one process, on one thread. A time is the least CPU time seen, since what else
runs on a machine only adds to it; a speed-up is the median ratio of neighbours. Sizes are those of SmolLM2 (49,152) and
of Qwen2.5 (151,936), in bfloat16.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = {"64x152k": (64, 151_936), "16x49k": (16, 49_152)}


def run(repeats: int = 11, seed: int = 0) -> dict[str, Any]:
    """Measure sampling at temperature 1, with a nucleus, greedily, and with log-probabilities.

    Args:
        repeats: interleaved repeats of each comparison.
        seed: of the logits and of the uniform numbers.

    Returns:
        `figures`: milliseconds a batch (`ms_SIZE`; `_top_p` at 0.95; `_greedy`; `_logprobs` at temperature 0.7, where
        they need a pass of their own), and against the reference (`speedup_`).
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures: dict[str, float] = {}
        for name, (num_rows, vocab) in _SIZES.items():
            measured = _compare(num_rows, vocab, repeats, seed)
            figures.update({f"{key}_{name}": value for key, value in measured.items()})
    finally:
        torch.set_num_threads(before)
    return {"repeats": repeats, "seed": seed, "figures": figures}


def _compare(num_rows: int, vocab: int, repeats: int, seed: int) -> dict[str, float]:
    """The figures of one size."""
    import torch

    from search.engines.local.sampling import sample

    generator = torch.Generator().manual_seed(seed)
    # A few units wide, as a language model's logits are.
    logits = (3 * torch.randn((num_rows, vocab), generator=generator)).bfloat16()
    u = np.random.default_rng(seed).random(num_rows)
    ones = np.ones(num_rows)
    figures: dict[str, float] = {}
    for kind, temperature, mass in (("", 1.0, 1.0), ("_top_p", 1.0, 0.95), ("_greedy", 0.0, 1.0)):
        settings = (logits, temperature * ones, mass * ones, u)
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(_milliseconds(sample, *settings))
            theirs.append(_milliseconds(reference, *settings))
        figures[f"ms{kind}"] = min(ours)
        figures[f"speedup{kind}"] = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    warm = partial(sample, logprobs=True)
    figures["ms_logprobs"] = min(_milliseconds(warm, logits, 0.7 * ones, ones, u) for _ in range(repeats))
    return figures


def _milliseconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.process_time()
    work(*arguments)
    return 1e3 * (time.process_time() - start)


def reference(
    logits: Tensor, temperature: NDArray[np.float64], top_p: NDArray[np.float64], u: NDArray[np.float64]
) -> NDArray[np.int64]:
    """One level in float64: the former way, and what a vocabulary of one block must give. Arguments as there."""
    import torch

    wide = logits.double()
    best = wide.amax(-1, keepdim=True)
    greedy = temperature == 0.0
    scale = torch.from_numpy(1.0 / np.where(greedy, 1.0, temperature))
    mass = torch.softmax((wide - best) * scale[:, None], -1)
    if (top_p < 1.0).any():
        ordered, ids = torch.sort(mass, dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        kept = torch.where(before < torch.from_numpy(top_p)[:, None], ordered, 0.0)
        mass = torch.zeros_like(mass).scatter_(-1, ids, kept)
    cumulative = mass.cumsum(-1)
    point = torch.from_numpy(u)[:, None] * cumulative[:, -1:]
    drawn: NDArray[np.int64] = torch.searchsorted(cumulative, point, right=True)[:, 0].numpy()
    return np.where(greedy, wide.argmax(-1).numpy(), drawn)
