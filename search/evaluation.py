"""A search over a data set: what is done is read back, what is missing is run, the rest is a summary."""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import Any

from search.answers.graders import close_grader
from search.api import Failure, Search
from search.config import EvalSettings, SearchSettings, build
from search.data import settings_data
from search.errors import ConfigError, EngineError
from search.files import write_atomic
from search.ledger import ModelCost, Stats, total, total_costs
from search.protocols import CachingEngine, Engine
from search.record import (
    ProblemRecord,
    RunDirectory,
    costs_record,
    failed_record,
    read_json,
    stats_record,
)
from search.registry import weights_of
from search.resolve import parts, record_of
from search.result import Result
from search.statistics import wilson_interval

OnProgress = Callable[[int, str], None]
"""Called with the number of problems done and a short note."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole run in one object.

    Attributes:
        num_problems: problems asked for.
        num_failed: those without a result; they count as wrong.
        num_undecided: those whose answer could be called neither right nor wrong; they do not count as right.
        accuracy: share of right answers among all problems; None if no problem has a reference.
        accuracy_ci95: Wilson's 95% interval.
        config_hash: of the resolved settings.
        settings: resolved.
        stats: sums over all problems; kv_tokens_mean and the peaks are per problem, averaged.
        seconds_wall: in which problems were being solved, over all calls of the run; they run side by side, so less
            than the sum in `stats`. Loading is left out, and a call that was killed outright is not there.
        seconds_loading: in which models were loaded, over the same calls.
        num_timed: problems that were solved in those calls.
        num_resumed: problems that were found done.
        failures: one line each.
        notes: what policies wanted known, with the number of selections at which they did, most frequent first.
        models: what each model did over all problems, by its role.
        leaves_mean, clusters_mean: candidates of a selection and the clusters they were in, mean over the selections
            that made clusters; None where none did.
    """

    num_problems: int
    num_failed: int
    num_undecided: int
    accuracy: float | None
    accuracy_ci95: tuple[float, float] | None
    config_hash: str
    settings: SearchSettings
    stats: dict[str, float | int | None]
    seconds_wall: float
    seconds_loading: float
    num_timed: int
    num_resumed: int
    failures: tuple[str, ...]
    notes: dict[str, int]
    models: dict[str, ModelCost]
    leaves_mean: float | None = None
    clusters_mean: float | None = None

    @property
    def _untimed(self) -> str:
        return "" if self.num_timed == self.num_problems else f" (of {self.num_timed} of {self.num_problems} problems)"

    @property
    def _clusters_line(self) -> tuple[str, ...]:
        if self.leaves_mean is None:
            return ()
        return (f"clusters          {self.clusters_mean:.1f} of {self.leaves_mean:.1f} leaves at a selection, means",)

    def to_dict(self) -> dict[str, Any]:
        """As `ets eval --json` prints it: the totals of the statistics lie flat beside the rest."""
        apart = ("stats", "settings", "failures", "models")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in apart}
        stats = {"num_failed_nodes" if name == "num_failed" else name: value for name, value in self.stats.items()}
        settings = record_of(self.settings)
        models = costs_record(self.models)
        return {**values, "failures": list(self.failures), "settings": settings, **stats, "models": models}

    def to_text(self) -> str:
        """A few lines; accuracy never without its interval and cost."""
        stats, settings = self.stats, self.settings
        if self.accuracy is None or self.accuracy_ci95 is None:
            accuracy = "unknown (no reference answers)"
        else:
            low, high = self.accuracy_ci95
            accuracy = f"{self.accuracy:.3f}  (95% interval {low:.3f} to {high:.3f})"
        if self.num_undecided:
            accuracy += f", {self.num_undecided} undecided and not counted as right"
        return "\n".join(
            [
                f"{settings.method_name}, width {settings.width}, seed {settings.seed}, run {self.config_hash}",
                f"problems          {self.num_problems}, {self.num_failed} failed, {self.num_resumed} done before",
                f"accuracy          {accuracy}",
                f"policy tokens     {count(stats['computed_tokens'])} computed, {stats['unique_tokens']} unique",
                *(
                    [f"thrown away       {stats['tokens_thrown']} tokens written ahead"]
                    if stats["tokens_thrown"]
                    else []
                ),
                f"reward tokens     {count(stats['prm_tokens'])} computed, {stats['prm_unique_tokens']} unique",
                f"KV tokens         {stats['kv_tokens_mean']:.0f} kept on average,"
                f" {stats['kv_tokens_peak']:.0f} at most, mean over problems",
                *self._clusters_line,
                f"seconds           {self.seconds_wall:.1f} wall{self._untimed}, {stats['seconds']:.1f} summed over "
                f"problems; loading {self.seconds_loading:.1f}",
                *(f"{role:17} {describe_cost(cost)}" for role, cost in self.models.items()),
                *(f"at {times:<5} selections {note}" for note, times in [*self.notes.items()][:_SHOWN_NOTES]),
            ]
        )


