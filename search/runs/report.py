"""What a kept run says: its summary, voted again under other rules without any model, and its plots."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from search.answers.graders import Grader
from search.catalogue import METHODS
from search.config import EvalSettings, build
from search.decision.verdict import decide
from search.decision.vote import candidates
from search.errors import ConfigError, DataError, check_choice
from search.problems.data import load_problems
from search.replay import replay
from search.results.record import ProblemRecord, read_json, read_record, tree_from_record
from search.runs.summary import Summary, summarise
from search.setup.registry import opened_grader
from search.support.plots import Point, Series, plot_accuracy
from search.support.statistics import Estimate, mean_estimate
from search.types import Reduce, VoteRule

PLOTS = ("accuracy-kv.png", "accuracy-latency.png", "kv-depth.png")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is kept.

    Attributes:
        folder: where.
        settings: resolved, as it ran or as it was voted again.
        config_hash: of the settings it ran with.
        records: finished ones in the order of the data, then any others by id; a run may not be complete.
        sessions: how long its calls took; see `search.runs.evaluation.Session`.
    """

    folder: Path
    settings: EvalSettings
    config_hash: str
    records: tuple[ProblemRecord, ...]
    sessions: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Method and writer, as a legend shows them."""
        by = "" if self.settings.writer == "model" else f", {self.settings.router}"
        return f"{self.settings.method_name}{by}"

    @property
    def summary(self) -> Summary:
        """Accuracy and cost of what is there."""
        return summarise(self.records, self.settings, self.config_hash, sessions=self.sessions)

    @property
    def problems_per_second(self) -> float | None:
        """Over all sessions; None where no problem was timed."""
        return self._rate("seconds")

    @property
    def problems_per_cpu_second(self) -> float | None:
        """As `problems_per_second` by the CPU seconds of the process, which other programs do not lengthen."""
        return self._rate("cpu_seconds")

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that models wrote, over all sessions; None where they were not counted."""
        return self._rate("seconds", "policy_tokens")

    def _rate(self, key: str, count: str = "num_problems") -> float | None:
        seconds = sum(float(one[key]) for one in self.sessions)
        counted = [int(one[count]) for one in self.sessions if one.get(count) is not None]
        return sum(counted) / seconds if seconds and any(counted) and len(counted) == len(self.sessions) else None


