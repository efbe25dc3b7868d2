"""Problems from where they are kept: the mini family's splits, a public benchmark, or a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from search.errors import ConfigError, DataError
from search.plain_text import is_unicode
from search.problems.benchmarks import BENCHMARKS, benchmark_rows
from search.problems.fields import parse_fields
from search.problems.layouts import recognise
from search.problems.rows import SUFFIXES, Row, file_rows
from search.setting_groups import DataSettings
from search.types import Problem

MINI_SPLIT_SIZE = 500
"""Problems of a mini split where no limit is given; the splits themselves have no end."""

_ACCEPTED = (
    f"accepted: mini:train, mini:dev, mini:test, {', '.join(BENCHMARKS)}, or a file "
    f"({', '.join(SUFFIXES)}, with .gz or without)"
)


@dataclass(frozen=True, slots=True)
class Data:
    """A data set as it was read.

    Attributes:
        problems: in its own order.
        layout: in one line, what was read as what; "" for the mini family, which is made and not read.
    """

    problems: list[Problem]
    layout: str = ""

    def described(self, source: str) -> str:
        """How it was read, as a line for people; "" where nothing was read.

        Args:
            source: its name in the settings.
        """
        return f"data {source}: {self.layout}" if self.layout else ""

    @property
    def sha256(self) -> str:
        """Of the problems as they were read: ids, texts and references."""
        rows = [(one.id, one.text, one.answer) for one in self.problems]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def record(self) -> dict[str, str | int]:
        """What a run keeps of it, beside the problems themselves."""
        return {"layout": self.layout, "num_problems": len(self.problems), "sha256": self.sha256}


def settings_data(settings: DataSettings) -> Data:
    """The data set of an evaluation; raises as `read_data`."""
    return read_data(settings.data, settings.limit, field=settings.field, references=settings.reference)


def load_problems(source: str, limit: int | None = None, skip: int = 0, field: str | None = None) -> list[Problem]:
    """The first `limit` problems of a source after the first `skip`; raises as `read_data`."""
    return read_data(source, limit, skip, field).problems


def read_data(
    source: str, limit: int | None = None, skip: int = 0, field: str | None = None, references: bool = True
) -> Data:
    """The first `limit` problems of a source after the first `skip`, in its own order.

    Args:
        source: mini:SPLIT, a benchmark's name, or a file.
        limit: None takes all.
        skip: problems to leave out; their rows are read and checked like the others.
        field: which columns are what, as `--field` says it; what it leaves open is recognised.
        references: whether problems have reference answers.

    Raises:
        ConfigError: no such split or file, a benchmark that cannot be had, or columns that are not there.
        DataError: a broken row, or a reference that is none; names the file and the line.
    """
    if source.startswith("mini:"):
        if field is not None:
            raise ConfigError(f"--field {field!r}: data {source} has no columns; --field is for files and benchmarks")
        return Data(_mini(source.removeprefix("mini:"), limit, skip, references))
    named = parse_fields(field)
    if not references and "answer" in named:
        raise ConfigError(f"--field answer={named['answer']} contradicts --no-reference")
    rows, name = _rows(source), source if source in BENCHMARKS else ""
    taken = list(rows if limit is None else islice(rows, skip + limit))
    if not taken[skip:]:
        raise DataError(f"{source}: holds no problems" + (f" after the first {skip}" if skip else ""))
    layout = recognise(taken, source, named, references)
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for row in taken:
        problem = layout.problem(row)
        if not all(map(is_unicode, (problem.id, problem.text, problem.answer or ""))):
            raise DataError(f"{row.where}: holds text that is not valid Unicode")
        if problem.id in seen:
            raise DataError(
                f"{row.where}: id {problem.id!r} stands at {seen[problem.id]} already; --field id=COLUMN (or a "
                "template of several) names another"
            )
        seen[problem.id] = row.where.rpartition(", ")[2]
        problems.append(Problem(f"{name}/{problem.id}", problem.text, problem.answer) if name else problem)
    return Data(problems[skip:], layout.describe())


def _rows(source: str) -> Iterator[Row]:
    if source in BENCHMARKS:
        return benchmark_rows(source)
    file = Path(source).expanduser()
    if not file.is_file():
        raise ConfigError(f"data {source!r}: {'a folder' if file.is_dir() else 'no such file'}; {_ACCEPTED}")
    return file_rows(file)


def _mini(split: str, limit: int | None, skip: int, references: bool) -> list[Problem]:
    from search.mini.problems import problems

    count = MINI_SPLIT_SIZE if limit is None else limit
    return [Problem(one.id, one.text, one.answer if references else None) for one in problems(split, count, skip)]