def count(value: float | int | None) -> str:
    """A count, or that it is unknown."""
    return "unknown" if value is None else str(value)


def describe_cost(cost: ModelCost) -> str:
    """One model's cost in a line."""
    written = f", {cost.sampled_tokens} tokens written" if cost.sampled_tokens else ""
    dropped = f" ({cost.dropped_tokens} dropped, {cost.thrown_tokens} thrown away)" if cost.kept_tokens else ""
    flops = "unknown" if cost.flops is None else f"{cost.flops:.3g}"
    return f"{cost.num_calls} calls{written}{dropped}, {cost.seconds:.2f} s, {flops} FLOPs"


_LEVEL = re.compile(r"^level [0-9]+: ")
_SHOWN_NOTES = 3

_MEANS = (
    "kv_tokens_mean",
    "kv_tokens_peak",
    "kv_tokens_engine_peak",
    "kv_tokens_ledger_peak",
    "kv_tokens_prm_peak",
)


def sum_stats(stats: Iterable[Stats]) -> dict[str, float | int | None]:
    """Totals over problems; figures of the KV cache are means over problems instead, as sums would mean nothing."""
    every = list(stats)
    summed = stats_record(total(every))
    for name in _MEANS:
        value = summed[name]
        summed[name] = value / len(every) if value is not None and every else value
    return summed


def summarise(
    records: Iterable[ProblemRecord],
    settings: SearchSettings,
    config_hash: str,
    *,
    sessions: Sequence[Mapping[str, Any]] = (),
    num_resumed: int = 0,
) -> Summary:
    """The summary of a run's records; `sessions` as a run keeps them, see `Session`."""
    every = list(records)
    graded = [record for record in every if record.reference is not None]
    right = sum(record.correct is True for record in graded)
    failed = [record for record in every if record.error is not None]
    clustered = [sizes for record in every for sizes in _clustered(record)]
    return Summary(
        num_problems=len(every),
        num_failed=len(failed),
        num_undecided=sum(record.correct is None for record in graded),
        accuracy=right / len(graded) if graded else None,
        accuracy_ci95=wilson_interval(right, len(graded)) if graded else None,
        config_hash=config_hash,
        settings=settings,
        stats=sum_stats(Stats(**record.stats) for record in every),  # type: ignore[arg-type]
        seconds_wall=sum(float(one["seconds"]) for one in sessions),
        seconds_loading=sum(float(one.get("seconds_loading", 0)) for one in sessions),
        num_timed=sum(int(one["num_problems"]) for one in sessions),
        num_resumed=num_resumed,
        failures=tuple(f"problem {record.problem_id} failed: {record.error}" for record in failed),
        notes=dict(Counter(_LEVEL.sub("", note) for record in every for note in record.notes).most_common()),
        models=total_costs(record.models for record in every),
        leaves_mean=fmean(leaves for leaves, _ in clustered) if clustered else None,
        clusters_mean=fmean(clusters for _, clusters in clustered) if clustered else None,
    )


def _clustered(record: ProblemRecord) -> Iterator[tuple[int, int]]:
    """How many candidates, and how many clusters, each selection had that made clusters."""
    nodes = () if record.tree is None else record.tree.nodes
    for one in record.selections if nodes else ():
        clusters = {nodes[node].cluster for node in one.candidates}
        if None not in clusters:
            yield len(one.candidates), len(clusters)


def with_grader(settings: EvalSettings) -> EvalSettings:
    """Settle the grader: the mini family's answers are integers and need no more than their digits."""
    if settings.grader != "auto":
        return settings
    grader = "plain" if settings.data.startswith("mini:") else "math"
    return build(type(settings), {**settings.model_dump(include=settings.model_fields_set), "grader": grader})