def read_run(folder: Path) -> Run:
    """A run from its folder; records of other settings are left out.

    Raises:
        ConfigError: there is no run.
        DataError: `run.json` or a record cannot be read.
    """
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{folder}: holds no run (no run.json); give a folder that ets eval --out wrote")
    kept = read_json(folder / "run.json")
    try:
        settings = build(EvalSettings, kept["settings"])
        config_hash = str(kept["config_hash"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'run.json'}: not a run of this version ({error!r})") from None
    records = [read_record(file) for file in sorted((folder / "problems").glob("*.json"))]
    records = [record for record in records if record.config_hash == config_hash]
    order = _order(settings, len(records))
    records.sort(key=lambda record: (order.get(record.problem_id, len(order)), record.problem_id))
    if not records:
        raise ConfigError(f"{folder}: holds no records yet")
    return Run(folder, settings, config_hash, tuple(records), tuple(kept.get("sessions", ())))


def _order(settings: EvalSettings, count: int) -> dict[str, int]:
    """The place of each problem in its data, where the data is at hand without a network."""
    if not settings.data.startswith("mini:"):
        return {}
    return {problem.id: place for place, problem in enumerate(load_problems(settings.data, count))}


def revote(run: Run, rule: str | None = None, reduce: str | None = None, grader: str | None = None) -> Run:
    """The run with other answers: its trees voted over again; None keeps what it ran with.

    Raises:
        ConfigError: an unknown choice, or a vote by rewards over trees that have none.
        DataError: a record's tree is broken.
    """
    settings = run.settings
    chosen_rule = _chosen("vote", rule, settings.vote, get_args(VoteRule))
    chosen_reduce = _chosen("reduce", reduce, settings.reduce, get_args(Reduce))
    with opened_grader(grader or settings.grader) as judge:
        records = tuple(_voted(record, chosen_rule, chosen_reduce, judge) for record in run.records)
    changed = {"vote": chosen_rule, "reduce": chosen_reduce, "grader": judge.name}
    return replace(run, settings=build(EvalSettings, {**settings.model_dump(), **changed}), records=records)


def _chosen(what: str, given: str | None, ran: str, accepted: tuple[str, ...]) -> Any:
    value = ran if given is None else given
    check_choice(what, value, accepted)
    return value


def _voted(record: ProblemRecord, rule: VoteRule, reduce: Reduce, grader: Grader) -> ProblemRecord:
    if record.tree is None:
        return record
    verdict = decide(tree_from_record(record.tree), rule, reduce, grader, record.reference)
    names = ("answer", "correct", "winner", "tally")
    return record.model_copy(update={name: getattr(verdict, name) for name in names})


def is_flat(run: Run) -> bool:
    """Whether its trajectories are independent samples, so that one says how good the model is by itself."""
    return METHODS[run.settings.method].policy == METHODS["best-of-n"].policy


def pass_at_1(run: Run) -> Estimate:
    """The share of right answers among single samples, mean over problems, and its 95% bootstrap interval.

    A sample without an answer, or one that failed, counts as wrong.

    Raises:
        ConfigError: no problem has a reference answer.
        DataError: a record's tree is broken.
    """
    with opened_grader(run.settings.grader) as judge:
        shares = [_share_right(record, run.settings, judge) for record in run.records if record.reference is not None]
    if not shares:
        raise ConfigError(f"{run.folder}: its problems have no reference answers, so no sample can be right")
    return mean_estimate(shares)


def _share_right(record: ProblemRecord, settings: EvalSettings, grader: Grader) -> float:
    if record.tree is None or record.reference is None:
        return 0.0
    found = candidates(tree_from_record(record.tree), "last", grader)
    return sum(grader.correct(one.answer, record.reference) is True for one in found) / settings.width


def report_dict(run: Run) -> dict[str, Any]:
    """As `ets report --json` prints a run."""
    return {
        "run": str(run.folder),
        "name": run.name,
        "problems_per_second": run.problems_per_second,
        "problems_per_cpu_second": run.problems_per_cpu_second,
        **run.summary.to_dict(),
    }


def plot_runs(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw `PLOTS` into a folder: runs of one method are one line, its widths the points; depth at the greatest width.

    Raises:
        ConfigError: matplotlib is not installed, a run has no reference answers, or the folder cannot be written to.
    """
    files = [folder / name for name in PLOTS]
    plot_accuracy(_against(runs, "kv_tokens_mean"), "KV cache kept, tokens a problem (mean over steps)", files[0])
    label = "latency, wall seconds a problem (as many side by side as the run had)"
    plot_accuracy(_against(runs, "seconds"), label, files[1])
    widest = max(run.settings.width for run in runs)
    depths = [_over_depth(run) for run in runs if run.settings.width == widest]
    label, y_label = "depth, steps below the prompt", "KV cache kept, tokens a problem"
    plot_accuracy(depths, label, files[2], y_label=y_label, from_zero=True)
    (folder / "plots.json").write_text(json.dumps([report_dict(run) for run in runs], indent=1) + "\n")
    return files


def _against(runs: Sequence[Run], cost: str) -> list[Series]:
    points: dict[str, list[Point]] = defaultdict(list)
    for run in runs:
        summary = run.summary
        if summary.accuracy is None or summary.accuracy_ci95 is None:
            raise ConfigError(f"{run.folder}: its problems have no reference answers, so there is no accuracy to plot")
        if (told := summary.stats[cost]) is None:
            raise ConfigError(f"{run.folder}: its server tells no {cost}, so there is nothing to plot accuracy against")
        value = float(told)
        value = value / summary.num_problems if cost == "seconds" else value
        points[run.name].append(Point(value, summary.accuracy, *summary.accuracy_ci95, f"{run.settings.width}"))
    return [Series(name, tuple(found)) for name, found in points.items()]


def _over_depth(run: Run) -> Series:
    """KV tokens after the selection at each depth, mean over the problems that get there; depth 0 is the prompt."""
    kept: dict[int, list[int]] = defaultdict(list)
    for record in run.records:
        if record.tree is None:
            continue
        tree = tree_from_record(record.tree)
        for one in replay(tree, record.selections):
            if one.kept:
                kept[one.depth].append(one.kv_tokens.kept)
    means = {depth: sum(found) / len(found) for depth, found in kept.items()}
    points = (Point(depth, mean, mean, mean) for depth, mean in means.items())
    return Series(f"{run.name}, width {run.settings.width}", tuple(points))
