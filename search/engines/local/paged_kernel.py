"""Attention by a turn's plan on a GPU: two Triton kernels a layer, one over the jobs and one that merges their results.

Why Triton: it comes with every CUDA build of PyTorch for Linux, so nothing is to be installed. What PyTorch has itself
does not fit. `varlen_attn` with a block table reads whole pages of one sequence, where a tree's nodes end at any token,
and reads a shared prefix again for every row; FlexAttention makes and compiles a block mask for what changes each turn;
flash-attn and FlashInfer are wheels for one PyTorch and one CUDA each.

All is computed in float32 (as TF32 products where the model's own numbers have fewer digits): reading the cache is what
takes the time, and the interpreter, in which the tests run these kernels, multiplies no bfloat16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from search.engines.local.paged_attention import Jobs

_KEYS = 32
"""Keys of one matrix product: small enough for the shared memory of any GPU with head dimensions up to 256."""
_PARTS = 16
"""Partial results merged at a time."""


@triton.jit
def _attend(
    query,
    key,
    value,
    slots,
    first,
    lengths,
    queries,
    limits,
    out,
    lse,
    scale,
    query_token,
    query_head,
    slot_size,
    group: tl.constexpr,
    dim: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
    num_keys: tl.constexpr,
    padded: tl.constexpr,
    precision: tl.constexpr,
):
    """One job for the heads that share one key: `rows` rows, query by query and head by head."""
    job = tl.program_id(0)
    kv_head = tl.program_id(1)
    num_heads = tl.num_programs(1) * group
    row = tl.arange(0, rows)
    place = row // group
    head = kv_head * group + row % group
    asked = tl.load(queries + job * width + place, mask=place < width, other=-1)
    limit = tl.load(limits + job * width + place, mask=place < width, other=0)
    used = asked >= 0
    d = tl.arange(0, padded)
    inner = d < dim
    q = tl.load(
        query + asked[:, None] * query_token + head[:, None] * query_head + d[None, :],
        mask=used[:, None] & inner[None, :],
        other=0.0,
    ).to(tl.float32)
    begin = tl.load(first + job)
    num = tl.load(lengths + job)
    best = tl.full([rows], -1.0e30, tl.float32)
    total = tl.zeros([rows], tl.float32)
    sums = tl.zeros([rows, padded], tl.float32)
    for at in range(0, num, num_keys):
        n = at + tl.arange(0, num_keys)
        slot = tl.load(slots + begin + n, mask=n < num, other=0).to(tl.int64)
        where = slot[:, None] * slot_size + kv_head * dim + d[None, :]
        there = (n < num)[:, None] & inner[None, :]
        k = tl.load(key + where, mask=there, other=0.0).to(tl.float32)
        v = tl.load(value + where, mask=there, other=0.0).to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale
        # A query sees the first keys of a job: once its first block has one it sees, `best` is a real score.
        scores = tl.where(n[None, :] < limit[:, None], scores, -1.0e30)
        higher = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(best - higher)
        total = total * shrink + tl.sum(weights, 1)
        sums = sums * shrink[:, None] + tl.dot(weights, v, input_precision=precision)
        best = higher
    result = (job * width + place).to(tl.int64) * num_heads + head
    tl.store(out + result[:, None] * dim + d[None, :], sums / total[:, None], mask=used[:, None] & inner[None, :])
    tl.store(lse + result, best + tl.log(total), mask=used)


@triton.jit(do_not_specialize=["most"])
def _merge(
    out,
    lse,
    parts,
    merged,
    most,
    dim: tl.constexpr,
    at_once: tl.constexpr,
    padded: tl.constexpr,
):
    """One query and head: its partial results, weighted by their log-sum-exps."""
    asked = tl.program_id(0)
    head = tl.program_id(1)
    num_heads = tl.num_programs(1)
    d = tl.arange(0, padded)
    inner = d < dim
    best = tl.full([1], -1.0e30, tl.float32)
    total = tl.zeros([1], tl.float32)
    sums = tl.zeros([padded], tl.float32)
    for at in range(0, most, at_once):
        n = at + tl.arange(0, at_once)
        place = tl.load(parts + asked * most + n, mask=n < most, other=-1).to(tl.int64)
        there = place >= 0
        share = tl.load(lse + place * num_heads + head, mask=there, other=-1.0e30)
        found = tl.load(
            out + (place * num_heads + head)[:, None] * dim + d[None, :],
            mask=there[:, None] & inner[None, :],
            other=0.0,
        )
        higher = tl.maximum(best, tl.max(share, 0))
        weights = tl.exp(share - higher)
        shrink = tl.exp(best - higher)
        total = total * shrink + tl.sum(weights, 0)
        sums = sums * shrink + tl.sum(weights[:, None] * found, 0)
        best = higher
    where = (asked * num_heads + head).to(tl.int64) * dim + d
    tl.store(merged + where, (sums / total).to(merged.dtype.element_ty), mask=inner)


def kernel(
    query: Tensor, key: Tensor, value: Tensor, jobs: Jobs, scale: float, dtype: torch.dtype | None = None
) -> Tensor:
    """As `paged_attention.PagedAttention`; `dtype`: of the output, if not the queries'."""
    num_jobs, width = jobs.queries.shape
    num_queries, num_heads, dim = query.shape
    kv_heads = key.shape[1]
    group = num_heads // kv_heads
    assert query.stride(2) == 1 and key.is_contiguous() and value.is_contiguous()
    padded = max(16, triton.next_power_of_2(dim))
    out = torch.empty((num_jobs * width, num_heads, dim), dtype=torch.float32, device=query.device)
    lse = torch.empty((num_jobs * width, num_heads), dtype=torch.float32, device=query.device)
    merged = torch.empty((num_queries, num_heads, dim), dtype=dtype or query.dtype, device=query.device)
    _attend[(num_jobs, kv_heads)](
        query,
        key,
        value,
        jobs.slots,
        jobs.first,
        jobs.lengths,
        jobs.queries,
        jobs.limits,
        out,
        lse,
        scale,
        query.stride(0),
        query.stride(1),
        key.stride(0),
        group=group,
        dim=dim,
        width=width,
        rows=max(16, triton.next_power_of_2(width * group)),
        num_keys=_KEYS,
        padded=padded,
        precision="ieee" if query.dtype == torch.float32 else "tf32",
    )
    _merge[(num_queries, num_heads)](
        out, lse, jobs.parts, merged, jobs.parts.shape[1], dim=dim, at_once=_PARTS, padded=padded
    )
    return merged
