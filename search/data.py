"""Problems from where they are kept: the mini family's splits, a public benchmark, or a .jsonl file."""

from __future__ import annotations

import json
from pathlib import Path

from search.benchmarks import BENCHMARKS, load_benchmark
from search.errors import ConfigError, DataError
from search.prompts import is_unicode
from search.types import Problem

MINI_SPLIT_SIZE = 500
"""Problems of a mini split where no limit is given; the splits themselves have no end."""

_MAX_LINE_BYTES = 1 << 20
_ACCEPTED = (
    f"accepted: mini:train, mini:dev, mini:test, {', '.join(BENCHMARKS)}, or a .jsonl file with problem (or question) "
    "and answer"
)


def load_problems(source: str, limit: int | None = None, skip: int = 0) -> list[Problem]:
    """The first `limit` problems of a source after the first `skip`, in its own order.

    Raises:
        ConfigError: no such split or file, or a benchmark that cannot be had.
        DataError: a broken line; names the file and the line.
    """
    if source.startswith("mini:"):
        return _mini(source.removeprefix("mini:"), limit, skip)
    if source in BENCHMARKS:
        return load_benchmark(source, limit, skip)
    file = Path(source)
    if not file.is_file():
        raise ConfigError(f"data {source!r}: no such file; {_ACCEPTED}")
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    with file.open("rb") as lines:
        # No line is read further than it may be long.
        for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE_BYTES + 1), b""), 1):
            if not line.strip():
                continue
            if limit is not None and len(problems) == skip + limit:
                break
            problem = _parse(file, number, line)
            if problem.id in seen:
                raise DataError(f"{file}, line {number}: id {problem.id!r} stands on line {seen[problem.id]} already")
            seen[problem.id] = number
            problems.append(problem)
    if not problems[skip:]:
        raise DataError(f"{file}: holds no problems" + (f" after the first {skip}" if skip else ""))
    return problems[skip:]


def _mini(split: str, limit: int | None, skip: int) -> list[Problem]:
    from search.mini.problems import problems

    count = MINI_SPLIT_SIZE if limit is None else limit
    return [Problem(one.id, one.text, one.answer) for one in problems(split, count, skip)]


def _parse(file: Path, number: int, line: bytes) -> Problem:
    where = f"{file}, line {number}"
    if len(line) > _MAX_LINE_BYTES:
        raise DataError(f"{where}: longer than {_MAX_LINE_BYTES} bytes")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not valid JSON") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be an object with problem and answer")
    text = row.get("problem", row.get("question"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: needs a text under 'problem' or 'question'")
    answer = row.get("answer")
    if not isinstance(answer, str | int | float) or isinstance(answer, bool):
        raise DataError(f"{where}: needs a text or a number under 'answer'")
    reference = str(answer)
    if "####" in reference:
        reference = reference.rpartition("####")[2].strip()
    name = row.get("id", row.get("unique_id"))
    problem = Problem(str(number - 1 if name is None else name), text, reference)
    if not all(map(is_unicode, (problem.id, problem.text, reference))):
        raise DataError(f"{where}: holds text that is not valid Unicode")
    return problem
