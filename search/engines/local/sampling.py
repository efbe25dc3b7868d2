"""Sampling by a counter: a token depends on its row's seed, its index and the logits, never on what else runs.

A uniform number comes from splitmix64 of (seed, index); the token is the inverse of the cumulative distribution, in two
levels: one pass over a row in float32 gives the mass of each block of ids, the uniform number falls into one block, and
only that block is looked at in float64. There is no generator state, so batch size, order and preemption cannot change
a result; and every sum over the vocabulary is a sum over blocks first, so neither can the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

BLOCK_TOKENS = 512
"""Ids of a block: near the square root of a large vocabulary, and more than all of a small one."""

_CACHED_ENTRIES, _DEVICE_ENTRIES = 2**17, 2**26
"""Entries worked on at a time, on a CPU (twice 0.5 MB in float32 stay in a core's own cache) and on another device."""

_BINS, _BINS_A_NAT = 4096, 64
"""Bins by how far, in nats, a token is below the most likely one; the last takes all that is further."""


class Drawn(NamedTuple):
    """The next token of each row.

    Attributes:
        ids: (num_rows,) tokens.
        logprobs: (num_rows,) their natural-log probabilities under the raw logits (temperature 1, no nucleus), to
            float32 precision; None where they were not asked for.
    """

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64] | None


class Kept(NamedTuple):
    """The nucleus of each row: the ids above a logit, and those equal to it up to an id.

    Attributes:
        least: (num_rows,) the lowest logit that is kept.
        last: (num_rows,) the last id kept among those equal to it.
    """

    least: Tensor
    last: Tensor

    @classmethod
    def everything(cls, logits: Tensor) -> Kept:
        """Nothing is left out."""
        num_rows, vocab = logits.shape
        least = torch.full((num_rows,), -torch.inf, dtype=logits.dtype, device=logits.device)
        return cls(least, torch.full((num_rows,), vocab, device=logits.device))


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
    *,
    logprobs: bool = False,
) -> Drawn:
    """The next token of each row.

    Args:
        logits: (num_rows, vocab) on any device, in any precision.
        temperature: (num_rows,); 0, or a number whose inverse is beyond float64, takes the largest logit, the lowest id
            among equals.
        top_p: (num_rows,) nucleus mass in (0, 1]: the fewest most likely tokens that reach it are kept, lower ids first
            among equals.
        u: (num_rows,) numbers in [0, 1).
        logprobs: whether the tokens' log-probabilities are wanted; free at temperature 1.

    Raises:
        FloatingPointError: a row has no valid distribution (NaN, or nothing but minus infinity).
    """
    tops = _block_maxima(logits)
    best = tops.amax(-1, keepdim=True)
    if not bool(torch.isfinite(best).all()):
        raise FloatingPointError("the model gave logits that are not finite")
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1.0 / temperature
    greedy = np.isinf(inverse)
    if greedy.all() and not logprobs:
        return Drawn(_first_best(logits, tops, best).cpu().numpy(), None)
    device = logits.device
    scale = torch.from_numpy(np.where(greedy, 1.0, inverse)).to(device)
    nucleus = (top_p < 1.0) & ~greedy
    kept = Kept.everything(logits) if nucleus.any() else None
    mass = torch.empty(tops.shape, dtype=torch.float64, device=device)
    raw = torch.empty_like(mass) if logprobs and bool((scale != 1.0).any() or kept is not None) else mass
    top = best.float()
    for rows, padded, weights in _work(logits):
        shifted = padded[:, : logits.shape[-1]]
        torch.sub(logits[rows], top[rows], out=shifted)
        if raw is not mass:
            raw[rows] = _block_sums(torch.exp(padded, out=weights))
        if bool((scale[rows] != 1.0).any()):
            # Bounded, so that it is finite in float32: past this no lesser logit has any mass.
            shifted.mul_(scale[rows, None].clamp(max=3.0e38).float())
        for at, row in enumerate(range(rows.start, rows.stop)):
            if kept is not None and nucleus[row]:
                _narrow(kept, row, logits[row], shifted[at], float(top_p[row]))
        mass[rows] = _block_sums(torch.exp(padded, out=weights))
    ids = _from_blocks(logits, best, scale, mass, kept, torch.from_numpy(u).to(device))
    if greedy.any():
        ids = torch.where(torch.from_numpy(greedy).to(device), _first_best(logits, tops, best), ids)
    if not logprobs:
        return Drawn(ids.cpu().numpy(), None)
    above = logits.gather(-1, ids[:, None]).double() - best.double()
    return Drawn(ids.cpu().numpy(), (above[:, 0] - raw.sum(-1).log()).cpu().numpy())