@dataclass(slots=True)
class Session:
    """One call's part of a run: what it solved, and how long that took.

    Attributes:
        num_problems: solved in it.
        seconds: wall time in which problems were being solved.
        seconds_loading: wall time before that, in which models were loaded or servers asked.
        cpu_seconds: of this process, all threads.
        policy_tokens: sampled in it.
        kv_tokens_sum: `kv_tokens_mean` summed over its problems.
    """

    num_problems: int = 0
    seconds: float = 0.0
    seconds_loading: float = 0.0
    cpu_seconds: float = 0.0
    policy_tokens: int = 0
    kv_tokens_sum: float = 0.0
    _started: float = field(default=0.0, repr=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block, also where it is left by an error or an interruption."""
        self._started, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds, self.cpu_seconds = time.perf_counter() - self._started, time.process_time() - cpu

    def add(self, record: ProblemRecord) -> None:
        """Count a problem that was solved."""
        self.num_problems += 1
        self.policy_tokens += int(record.stats["policy_tokens"] or 0)
        self.kv_tokens_sum += float(record.stats["kv_tokens_mean"] or 0)

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled so far over the wall time so far."""
        return self.policy_tokens / max(1e-9, time.perf_counter() - self._started)

    @property
    def kv_tokens(self) -> float:
        """KV tokens kept, mean over its problems."""
        return self.kv_tokens_sum / max(1, self.num_problems)

    def to_dict(self) -> dict[str, float | int]:
        """As the run keeps it."""
        return {item.name: getattr(self, item.name) for item in fields(self) if not item.name.startswith("_")}


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
            on_progress: told of every problem that ends.
            load: gives the search models that outlive it; None: it loads its own, and they end with it.
        """
        self._session = Session()
        todo = [problem for problem in self.problems if problem.id not in self._records]
        if todo:
            async with self.search if load is None else nullcontext():
                # Models that cannot be had are wrong input, said once and not for every problem.
                start = time.perf_counter()
                if load is not None:
                    await asyncio.to_thread(load, self.search)
                infos = await asyncio.to_thread(engine_infos, self.search)
                if self.search.settings.flush_cache:
                    await flush_caches(self.search)
                self._begin_session(infos)
                self._session.seconds_loading = time.perf_counter() - start
                try:
                    with loaded_for_good(), self._session.running():
                        async for item in self.search.asolve_many(todo, concurrency):
                            self._keep(item)
                            on_progress(len(self._records), self._note())
                finally:
                    self._end_session(concurrency, infos)
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

    def _keep(self, found: Result | Failure) -> None:
        if isinstance(found, Failure):
            record = failed_record(self.config_hash, found.problem, str(found.error))
        else:
            record = found.to_record(self.config_hash)
        self._records[record.problem_id] = record
        self._session.add(record)
        if self._directory is not None:
            self._directory.save(record)

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

    def _end_session(self, concurrency: int, infos: Mapping[str, Any]) -> None:
        """Keep how long it took, session by session; only one that was killed outright is not there."""
        undecided = getattr(self.search.grader, "num_undecided", 0)
        session = self._session.to_dict()
        self._sessions = [
            *self._sessions,
            {**session, "concurrency": concurrency, "num_undecided_grades": undecided, "engines": infos},
        ]
        if self._directory is not None:
            self._directory.note(sessions=self._sessions)

    def _note(self) -> str:
        """Accuracy so far, and this session's speed and cache."""
        graded = [record.correct is True for record in self._records.values() if record.reference is not None]
        accuracy = f"accuracy {sum(graded) / len(graded):.3f}, " if graded else ""
        return f"{accuracy}{self._session.tokens_per_second:.0f} tokens/s, KV {self._session.kv_tokens:.0f}"


@contextmanager
def loaded_for_good() -> Iterator[None]:
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


def provenance(search: Search) -> dict[str, Any]:
    """What a run directory says of how it came about."""
    return {
        "version": package_version(),
        "commit": _commit(),
        "argv": command_line(sys.argv),
        "python": platform.python_version(),
        "config_hash": search.config_hash,
        "seed": search.settings.seed,
        "settings": search.record,
        "notes": list(search.notes),
        "weights": model_weights(search.settings),
    }


def model_weights(settings: SearchSettings) -> dict[str, str]:
    """Fingerprints of the checkpoints that run in this process, by role, as far as their files are at hand."""
    found = {part.role: weights_of(part.model) for part in parts(settings) if not part.served}
    if settings.prm.startswith("probe:"):
        found["prm"] = weights_of(settings.prm)
    return {role: value for role, value in found.items() if value is not None}


def command_line(argv: Iterable[str]) -> list[str]:
    """A command line as it may be kept: its keys are left out."""
    kept: list[str] = []
    for word in argv:
        flag, equals, _ = word.partition("=")
        hidden = f"{flag}=***" if equals and flag in _KEY_FLAGS else word
        kept.append("***" if kept and kept[-1] in _KEY_FLAGS else hidden)
    return kept


_KEY_FLAGS = frozenset({"--engine-api-key", "--api-key"})


async def flush_caches(search: Search) -> None:
    """Empty the caches that outlive a search, so that a run pays for its own prompts.

    Raises:
        ConfigError: a server does not do so.
    """
    for engine in dict.fromkeys(engines_of(search).values()):
        if isinstance(engine, CachingEngine):
            try:
                await engine.flush_cache()
            except EngineError as error:
                raise ConfigError(f"flush_cache: {error}") from error


def engines_of(search: Search) -> dict[str, Engine]:
    """The engines of a search by role; loads them."""
    driver = search.driver
    return {**driver.writer.engines, **(driver.scorer.engines if driver.scorer is not None else {})}


def engine_infos(search: Search) -> dict[str, Any]:
    """What the engines of a search are, by role; loads them."""
    return {role: asdict(engine.info) for role, engine in engines_of(search).items()}


def package_version() -> str:
    """The installed version of this distribution."""
    try:
        return version("ets-arbitrage")
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str | None:
    """The commit of the source tree this runs from; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
