"""Sampling by a counter: a token depends on its row's seed, its index and the logits, never on what else runs.

A uniform number comes from splitmix64 of (seed, index); the token is the inverse of the cumulative distribution, in two
levels: one pass over a row in float32 gives the mass of each block of ids, the uniform number falls into one block, and
only that block is looked at in float64, with a second number that is a hash of the first. What is left of the first
would do in exact arithmetic; but in a block of a thousandth of the mass it carries the logits' rounding a thousandfold,
and with it what else is in the batch: of a small model's tokens one in a thousand was then another one. There is no
generator state, so batch size, order and preemption cannot change
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


def _again(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """A second number in [0, 1) for each, as good as independent of it."""
    state = _mix((u * 2.0**53).astype(np.uint64) + _GOLDEN)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(
    logits: Tensor,
    temperature: NDArray[np.float64],
    top_p: NDArray[np.float64],
    u: NDArray[np.float64],
    *,
    within: NDArray[np.float64] | None = None,
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
        within: (num_rows,) numbers in [0, 1) for the second level, where there is one; by default made of `u`.
        logprobs: whether the tokens' log-probabilities are wanted; free at temperature 1.

    Raises:
        FloatingPointError: a row has no valid distribution (NaN, or nothing but minus infinity).
    """
    tops = _block_maxima(logits)
    best = tops.amax(-1, keepdim=True)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1.0 / temperature
    greedy = np.isinf(inverse)
    if greedy.all() and not logprobs:
        return _drawn(best, _first_best(logits, tops, best), None)
    scales = np.where(greedy, 1.0, inverse)
    nucleus = (top_p < 1.0) & ~greedy
    # One copy to the device, and one back: each waits for all that was launched before it.
    second = u if tops.shape[-1] == 1 else _again(u) if within is None else within
    numbers = torch.from_numpy(np.stack([u, scales, top_p, greedy, second])).to(logits.device)
    scale = numbers[1]
    kept = Kept.everything(logits) if nucleus.any() else None
    mass = torch.empty(tops.shape, dtype=torch.float64, device=logits.device)
    raw = torch.empty_like(mass) if logprobs and bool((scales != 1.0).any() or kept is not None) else mass
    top = best.float()
    for rows, padded, weights in _work(logits):
        shifted = padded[:, : logits.shape[-1]]
        torch.sub(logits[rows], top[rows], out=shifted)
        if raw is not mass:
            raw[rows] = _block_sums(torch.exp(padded, out=weights))
        if (scales[rows] != 1.0).any():
            # Bounded, so that it is finite in float32: past this no lesser logit has any mass.
            shifted.mul_(scale[rows, None].clamp(max=3.0e38).float())
        if kept is not None and nucleus[rows].any():
            which = torch.from_numpy(np.flatnonzero(nucleus[rows])).to(logits.device)
            inside = shifted.index_select(0, which)
            _narrow(kept, which + rows.start, logits, inside, numbers[2])
            shifted.index_copy_(0, which, inside)
        mass[rows] = _block_sums(torch.exp(padded, out=weights))
    if greedy.all():
        ids = _first_best(logits, tops, best)
    else:
        ids = _from_blocks(logits, best, scale, mass, kept, numbers[0], numbers[4])
        if greedy.any():
            ids = torch.where(numbers[3] > 0, _first_best(logits, tops, best), ids)
    if not logprobs:
        return _drawn(best, ids, None)
    above = logits.gather(-1, ids.clamp(max=logits.shape[-1] - 1)[:, None]).double() - best.double()
    return _drawn(best, ids, above[:, 0] - raw.sum(-1).log())


def _drawn(best: Tensor, ids: Tensor, logprobs: Tensor | None) -> Drawn:
    """What was drawn, fetched by one copy; `best`: (num_rows, 1) the largest logits.

    Raises:
        FloatingPointError: one of them is not finite.
    """
    columns = [torch.isfinite(best[:, 0]), ids] + ([] if logprobs is None else [logprobs])
    # An id is far below 2**53, so that float64 holds it.
    found = torch.stack([column.double() for column in columns]).cpu().numpy()
    if not found[0].all():
        raise FloatingPointError("the model gave logits that are not finite")
    return Drawn(found[1].astype(np.int64), None if logprobs is None else found[2])


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


