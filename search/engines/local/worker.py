"""The one thread on which every in-process model of this process runs.

A policy and a reward model would otherwise fight over the same cores and over Python's lock. Each turn of an engine
is one job, so engines with work take turns.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache


@lru_cache(maxsize=1)
def shared_worker() -> ThreadPoolExecutor:
    """The process's worker thread, started on first use and joined when the interpreter exits."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="search-local-engine")
