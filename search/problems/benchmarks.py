"""The public benchmarks by name, through the `datasets` library; their rows are read as those of any file.

| name | hub id | subset, split |
|---|---|---|
| gsm8k | openai/gsm8k | main, test (1319) |
| math500 | HuggingFaceH4/MATH-500 | default, test (500) |
| olympiadbench | Hothan/OlympiadBench | OE_TO_maths_en_COMP, train (674) |
| aime | HuggingFaceH4/aime_2024 | default, train (30) |

OlympiadBench's subset is its open-ended (OE), text-only (TO), English (en) competition problems of mathematics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search.errors import ConfigError
from search.problems.rows import Row
from search.support.extras import install


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where a benchmark is.

    Attributes:
        hub_id, subset, split: as `datasets.load_dataset` takes them.
        num_problems: as published.
    """

    hub_id: str
    subset: str | None
    split: str
    num_problems: int


BENCHMARKS: Mapping[str, Benchmark] = {
    "gsm8k": Benchmark("openai/gsm8k", "main", "test", 1319),
    "math500": Benchmark("HuggingFaceH4/MATH-500", None, "test", 500),
    "olympiadbench": Benchmark("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", 674),
    "aime": Benchmark("HuggingFaceH4/aime_2024", None, "train", 30),
}


def benchmark_rows(name: str) -> Iterator[Row]:
    """The rows of a benchmark in its own order, from the local cache or the hub.

    Raises:
        ConfigError: `datasets` is not installed, or the data set is neither in the cache nor to be had.
    """
    benchmark = BENCHMARKS[name]
    for number, values in enumerate(_loaded(name, benchmark)):
        yield Row(f"{name} ({benchmark.hub_id}), row {number}", str(number), values)


def _loaded(name: str, benchmark: Benchmark) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"data {name} needs the datasets library: {install('bench')}; or give a .jsonl file"
        ) from None
    quiet = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(
            benchmark.hub_id, benchmark.subset, split=benchmark.split
        )
        return rows
    except Exception as error:  # the library raises its own errors, those of HTTP and of files
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"data {name}: cannot load {benchmark.hub_id} ({type(error).__name__}: {reason}); it must be in the local "
            "cache or on a hub that can be reached; a .jsonl file of its rows does as well"
        ) from None
    finally:
        if quiet:
            datasets.enable_progress_bars()
