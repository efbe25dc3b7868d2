"""The runs of a reproduction: each an ordinary evaluation in a folder of its own, gone on with where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.config import EvalSettings
from search.errors import SearchError
from search.problems.data import settings_data
from search.results.record import read_json
from search.runs.compare import paired
from search.runs.evaluation import Evaluation
from search.runs.report import Run, read_run
from search.runs.shared_engines import SharedEngines
from search.studies.document import machine
from search.support.statistics import Estimate

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


def execute(
    rounds: Sequence[Sequence[Planned]], runs: Path, turn: int, say: Say, *, memory: Path | None = None
) -> None:
    """Do what is missing on models that are loaded once.

    Args:
        rounds: one after the other; the runs of one are compared with each other, so they take turns and see the
            same machine.
        runs: folder of the runs.
        turn: problems of a run before the next has its turn.
        say: told of progress, a line a part.
        memory: folder of what the engines wrote, which is then never written twice; None remembers nothing.

    Raises:
        ConfigError: a folder holds a run of other settings.
        SearchError: a problem failed; a table with holes is none.
    """
    asyncio.run(_execute([part for planned in rounds for part in _turns(planned, turn)], runs, say, memory))


def _turns(planned: Sequence[Planned], turn: int) -> Iterator[Planned]:
    """The runs in parts: the first problems of each, then some more of each."""
    limits = {run.name: run.settings.limit or 0 for run in planned}
    assert all(limits.values()), "a recipe's runs have limits"
    for start in range(0, max(limits.values(), default=0), turn):
        for run in planned:
            if limits[run.name] > start:
                upto = min(limits[run.name], start + turn)
                yield replace(run, settings=run.settings.model_copy(update={"limit": upto}))


async def _execute(schedule: Sequence[Planned], runs: Path, say: Say, memory: Path | None) -> None:
    engines = SharedEngines(memory)
    said = {""}
    try:
        for number, part in enumerate(schedule):
            evaluation = Evaluation(part.settings, part.folder(runs))
            if evaluation.num_done == len(evaluation.problems):
                continue
            if (line := evaluation.data.described(part.settings.data)) not in said:
                say(line)
                said.add(line)
            summary = await evaluation.run(part.concurrency, load=engines.give)
            if summary.failures:
                raise SearchError(f"{part.folder(runs)}: {summary.failures[0]}")
            accuracy = "unknown" if summary.accuracy is None else f"{summary.accuracy:.3f}"
            say(f"{part.name}: {part.settings.limit} problems, accuracy {accuracy}")
            await engines.keep_only(later.settings for later in schedule[number + 1 :])
    finally:
        await engines.keep_only(())


def collect(planned: Planned, runs: Path) -> Run:
    """A run from its records: the problems of its limit, in the order of the data.

    Raises:
        DataError: a record cannot be read.
        SearchError: a record is missing.
    """
    run = read_run(planned.folder(runs))
    by_id = {record.problem_id: record for record in run.records}
    problems = settings_data(planned.settings).problems
    missing = [problem.id for problem in problems if problem.id not in by_id]
    if missing:
        raise SearchError(f"{run.folder}: {len(missing)} records are missing, the first of problem {missing[0]}")
    return replace(run, records=tuple(by_id[problem.id] for problem in problems))


def compared(first: Run, second: Run) -> Estimate:
    """Accuracy of `one` less that of `other` over the problems that both have."""
    theirs = {record.problem_id: record for record in second.records}
    ours = [record for record in first.records if record.problem_id in theirs]
    return paired(ours, [theirs[record.problem_id] for record in ours])


def summed(run: Run, name: str) -> float:
    """A statistic summed over the problems."""
    return sum(float(record.stats[name] or 0) for record in run.records)


def provenance(done: Mapping[str, Run], runs: Path, roles: Sequence[str]) -> dict[str, Any]:
    """Where figures come from.

    Args:
        done: the runs by name; what they all share is read off the first.
        runs: folder of the runs.
        roles: settings that name the models.
    """
    first = next(iter(done.values()))
    kept, settings = read_json(first.folder / "run.json"), first.settings
    return {
        "commit": kept.get("commit"),
        "version": kept.get("version"),
        "machine": machine(),
        "seed": settings.seed,
        "data": settings.data,
        "models": ", ".join(getattr(settings, role) for role in roles),
        "grader": settings.grader,
        "records": str(runs),
        "runs": ", ".join(f"{name} {run.config_hash}" for name, run in done.items()),
    }
