"""A search over a data set: what is done is read back, what is missing is run, the rest is a summary."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.answers.graders import close_grader
from search.api import Failure, Search
from search.config import EvalSettings, build
from search.errors import ConfigError, EngineError
from search.problems.data import settings_data
from search.protocols import CachingEngine
from search.results.record import ProblemRecord, RunDirectory, failed_record, read_json
from search.results.result import Result
from search.runs.provenance import model_weights, provenance
from search.runs.pulse import Pulse
from search.runs.session import Session, garbage_frozen
from search.runs.summary import Summary, summarise
from search.support.files import write_atomic

OnProgress = Callable[[int, str], None]
"""Called with the number of problems done and a short note."""


def with_grader(settings: EvalSettings) -> EvalSettings:
    """Settle the grader: the mini family's answers are integers and need no more than their digits."""
    if settings.grader != "auto":
        return settings
    grader = "plain" if settings.data.startswith("mini:") else "math"
    return build(type(settings), {**settings.model_dump(include=settings.model_fields_set), "grader": grader})


class Evaluation:
    """One data set under one configuration; with a directory it is kept and can be gone on with."""

    def __init__(self, settings: EvalSettings, out: Path | None = None) -> None:
        """Read the problems, and what of them is done.

        Args:
            settings: what to run.
            out: where the run is kept; None keeps nothing.

        Raises:
            ConfigError: the data or a setting is wrong, or `out` holds another run, one of other data, or cannot be
                written.
            DataError: a line of the data is broken.
        """
        self.data = settings_data(settings)
        self.problems = self.data.problems
        self.search = Search(settings=with_grader(settings))
        self.config_hash = self.search.config_hash
        self._directory = None if out is None else RunDirectory(out)
        self._records: dict[str, ProblemRecord] = {}
        self._session = Session()
        self._sessions: list[dict[str, Any]] = []
        if self._directory is not None:
            run = {**provenance(self.search), "data": self.data.record()}
            self._sessions = self._directory.open(run).get("sessions", [])
            for problem in self.problems:
                if (record := self._directory.load(problem, self.config_hash)) is not None:
                    self._records[problem.id] = record
        self.num_done = len(self._records)
        self._infos: dict[str, Any] = {}
        self._seconds_loading = 0.0

    @property
    def num_kept(self) -> int:
        """Problems that are done by now and need not be run again."""
        return sum(record.error is None for record in self._records.values())

    def load(self, load: Callable[[Search], None] | None = None) -> None:
        """Load the models, if anything is left to be run; `run` does so where nobody did.

        In the caller's own thread, so that an interruption ends it.

        Args:
            load: as for `run`.

        Raises:
            ConfigError: a model cannot be had.
        """
        if self._infos or len(self._records) == len(self.problems):
            return
        start = time.perf_counter()
        if load is not None:
            load(self.search)
        self._infos = {role: asdict(engine.info) for role, engine in self.search.engines.items()}
        self._seconds_loading = time.perf_counter() - start

    async def run(
        self,
        concurrency: int,
        on_progress: OnProgress = lambda done, note: None,
        load: Callable[[Search], None] | None = None,
    ) -> Summary:
        """Run what is missing and sum up everything.

        Records are written as problems end, so an interruption loses only the problems in flight.

        Args:
            concurrency: problems side by side.
            on_progress: told of every problem that ends, and now and then before the first one does.
            load: gives the search models that outlive it; None: it loads its own, and they end with it.
        """
        self._session, earlier = Session(), self._sessions
        todo = [problem for problem in self.problems if problem.id not in self._records]
        if todo:
            async with self.search if load is None else nullcontext():
                # Models that cannot be had are wrong input, said once and not for every problem.
                await asyncio.to_thread(self.load, load)
                if self.search.settings.flush_cache:
                    await flush_caches(self.search)
                self._begin_session(infos := self._infos)
                self._session.seconds_loading = self._seconds_loading
                pulse = Pulse(self.search, len(todo), lambda note: on_progress(len(self._records), note))
                try:
                    with garbage_frozen(), self._session.running():
                        async for item in self.search.asolve_many(todo, concurrency, pulse.watch):
                            pulse.stop()
                            self._keep(item)
                            self._keep_session(earlier, concurrency, infos)
                            on_progress(len(self._records), self._note())
                finally:
                    pulse.stop()
                    self._keep_session(earlier, concurrency, infos)
                    self._infos = {}
                    close_grader(self.search.grader)
        self.search.say()
        ordered = [self._records[problem.id] for problem in self.problems]
        summary = summarise(
            ordered,
            self.search.settings,
            self.config_hash,
            sessions=self._sessions,
            num_resumed=self.num_done,
        )
        if self._directory is not None:
            write_atomic(self._directory.path / "summary.json", json.dumps(summary.to_dict(), indent=1) + "\n")
        return summary

    def _keep(self, item: Result | Failure) -> None:
        if isinstance(item, Failure):
            record = failed_record(self.config_hash, item.problem, str(item.error))
        else:
            record = item.to_record(self.config_hash)
        if self._directory is not None:
            self._directory.save(record)  # before it counts: an interruption may fall between the two
        self._records[record.problem_id] = record
        self._session.add(record)

    def _begin_session(self, infos: Mapping[str, Any]) -> None:
        """Keep what runs now; what ran before must have been the same models at the same precision.

        Raises:
            ConfigError: a model has another precision than the run began with.
        """
        if self._directory is None:
            return
        kept = read_json(self._directory.path / "run.json")
        for role, info in infos.items():
            before = kept.get("engines", {}).get(role, {}).get("details", {}).get("dtype")
            now = info["details"].get("dtype")
            if before and now and before != now:
                raise ConfigError(
                    f"{self._directory.path} holds a run whose {role} computed in {before}, and this one computes in "
                    f"{now}; give another --out, or the same precision"
                )
        self._directory.note(
            engines={**infos, **kept.get("engines", {})},
            settings=self.search.record,
            weights={**model_weights(self.search.settings), **kept.get("weights", {})},
            notes=list(self.search.notes),
        )

    def _keep_session(self, earlier: Sequence[dict[str, Any]], concurrency: int, infos: Mapping[str, Any]) -> None:
        """Keep how long it took so far, session by session; of one that is killed, to its last problem."""
        undecided = getattr(self.search.grader, "num_undecided", 0)
        session = self._session.to_dict()
        self._sessions = [
            *earlier,
            {**session, "concurrency": concurrency, "num_undecided_grades": undecided, "engines": infos},
        ]
        if self._directory is not None:
            self._directory.note(sessions=self._sessions)

    def _note(self) -> str:
        """Accuracy so far, this session's cache and, at its end, speed: what is in flight is not counted before."""
        graded = [record.correct is True for record in self._records.values() if record.reference is not None]
        accuracy = f"accuracy {sum(graded) / len(graded):.3f}, " if graded else ""
        speed, kv_tokens = self._session.tokens_per_second, self._session.kv_tokens
        whole = len(self._records) == len(self.problems)
        told = [f"{speed:.0f} tokens/s"] if whole and speed is not None else []
        told += [] if kv_tokens is None else [f"KV {kv_tokens:.0f}"]
        return accuracy + ", ".join(told)


async def flush_caches(search: Search) -> None:
    """Empty the caches that outlive a search, so that a run pays for its own prompts.

    Raises:
        ConfigError: a server does not do so.
    """
    for engine in dict.fromkeys(search.engines.values()):
        if isinstance(engine, CachingEngine):
            try:
                await engine.flush_cache()
            except EngineError as error:
                raise ConfigError(f"flush_cache: {error}") from error
