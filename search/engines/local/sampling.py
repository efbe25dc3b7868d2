"""Sampling by a counter: a token depends on its row's seed, its index and the logits, never on what else runs.

A uniform number comes from splitmix64 of (seed, index); the token is the inverse of the cumulative distribution in
float64. There is no generator state, so batch size, order and preemption cannot change a result.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


def uniforms(seeds: NDArray[np.uint64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, token index).

    Args:
        seeds: (num_rows,) 64-bit seeds.
        index: (num_rows,) how many tokens of the step were written before.
    """
    # Seeds are mixed first so that neighbouring seeds do not give shifted copies of one stream.
    state = _mix(seeds + _GOLDEN) + (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(
    logits: Tensor,
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    u: NDArray[np.float64],
) -> NDArray[np.int64]:
    """The next token of each row.

    Args:
        logits: (num_rows, vocab) on any device.
        temperature: (num_rows,); 0, or a number whose inverse is beyond float64, takes the largest logit, the lowest id
            among equals.
        top_p: (num_rows,) nucleus mass in (0, 1].
        u: (num_rows,) numbers in [0, 1).

    Raises:
        FloatingPointError: a row has no valid distribution (NaN, or nothing but minus infinity).
    """
    wide = logits.double()
    best = wide.amax(-1, keepdim=True)
    if not bool(torch.isfinite(best).all()):
        raise FloatingPointError("the model gave logits that are not finite")
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1.0 / temperature
    greedy = np.isinf(inverse)
    if greedy.all():
        return _first_best(wide, best)
    device = wide.device
    scale = torch.from_numpy(np.where(greedy, 1.0, inverse)).to(device)
    mass = torch.softmax((wide - best) * scale[:, None], -1)
    if (top_p < 1.0).any():
        mass = _nucleus(mass, torch.from_numpy(top_p).to(device))
    cumulative = mass.cumsum(-1)
    total = cumulative[:, -1:]
    point = torch.from_numpy(u).to(device)[:, None] * total
    # u < 1, but the product may round up to the total itself, past the last token with any mass.
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    drawn: NDArray[np.int64] = torch.searchsorted(cumulative, point, right=True)[:, 0].cpu().numpy()
    if greedy.any():
        drawn = np.where(greedy, _first_best(wide, best), drawn)
    return drawn


def _first_best(wide: Tensor, best: Tensor) -> NDArray[np.int64]:
    ids = torch.arange(wide.shape[-1], device=wide.device)
    first = torch.where(wide == best, ids, wide.shape[-1]).amin(-1)
    found: NDArray[np.int64] = first.cpu().numpy()
    return found


def _nucleus(mass: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the fewest most likely tokens whose mass reaches `top_p` (ties: lower ids first)."""
    ordered, ids = torch.sort(mass, dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p[:, None], ordered, 0.0)
    return torch.zeros_like(mass).scatter_(-1, ids, kept)
