"""The public benchmarks, through the `datasets` library: hub ids, fields, and how a row becomes a problem.

| name | hub id | subset, split | question | reference |
|---|---|---|---|---|
| gsm8k | openai/gsm8k | main, test (1319) | question | answer, after #### |
| math500 | HuggingFaceH4/MATH-500 | default, test (500) | problem | answer |
| olympiadbench | Hothan/OlympiadBench | OE_TO_maths_en_COMP, train (674) | question | final_answer |
| aime | HuggingFaceH4/aime_2024 | default, train (30) | problem | answer |

OlympiadBench's subset is its open-ended (OE), text-only (TO), English (en) competition problems of mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from search.errors import ConfigError, DataError
from search.types import Problem

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where a benchmark is, and how its rows are read.

    Attributes:
        hub_id, subset, split: as `datasets.load_dataset` takes them.
        num_problems: as published.
        question: field of the question.
        answer: the reference of a row; may raise on a row of another layout.
        id: field of an id that is unique in the split; "" numbers the rows.
    """

    hub_id: str
    subset: str | None
    split: str
    num_problems: int
    question: str
    answer: Callable[[Row], str]
    id: str = ""


def _after_hashes(row: Row) -> str:
    text: str = row["answer"]
    found, hashes, answer = text.rpartition("####")
    del found
    if not hashes:
        raise ValueError("no #### in the answer")
    return answer.strip()


def _final_answers(row: Row) -> str:
    """Several answers are a list, each maybe in dollar signs."""
    answers: list[str] = row["final_answer"]
    return ", ".join(answer.strip().strip("$").strip() for answer in answers)


BENCHMARKS: Mapping[str, Benchmark] = {
    "gsm8k": Benchmark("openai/gsm8k", "main", "test", 1319, "question", _after_hashes),
    "math500": Benchmark(
        "HuggingFaceH4/MATH-500", None, "test", 500, "problem", lambda row: str(row["answer"]), "unique_id"
    ),
    "olympiadbench": Benchmark(
        "Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train", 674, "question", _final_answers, "id"
    ),
    "aime": Benchmark("HuggingFaceH4/aime_2024", None, "train", 30, "problem", lambda row: str(row["answer"]), "id"),
}


def load_benchmark(name: str, limit: int | None = None, skip: int = 0) -> list[Problem]:
    """Problems of a benchmark in its own order, from the local cache or the hub.

    Raises:
        ConfigError: `datasets` is not installed, or the data set is neither in the cache nor to be had.
        DataError: the data set has another layout than is known.
    """
    benchmark = BENCHMARKS[name]
    problems: list[Problem] = []
    for number, row in enumerate(_rows(name, benchmark)):
        if number < skip:
            continue
        if limit is not None and len(problems) == limit:
            break
        problems.append(_problem(name, benchmark, number, row))
    if not problems:
        raise DataError(
            f"{name} ({benchmark.hub_id}): holds no problems" + (f" after the first {skip}" if skip else "")
        )
    return problems


def _rows(name: str, benchmark: Benchmark) -> Iterable[Row]:
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"data {name} needs the datasets library: pip install 'ets-arbitrage[bench]'; or give a .jsonl file"
        ) from None
    quiet = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        rows: Iterable[Row] = datasets.load_dataset(benchmark.hub_id, benchmark.subset, split=benchmark.split)
        return rows
    except Exception as error:  # the library raises its own errors, those of HTTP and of files
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"data {name}: cannot load {benchmark.hub_id} ({type(error).__name__}: {reason}); it must be in the local "
            "cache or on a hub that can be reached; a .jsonl file with problem and answer does as well"
        ) from None
    finally:
        if quiet:
            datasets.enable_progress_bars()


def _problem(name: str, benchmark: Benchmark, number: int, row: Row) -> Problem:
    where = f"{name} ({benchmark.hub_id}), row {number}"
    try:
        text, answer = row[benchmark.question], benchmark.answer(row)
        own = row[benchmark.id] if benchmark.id else number
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: not the layout that is known ({type(error).__name__}: {error})") from None
    if not isinstance(text, str) or not text.strip() or not answer.strip():
        raise DataError(f"{where}: an empty question or answer")
    return Problem(f"{name}/{own}", text, answer)
