"""Attention over a pool of slots by a turn's plan: one call a layer, for any number of trees and rows.

The reference below says what is to be computed, in plain torch; `paged_kernel` does it on a GPU. Both take the jobs of
a plan, each by itself, and then merge the partial results of every query.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from search.engines.local.arena import BLOCKED


class Jobs(NamedTuple):
    """A `paged_plan.Plan` on the model's device, in int32; the fields are the same.

    Attributes:
        most_keys: the greatest of `lengths`.
    """

    slots: Tensor
    first: Tensor
    lengths: Tensor
    queries: Tensor
    limits: Tensor
    parts: Tensor
    most_keys: int


PagedAttention = Callable[[Tensor, Tensor, Tensor, Jobs, float], Tensor]
"""Attention by a plan.

Takes queries (num_queries, num_heads, head_dim), keys and values (num_slots, num_kv_heads, head_dim), the jobs, and
the scale; gives (num_queries, num_heads, head_dim) in the queries' precision.
"""


def reference(query: Tensor, key: Tensor, value: Tensor, jobs: Jobs, scale: float) -> Tensor:
    """The plain form, for any device; as many operations whatever the plan."""
    num_jobs, width = jobs.queries.shape
    _, num_heads, dim = query.shape
    kv_heads = key.shape[1]
    group = num_heads // kv_heads
    place = torch.arange(jobs.most_keys, device=query.device)
    slots = jobs.slots[(jobs.first[:, None] + place).clamp_(max=len(jobs.slots) - 1)]
    # After a job's own keys come others', or nothing at all: it looks at slot 0 instead, and does not see it.
    slots = slots.where(place < jobs.lengths[:, None], 0).view(-1)
    # (num_jobs, num_kv_heads, width * group or keys, dim)
    q = query.index_select(0, jobs.queries.view(-1).clamp(min=0)).view(num_jobs, width, kv_heads, group, dim)
    q = q.transpose(1, 2).reshape(num_jobs, kv_heads, width * group, dim)
    k = key.index_select(0, slots).view(num_jobs, -1, kv_heads, dim).transpose(1, 2)
    v = value.index_select(0, slots).view(num_jobs, -1, kv_heads, dim).transpose(1, 2)
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    blocked = place >= jobs.limits[..., None]
    scores = scores.view(num_jobs, kv_heads, width, group, -1).masked_fill(blocked[:, None, :, None], BLOCKED)
    lse = torch.logsumexp(scores, -1).transpose(1, 2).reshape(num_jobs * width, num_heads)
    weights = torch.softmax(scores, -1).view(num_jobs, kv_heads, width * group, -1).to(v.dtype)
    out = torch.matmul(weights, v).float().view(num_jobs, kv_heads, width, group, dim)
    out = out.transpose(1, 2).reshape(num_jobs * width, num_heads, dim)

    num_queries, most = jobs.parts.shape
    parts = jobs.parts.clamp(min=0).view(-1)
    share = lse.index_select(0, parts).view(num_queries, most, num_heads)
    share = torch.softmax(share.masked_fill((jobs.parts < 0)[..., None], BLOCKED), 1)
    merged = out.index_select(0, parts).view(num_queries, most, num_heads, dim)
    return (merged * share[..., None]).sum(1).to(query.dtype)


def has_kernel(device: torch.device) -> bool:
    """Whether the kernel is for such a device; on which it may still fail to compile."""
    return device.type == "cuda" and find_spec("triton") is not None


def best_paged(device: torch.device) -> PagedAttention:
    """The kernel where there is one, the reference elsewhere."""
    if not has_kernel(device):
        return reference
    from search.engines.local.paged_kernel import kernel

    return kernel
