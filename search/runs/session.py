"""One call's part of a run: what it solved, and how long that took."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from search.results.record import ProblemRecord


@dataclass(slots=True)
class Session:
    """One call's part of a run: what it solved, and how long that took.

    Attributes:
        num_problems: solved in it.
        seconds: wall time in which problems were being solved; while they are, up to the last that ended.
        seconds_loading: wall time before that, in which models were loaded or servers asked.
        cpu_seconds: of this process, all threads, in the same time.
        policy_tokens: sampled in it.
        kv_tokens_sum: `kv_tokens_mean` summed over its problems.
    """

    num_problems: int = 0
    seconds: float = 0.0
    seconds_loading: float = 0.0
    cpu_seconds: float = 0.0
    policy_tokens: int | None = 0
    kv_tokens_sum: float | None = 0.0
    _started: float = field(default=0.0, repr=False)
    _cpu_started: float = field(default=0.0, repr=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block, also where it is left by an error or an interruption."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._note_time()

    def add(self, record: ProblemRecord) -> None:
        """Count a problem that was solved."""
        self.num_problems += 1
        self._note_time()
        written, kept = record.stats["policy_tokens"], record.stats["kv_tokens_mean"]
        known = self.policy_tokens is not None and written is not None
        self.policy_tokens = (self.policy_tokens or 0) + int(written or 0) if known else None
        known = self.kv_tokens_sum is not None and kept is not None
        self.kv_tokens_sum = (self.kv_tokens_sum or 0.0) + float(kept or 0.0) if known else None

    def _note_time(self) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._cpu_started

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens sampled so far over the wall time so far; None where an engine could not tell."""
        return (
            None if self.policy_tokens is None else self.policy_tokens / max(1e-9, time.perf_counter() - self._started)
        )

    @property
    def kv_tokens(self) -> float | None:
        """KV tokens kept, mean over its problems; None where they are not known."""
        return None if self.kv_tokens_sum is None else self.kv_tokens_sum / max(1, self.num_problems)

    def to_dict(self) -> dict[str, float | int | None]:
        """As the run keeps it."""
        return {item.name: getattr(self, item.name) for item in fields(self) if not item.name.startswith("_")}


@contextmanager
def garbage_frozen() -> Iterator[None]:
    """Have the garbage collector leave alone what is loaded by now.

    Beside torch and transformers each of its full passes takes half a second, in which no answer is read: with fast
    servers it cost half of a client's time.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
