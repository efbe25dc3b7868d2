"""Cascade attention: shared prefixes attended once a tree, the rows' own suffixes in one batch, merged exactly.

For each row, softmax over (prefix, suffix) equals the two partial softmaxes weighted by their log-sum-exps. The prefix
part reads the tree's arena in place under a mask; nothing is copied a row. New tokens of prefixes (prefill) go
to the arena first and attend over a gathered copy of their own path, group by group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from search.engines.local.batch import ArenaBatch, Block, DecodePart, PrefillPart

PartialAttention = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Attention that also gives its log-sum-exp.

Takes q (batch, heads, num_queries, dim), k and v (batch, heads, num_keys, dim), an additive mask broadcast over
(batch, heads), and the scale; gives the output like q and the log-sum-exp (batch, heads, num_queries).
"""


def matmul_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The plain form, for any device."""
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale + mask
    lse = torch.logsumexp(scores, -1)
    weights = torch.softmax(scores, -1).to(v.dtype)
    return torch.matmul(weights, v), lse


def flash_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """PyTorch's CPU kernel. Private, so the self-check compares it; see `best_partial`."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, False, attn_mask=mask, scale=scale
    )
    return out, lse


def best_partial(device: torch.device, dtype: torch.dtype) -> PartialAttention:
    """The fastest form that gives the plain form's result here."""
    if device.type != "cpu":
        return matmul_attention
    generator = torch.Generator().manual_seed(0)
    q = torch.randn((2, 3, 5, 8), generator=generator).to(dtype)
    kv = torch.randn((2, 2, 1, 7, 8), generator=generator).to(dtype).expand(2, 2, 3, 7, 8)
    mask = torch.where(torch.rand((1, 1, 5, 7), generator=generator) < 0.5, 0.0, -1.0e30).to(dtype)
    try:
        fast = flash_attention(q, kv[0], kv[1], mask, 0.3)
    except (RuntimeError, AttributeError, TypeError):
        return matmul_attention
    wanted = matmul_attention(q, kv[0], kv[1], mask, 0.3)
    # The fully blocked query has an arbitrary output and a log-sum-exp near BLOCKED in both.
    seen = (mask == 0).any(-1).expand(2, 3, 5)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    same = all(
        torch.allclose(a[seen].float(), b[seen].float(), rtol=tolerance, atol=tolerance)
        for a, b in zip(fast, wanted, strict=True)
    )
    return flash_attention if same and bool((fast[1][~seen] < -1e20).all()) else matmul_attention


def attend(
    batch: ArenaBatch, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, partial: PartialAttention
) -> Tensor:
    """As `forward.TreeForward.attend`: writes the new KV to lanes and arenas; `partial`: see `best_partial`."""
    live = batch.num_lanes
    outputs = []
    if live:
        outputs.append(_decode(batch, layer, query[:, :live], key[:, :live], value[:, :live], scale, partial))
    for part in batch.prefill:
        _store(part, layer, key, value)
        outputs.extend(_prefill(part, block, layer, query, key.shape[0], scale) for block in part.blocks)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _decode(
    batch: ArenaBatch, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, partial: PartialAttention
) -> Tensor:
    """One token of each lane: (num_heads, live, dim) -> (live, num_heads, dim)."""
    live = batch.num_lanes
    kv_heads, dim = key.shape[0], query.shape[-1]
    lanes = batch.lanes_kv[:, layer, :live]
    lanes[0, :, :, batch.column] = key.transpose(0, 1)
    lanes[1, :, :, batch.column] = value.transpose(0, 1)
    seen = lanes[:, :, :, batch.first_column : batch.column + 1]
    grouped = query.view(kv_heads, -1, live, dim)
    own, own_lse = partial(grouped.permute(2, 0, 1, 3), seen[0], seen[1], batch.lanes_mask, scale)

    if batch.order is not None:
        grouped = grouped.index_select(2, batch.order[0])
    parts = []
    first = 0
    for part in batch.decode:
        last = first + len(part.lanes)
        parts.append(_shared(part, grouped[:, :, first:last], part.arena.kv[:, layer], scale, partial))
        first = last
    shared, shared_lse = _row_by_row(parts)
    if batch.order is not None:
        shared = shared.index_select(2, batch.order[1])
        shared_lse = shared_lse.index_select(2, batch.order[1])
    weight = torch.sigmoid(shared_lse.permute(2, 0, 1) - own_lse).to(own.dtype)
    merged = torch.lerp(own, shared.permute(2, 0, 1, 3), weight[..., None])
    return merged.reshape(live, -1, dim)


