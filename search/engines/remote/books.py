"""The books of each tree on a server, and the calls that are being answered for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from search.engines.remote.warmth import Warmth
from search.types import Ahead, Child, Generation, Prefix, Sampling, Usage


@dataclass(slots=True)
class Books:
    """What was done for one tree. Work for requests that broke off is in it as far as the server told."""

    warmth: Warmth = field(default_factory=Warmth)
    jobs: set[Job] = field(default_factory=set)
    computed_tokens: int | None = 0
    recomputed_tokens: int | None = 0
    sampled_tokens: int = 0
    num_calls: int = 0
    num_running: int = 0
    kv_tokens_peak: int | None = None

    def computed(self, num_tokens: int, cached_tokens: int | None, num_warm: int, mark: Ahead | None = None) -> None:
        """Positions of a prompt went through the model; the last one always does, as its logits are wanted."""
        if mark is not None and cached_tokens is not None:
            mark.prefix_tokens += num_tokens - cached_tokens
        if cached_tokens is None or self.computed_tokens is None or self.recomputed_tokens is None:
            self.computed_tokens = self.recomputed_tokens = None
            return
        self.computed_tokens += num_tokens - cached_tokens
        self.recomputed_tokens += max(0, min(num_warm, num_tokens) - 1 - cached_tokens)

    def sampled(self, num_tokens: int, mark: Ahead | None = None) -> None:
        """A step was written; its last token went through no model yet."""
        self.sampled_tokens += num_tokens
        if mark is not None:
            mark.sampled_tokens += num_tokens
            mark.computed_tokens += max(0, num_tokens - 1)
        if self.computed_tokens is not None:
            self.computed_tokens += max(0, num_tokens - 1)

    def usage(self) -> Usage:
        """The books so far; a server cannot tell what it holds for one tree."""
        return Usage(
            computed_tokens=self.computed_tokens,
            sampled_tokens=self.sampled_tokens,
            num_calls=self.num_calls,
            kv_tokens_held=None,
            kv_tokens_peak=self.kv_tokens_peak,
            recomputed_tokens=self.recomputed_tokens,
        )


@dataclass(eq=False, slots=True)
class Job:
    """The children of one node while they are being written.

    Attributes:
        books: of its tree.
        owed: children not answered yet.
        requests: the server's names of their samples, as far as known.
        logprobs: of the tokens of children that are being continued, where they are kept.
        results: steps, then None; or an error.
    """

    books: Books
    prefix: Prefix
    sampling: Sampling
    arrived: float
    owed: dict[int, Child]
    results: asyncio.Queue[Generation | Exception | None] = field(default_factory=asyncio.Queue)
    requests: dict[int, str] = field(default_factory=dict)
    logprobs: dict[int, tuple[float, ...]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
