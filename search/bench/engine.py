"""`ets bench engine`: tokens per CPU second of the local engine against `transformers.generate` on one schedule.

The schedule is a tree search without a reward model: `num_leaves` leaves, `num_levels` levels, a quarter of the leaves
kept at each level with four children each, steps of random lengths. The baseline is what one writes with transformers
alone: one padded batch a level, each prefix computed again. Both run in turns in one process and on one thread;
machines drift, so only the ratio of neighbours counts, and the median of the ratios is the figure.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from search.engines.local import LocalEngine
from search.engines.local.loading import find_model, import_torch
from search.errors import ConfigError
from search.seeds import node_seed
from search.types import Child, FinishReason, Prefix, Sampling, Segment

_KEEP = 4
"""A kept leaf gets this many children, and one of this many leaves is kept."""


class Schedule(NamedTuple):
    """What both sides run.

    Attributes:
        prompt: token ids of the problem.
        num_leaves: width of every level.
        num_levels: depth.
        min_step_tokens: shortest step.
        max_step_tokens: longest step.
    """

    prompt: tuple[int, ...]
    num_leaves: int
    num_levels: int
    min_step_tokens: int = 10
    max_step_tokens: int = 30


class Work(NamedTuple):
    """What a run did.

    Attributes:
        written: tokens of all steps.
        unique: tokens of the tree, the prompt included.
        computed: token positions that went through the model.
        cpu_seconds: of the process.
        seconds: wall clock.
        kv_peak: most KV slots held at once.
    """

    written: int
    unique: int
    computed: int
    cpu_seconds: float
    seconds: float
    kv_peak: int