def _row_by_row(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Partial results over consecutive rows as one: outputs (.., .., num_rows, dim) and their log-sum-exps."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2)


def _shared(
    part: DecodePart, query: Tensor, kv: Tensor, scale: float, partial: PartialAttention
) -> tuple[Tensor, Tensor]:
    """A tree's rows over its arena.

    Heads that share keys become further queries: each key is read once.

    Args:
        part: the tree's part of the batch.
        query: (num_kv_heads, group, num_rows, dim).
        kv: (2, num_kv_heads, num_slots, dim).
        scale: of the scores.
        partial: see `best_partial`.

    Returns:
        Output like the query, and the log-sum-exp (num_kv_heads, group, num_rows).
    """
    kv_heads, group, _, dim = query.shape
    partials = []
    for band, mask in part.calls(group):
        asked = query[:, :, band.first : band.last].reshape(1, kv_heads, -1, dim)
        seen = kv[:, None, :, band.low : band.high]
        out, lse = partial(asked, seen[0], seen[1], mask, scale)
        partials.append((out.view(kv_heads, group, -1, dim), lse.view(kv_heads, group, -1)))
    base = partials.pop() if part.trunk else None
    out, lse = _row_by_row(partials)
    if base is None:
        return out, lse
    weight = torch.sigmoid(base[1] - lse).to(out.dtype)
    return torch.lerp(out, base[0], weight[..., None]), torch.logaddexp(base[1], lse)


def _store(part: PrefillPart, layer: int, key: Tensor, value: Tensor) -> None:
    end = part.start + part.last - part.first
    part.arena.kv[0, layer, :, part.start : end] = key[:, part.first : part.last]
    part.arena.kv[1, layer, :, part.start : end] = value[:, part.first : part.last]


def _prefill(part: PrefillPart, block: Block, layer: int, query: Tensor, kv_heads: int, scale: float) -> Tensor:
    """New tokens of prefixes: (num_heads, all tokens, dim) -> (block's tokens, num_heads, dim)."""
    num_groups, num_keys = block.slots.shape
    q = query[:, block.first : block.first + block.num_tokens]
    if block.queries is not None:
        q = q.index_select(1, block.queries)
    num_heads, _, dim = q.shape
    num_queries = q.shape[1] // num_groups
    q = q.view(kv_heads, num_heads // kv_heads, num_groups, num_queries, dim).permute(2, 0, 1, 3, 4)
    kv = part.arena.kv[:, layer].index_select(2, block.slots.view(-1))
    kv = kv.view(2, kv_heads, num_groups, num_keys, dim).transpose(1, 2)
    repeat = num_heads // kv_heads
    # Heads that share keys become further queries: nothing is repeated in memory but the mask.
    out = torch.nn.functional.scaled_dot_product_attention(
        q.reshape(num_groups, kv_heads, repeat * num_queries, dim),
        kv[0],
        kv[1],
        attn_mask=block.mask if repeat == 1 else block.mask.repeat(1, 1, repeat, 1),
        scale=scale,
    )
    out = out.view(num_groups, kv_heads, repeat, num_queries, dim).permute(0, 3, 1, 2, 4)
    flat = out.reshape(num_groups * num_queries, num_heads, dim)
    return flat if block.unpad is None else flat.index_select(0, block.unpad)