def _block_maxima(logits: Tensor) -> Tensor:
    """(num_rows, vocab) -> (num_rows, num_blocks), the last block possibly shorter."""
    whole = logits.shape[-1] // BLOCK_TOKENS * BLOCK_TOKENS
    maxima = []
    if whole:
        maxima.append(logits[:, :whole].reshape(len(logits), -1, BLOCK_TOKENS).amax(-1))
    if whole < logits.shape[-1]:
        maxima.append(logits[:, whole:].amax(-1, keepdim=True))
    return torch.cat(maxima, -1)


def _work(logits: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows at a time, with room for their exponents and weights.

    Both are (rows, num_blocks * BLOCK_TOKENS) in float32; the exponents are minus infinity past the vocabulary.
    """
    num_rows, vocab = logits.shape
    num_entries = -(-vocab // BLOCK_TOKENS) * BLOCK_TOKENS
    entries = _CACHED_ENTRIES if logits.device.type == "cpu" else _DEVICE_ENTRIES
    at_once = max(1, min(num_rows, entries // num_entries))
    exponents = torch.full((at_once, num_entries), -torch.inf, device=logits.device)
    weights = torch.empty_like(exponents)
    for first in range(0, num_rows, at_once):
        last = min(num_rows, first + at_once)
        yield slice(first, last), exponents[: last - first], weights[: last - first]


def _block_sums(weights: Tensor) -> Tensor:
    """(num_rows, num_blocks * BLOCK_TOKENS) -> (num_rows, num_blocks)."""
    return weights.reshape(*weights.shape[:-1], -1, BLOCK_TOKENS).sum(-1)


def _invert(mass: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Where numbers in [0, 1] fall among masses (num_rows, n): each one's index, and the share of its mass below it."""
    cumulative = mass.cumsum(-1)
    total = cumulative[:, -1:]
    # The product may round up to the total itself, past the last entry with any mass.
    point = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(cumulative, point, right=True)
    own = mass.gather(-1, found)
    below = cumulative.gather(-1, (found - 1).clamp(min=0)).where(found > 0, 0.0)
    return found[:, 0], ((point - below) / own)[:, 0]


def _from_blocks(logits: Tensor, best: Tensor, scale: Tensor, mass: Tensor, kept: Kept | None, u: Tensor) -> Tensor:
    """Each row's token: a block by the blocks' masses, then an id within it."""
    vocab = logits.shape[-1]
    block, share = _invert(mass, u)
    ids = block[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=logits.device)
    near = logits.gather(-1, ids.clamp(max=vocab - 1))
    allowed = ids < vocab
    if kept is not None:
        least = kept.least[:, None]
        allowed &= (near > least) | ((near == least) & (ids <= kept.last[:, None]))
    within, _ = _invert(((near.double() - best.double()) * scale[:, None]).exp().where(allowed, 0.0), share)
    return block * BLOCK_TOKENS + within


def _narrow(kept: Kept, row: int, logits: Tensor, shifted: Tensor, top_p: float) -> None:
    """Find one row's nucleus and take the rest out of `shifted`, (vocab,) scaled logits less their largest.

    A histogram finds the bin in which the mass reaches `top_p`; only that bin's tokens are sorted.
    """
    bins = shifted.mul(-_BINS_A_NAT).clamp_(max=_BINS - 1).int()
    histogram = torch.zeros(_BINS, dtype=torch.float64, device=logits.device)
    reached = histogram.index_add_(0, bins, shifted.double().exp_()).cumsum(0)
    wanted = top_p * float(reached[-1])
    last = int(torch.searchsorted(reached, wanted))
    ids = torch.nonzero(bins == last)[:, 0]
    ids = ids[torch.sort(logits[ids], descending=True, stable=True).indices]
    inner = shifted[ids].double().exp()
    before = inner.cumsum(0) - inner + (float(reached[last - 1]) if last else 0.0)
    ids = ids[: max(1, int((before < wanted).sum()))]
    kept.least[row], kept.last[row] = logits[ids[-1]], ids[-1]
    inside = shifted[ids]
    shifted.masked_fill_(bins >= last, -torch.inf)
    shifted[ids] = inside


def _first_best(logits: Tensor, tops: Tensor, best: Tensor) -> Tensor:
    """The lowest id of each row's largest logit: the first block that reaches it, then the first id there."""
    vocab = logits.shape[-1]
    block = _first(tops == best)
    ids = block[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=logits.device)
    near = logits.gather(-1, ids.clamp(max=vocab - 1)) == best
    # Past the vocabulary the last id is looked at again, which changes no first place.
    return block * BLOCK_TOKENS + _first(near)


def _first(found: Tensor) -> Tensor:
    """(num_rows, n) -> (num_rows,) place of the first True."""
    places = torch.arange(found.shape[-1], device=found.device)
    return places.where(found, found.shape[-1]).amin(-1)
