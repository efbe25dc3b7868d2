"""The runs of a reproduction: each an ordinary evaluation in a folder of its own, gone on with where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.compare import paired
from search.config import EvalSettings
from search.data import settings_data
from search.errors import SearchError
from search.evaluation import Evaluation
from search.report import Run, read_run

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that is to be.

    Attributes:
        name: of its folder.
        settings: with its limit.
        concurrency: problems side by side.
    """

    name: str
    settings: EvalSettings
    concurrency: int

    def folder(self, runs: Path) -> Path:
        """Where it is kept."""
        return runs / self.name.replace(":", "_")


def execute(planned: Sequence[Planned], runs: Path, turn: int, say: Say) -> None:
    """Do what is missing, in turns, so that what is compared sees the same machine.

    Raises:
        ConfigError: a folder holds a run of other settings.
        SearchError: a problem failed; a table with holes is none.
    """
    most = max(one.settings.limit or 0 for one in planned)
    for start in range(0, most, turn):
        for one in planned:
            assert one.settings.limit is not None, "a recipe's runs have limits"
            if one.settings.limit <= start:
                continue
            upto = min(one.settings.limit, start + turn)
            part = one.settings.model_copy(update={"limit": upto})
            evaluation = Evaluation(part, one.folder(runs))
            if evaluation.num_done == len(evaluation.problems):
                continue
            summary = asyncio.run(evaluation.run(one.concurrency))
            if summary.failures:
                raise SearchError(f"{one.folder(runs)}: {summary.failures[0]}")
            accuracy = "unknown" if summary.accuracy is None else f"{summary.accuracy:.3f}"
            say(f"{one.name}: {upto} of {one.settings.limit}, accuracy {accuracy}")


def collect(planned: Planned, runs: Path) -> Run:
    """A run from its records: the problems of its limit, in the order of the data.

    Raises:
        DataError: a record cannot be read.
        SearchError: a record is missing.
    """
    run = read_run(planned.folder(runs))
    known = {record.problem_id: record for record in run.records}
    problems = settings_data(planned.settings).problems
    missing = [problem.id for problem in problems if problem.id not in known]
    if missing:
        raise SearchError(f"{run.folder}: {len(missing)} records are missing, the first of problem {missing[0]}")
    return replace(run, records=tuple(known[problem.id] for problem in problems))


def right(run: Run) -> list[float]:
    """1 for a right answer, else 0, in order."""
    return [float(record.correct is True) for record in run.records]


def compared(one: Run, other: Run) -> tuple[float, float, float]:
    """Accuracy of `one` less that of `other` over the problems that both have, and its paired 95% interval."""
    theirs = {record.problem_id: record for record in other.records}
    ours = [record for record in one.records if record.problem_id in theirs]
    less = paired(ours, [theirs[record.problem_id] for record in ours])
    return less.mean, *less.interval


def summed(run: Run, name: str) -> float:
    """A statistic summed over the problems."""
    return sum(float(record.stats[name] or 0) for record in run.records)