def _invert(mass: Tensor, u: Tensor) -> Tensor:
    """Where numbers in [0, 1] fall among masses (num_rows, n): each one's index."""
    cumulative = mass.cumsum(-1)
    total = cumulative[:, -1:]
    # The product may round up to the total itself, past the last entry with any mass.
    point = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # Past the end only where the masses are no numbers, which is said in the end.
    return torch.searchsorted(cumulative, point, right=True).clamp_(max=mass.shape[-1] - 1)[:, 0]


def _from_blocks(
    logits: Tensor, best: Tensor, scale: Tensor, mass: Tensor, kept: Kept | None, u: Tensor, second: Tensor
) -> Tensor:
    """Each row's token: a block by the blocks' masses, then an id within it."""
    vocab = logits.shape[-1]
    block = _invert(mass, u)
    ids = block[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=logits.device)
    near = logits.gather(-1, ids.clamp(max=vocab - 1))
    allowed = ids < vocab
    if kept is not None:
        least = kept.least[:, None]
        allowed &= (near > least) | ((near == least) & (ids <= kept.last[:, None]))
    own = ((near.double() - best.double()) * scale[:, None]).exp().where(allowed, 0.0)
    return block * BLOCK_TOKENS + _invert(own, second)


def _narrow(kept: Kept, rows: Tensor, logits: Tensor, shifted: Tensor, top_p: Tensor) -> None:
    """Find the nuclei of some rows; take the rest out of `shifted`, (num, vocab) their scaled logits less the largest.

    A histogram finds the bin in which a row's mass reaches its `top_p`; only those bins' tokens are sorted. As many
    operations for any number of rows, and a row's nucleus does not depend on the others.
    """
    num, vocab = shifted.shape
    number = torch.arange(num, device=logits.device)
    # Clamped after the conversion too: what is no number becomes any.
    bins = shifted.mul(-_BINS_A_NAT).clamp_(max=_BINS - 1).int().clamp_(0, _BINS - 1)
    histogram = torch.zeros((num, _BINS), dtype=torch.float64, device=logits.device)
    flat = (bins + (number * _BINS)[:, None]).view(-1)
    histogram.view(-1).index_add_(0, flat, shifted.double().exp_().view(-1))
    reached = histogram.cumsum(-1)
    wanted = top_p.index_select(0, rows)[:, None] * reached[:, -1:]
    # Of a row of NaN all is in the first bin.
    last = torch.searchsorted(reached, wanted).where(torch.isfinite(wanted), 0)
    below = reached.gather(-1, (last - 1).clamp(min=0)).where(last > 0, 0.0)
    # The tokens of those bins, row by row, the likely ones first, lower ids first among equals.
    row, ids = torch.nonzero(bins == last, as_tuple=True)
    order = torch.sort(logits[rows[row], ids], descending=True, stable=True).indices
    order = order[torch.sort(row[order], stable=True).indices]
    row, ids = row[order], ids[order]
    count = torch.bincount(row, minlength=num)
    place = torch.arange(len(row), device=logits.device) - (count.cumsum(0) - count)[row]
    inner = shifted.new_zeros((num, min(vocab, len(row))), dtype=torch.float64)
    inner[row, place] = shifted[row, ids].double().exp()
    before = inner.cumsum(-1) - inner + below
    number_kept = (before < wanted).sum(-1).minimum(count).clamp_(min=1)
    inside = place < number_kept[row]
    # The end of each nucleus: the place of its last token in the list.
    end = (count.cumsum(0) - count + number_kept - 1).clamp_(max=len(row) - 1)
    kept.least[rows], kept.last[rows] = logits[rows, ids[end]], ids[end]
    values = shifted[row, ids].where(inside, -torch.inf)
    shifted.masked_fill_(bins >= last, -torch.inf)
    shifted[row, ids] = values


def _first_best(logits: Tensor, tops: Tensor, best: Tensor) -> Tensor:
    """The lowest id of each row's largest logit: the first block that reaches it, then the first id there."""
    vocab = logits.shape[-1]
    block = _first(tops == best)
    ids = block[:, None] * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=logits.device)
    near = logits.gather(-1, ids.clamp(max=vocab - 1)) == best
    # Past the vocabulary the last id is looked at again, which changes no first place.
    return block * BLOCK_TOKENS + _first(near)


def _first(hits: Tensor) -> Tensor:
    """(num_rows, n) -> (num_rows,) place of the first True."""
    places = torch.arange(hits.shape[-1], device=hits.device)
    return places.where(hits, hits.shape[-1]).amin(-1)
