"""Kept runs side by side: accuracy with paired differences, KV cache, tokens and time, on the problems they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from search.catalogue import METHODS
from search.config import METHOD_OPTIONS, TRANSPORT
from search.errors import ConfigError
from search.results.record import ProblemRecord
from search.runs.report import Run
from search.setup.resolve import record_of
from search.support.plots import Point, Series, plot_accuracy
from search.support.statistics import Estimate, Interval, paired_estimate, wilson_interval
from search.support.tables import Cell, Table, difference, share

_FOLLOWS = frozenset(
    {"method", "width", "writer", "limit", "reduce", "search_reduce", "prm_codec", "prm_engine", "vote", *TRANSPORT}
)
"""Settings that have a column already, or follow from others."""

_SHOWN_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Row:
    """One run's figures.

    Attributes:
        run: its folder.
        method: its name, and the router if there is one.
        width: trajectories.
        varies: settings in which the compared runs differ, as far as this one uses them.
        accuracy, interval: share of right answers and Wilson's 95% interval; None without references.
        less_first: accuracy less the first run's, paired; None for the first one itself, and without references.
        num_failed: problems whose search failed; they count as wrong.
        kv_tokens_mean: unique tokens of the trajectories kept after a selection, prompt included, mean over the
            selections of a problem, then over problems.
        policy_tokens: tokens that models wrote for a problem, dropped ones included.
        target_tokens: those of them that the target wrote; a single model is its own target.
        seconds_wall: in which problems were being solved, over all calls of the run, also where fewer are compared;
            None where some of its problems were not timed.
        problems_per_hour: solved in those calls; None where no problem was timed.
        cost: a problem's, by the run's own price; None without one, or where its server told no tokens.
    """

    run: Path
    method: str
    width: int
    varies: Mapping[str, Any]
    accuracy: float | None
    interval: Interval | None
    less_first: Estimate | None
    num_failed: int
    kv_tokens_mean: float | None
    policy_tokens: float | None
    target_tokens: float | None
    seconds_wall: float | None
    problems_per_hour: float | None
    cost: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Flat, for other programs."""
        low, high = self.interval or (None, None)
        less, less_low, less_high = self.less_first or (None, None, None)
        told = {item.name: getattr(self, item.name) for item in fields(self)}
        del told["interval"], told["less_first"]
        return {
            **told,
            "run": str(self.run),
            "varies": dict(self.varies),
            "accuracy_lo": low,
            "accuracy_hi": high,
            "accuracy_diff": less,
            "accuracy_diff_lo": less_low,
            "accuracy_diff_hi": less_high,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs over the same problems.

    Attributes:
        rows: in the order in which the runs were named; the first is what the others are compared with.
        num_problems: that all of them have.
        notes: what must be known to read the table.
    """

    rows: tuple[Row, ...]
    num_problems: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As `--format json` prints it."""
        rows = [row.to_dict() for row in self.rows]
        return {"num_problems": self.num_problems, "notes": list(self.notes), "runs": rows}

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return self.table().html()

    def table(self) -> Table:
        """The table that people read."""
        varying = list(dict.fromkeys(name for row in self.rows for name in row.varies))
        priced = any(row.cost is not None for row in self.rows)
        title = f"{len(self.rows)} runs on the same {self.num_problems} problem{'s' * (self.num_problems != 1)}"
        return Table.of("compare", title, [_cells(row, varying, priced=priced) for row in self.rows], self.notes)


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs on the problems that all of them have: the same id, text and reference.

    Raises:
        ConfigError: fewer than two runs, or no problem that all have.
    """
    if len(runs) < 2:
        raise ConfigError("give two runs or more; ets report sums up a single one")
    shared = set.intersection(*({_key(record) for record in run.records} for run in runs))
    if not shared:
        sources = dict.fromkeys(run.settings.data for run in runs)
        raise ConfigError(f"these runs have no problem in common; their data: {', '.join(sources)}")
    notes = []
    if any(len(run.records) != len(shared) for run in runs):
        counts = ", ".join(f"{run.folder} {len(run.records)}" for run in runs)
        notes.append(f"On the {len(shared)} problems that all runs have; each has: {counts}.")
    graders = dict.fromkeys(run.settings.grader for run in runs)
    if len(graders) > 1:
        notes.append(f"The answers were graded by different graders: {', '.join(graders)}.")
    votes = {run.name: run.settings.vote for run in runs}
    if len(set(votes.values())) > 1:
        notes.append("Votes: " + ", ".join(f"{name} {vote}" for name, vote in votes.items()) + ".")
    # Sorted, so that pairs are pairs, and a resumed run gives the same interval.
    kept = [sorted((one for one in run.records if _key(one) in shared), key=_key) for run in runs]
    varies = _varying(runs)
    rows = [
        _row(run, records, kept[0] if place else None, varies[place])
        for place, (run, records) in enumerate(zip(runs, kept, strict=True))
    ]
    return Comparison(tuple(rows), len(shared), tuple(notes))


def plot(comparison: Comparison, file: Path) -> None:
    """Draw accuracy against the KV cache kept: a line for each method, its widths the points.

    Raises:
        ConfigError: matplotlib is not installed, a run has no accuracy, or the file cannot be written.
    """
    points: defaultdict[str, list[Point]] = defaultdict(list)
    for row in comparison.rows:
        if row.kv_tokens_mean is None:
            raise ConfigError(
                f"{row.run}: its server tells no tokens, so there is no KV cache to plot accuracy against"
            )
        if row.accuracy is None or row.interval is None:
            raise ConfigError(f"{row.run}: its problems have no reference answers, so there is no accuracy to plot")
        points[row.method].append(Point(row.kv_tokens_mean, row.accuracy, *row.interval, f"{row.width}"))
    series = [Series(name, tuple(found)) for name, found in points.items()]
    plot_accuracy(series, "KV cache kept, tokens a problem (mean over steps)", file)


def paired(ours: Sequence[ProblemRecord], theirs: Sequence[ProblemRecord]) -> Estimate:
    """Accuracy of `ours` less that of `theirs`, record by record of the same problems."""
    return paired_estimate(*([float(record.correct is True) for record in records] for records in (ours, theirs)))


def _key(record: ProblemRecord) -> tuple[str, str, str]:
    return record.problem_id, record.problem, record.reference or ""


def _row(
    run: Run, records: Sequence[ProblemRecord], first: Sequence[ProblemRecord] | None, varies: Mapping[str, Any]
) -> Row:
    graded = [place for place, record in enumerate(records) if record.reference is not None]
    right = sum(records[place].correct is True for place in graded)
    written = [record.stats["policy_tokens"] for record in records]
    by_target = [record.models["target"].sampled_tokens for record in records if "target" in record.models]
    kv_tokens = [record.stats["kv_tokens_mean"] for record in records]
    summary, rate = run.summary, run.problems_per_second
    price = summary.price
    costs = [
        record.models["policy"].cost(price) for record in records if price is not None and "policy" in record.models
    ]
    less_first = None
    if first is not None and graded:
        less_first = paired([records[place] for place in graded], [first[place] for place in graded])
    return Row(
        run=run.folder,
        method=run.name,
        width=run.settings.width,
        varies=varies,
        accuracy=right / len(graded) if graded else None,
        interval=wilson_interval(right, len(graded)) if graded else None,
        less_first=less_first,
        num_failed=sum(record.error is not None for record in records),
        kv_tokens_mean=_each(kv_tokens, len(records)),
        policy_tokens=_each(written, len(records)),
        target_tokens=_each(written if run.settings.writer == "model" else by_target, len(records)),
        seconds_wall=summary.seconds_wall if summary.num_timed >= summary.num_problems else None,
        problems_per_hour=None if rate is None else 3600 * rate,
        cost=_each(costs, len(records)) if costs else None,
    )


def _each(values: Sequence[float | None], num_problems: int) -> float | None:
    """Their sum, a problem; None where one is not known."""
    told = [float(value) for value in values if value is not None]
    return sum(told) / num_problems if len(told) == len(values) else None


def _varying(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each run, the settings in which the runs differ: options of a method among the runs of that method alone."""
    kept = [_chosen(run) for run in runs]
    names: dict[str, None] = {}
    for place, settings in enumerate(kept):
        for at, earlier in enumerate(kept[:place]):
            alike = (runs[place].name, runs[place].settings.writer) == (runs[at].name, runs[at].settings.writer)
            for name in settings.keys() & earlier.keys():
                own = name in METHOD_OPTIONS or name.startswith("options.") or name == "embedder"
                if settings[name] != earlier[name] and (alike or not own):
                    names[name] = None
    return [{name: settings[name] for name in sorted(names) if name in settings} for settings in kept]


def _chosen(run: Run) -> dict[str, Any]:
    """A run's settings that somebody may have chosen, options of the method one by one."""
    values = record_of(run.settings)
    fixed = METHODS[run.settings.method].fixed
    options = {f"options.{name}": value for name, value in values.pop("options", {}).items()}
    return {name: value for name, value in (values | options).items() if name not in _FOLLOWS and name not in fixed}


def _cells(row: Row, varying: Sequence[str], *, priced: bool) -> list[tuple[str, Cell]]:
    return [
        ("run", str(row.run)),
        ("method", row.method),
        ("width", row.width),
        *((name.replace("_", " "), _short(row.varies.get(name))) for name in varying),
        ("accuracy (95%)", "unknown" if row.accuracy is None else share(row.accuracy, row.interval)),
        ("less the first (95%)", None if row.less_first is None else difference(*row.less_first)),
        ("KV tokens", _rounded(row.kv_tokens_mean)),
        ("policy tokens", _rounded(row.policy_tokens)),
        ("target tokens", _rounded(row.target_tokens)),
        ("wall s", None if row.seconds_wall is None else round(row.seconds_wall, 1)),
        ("problems/h", _rounded(row.problems_per_hour)),
        *([("cost a problem", None if row.cost is None else float(f"{row.cost:.3g}"))] if priced else []),
    ]


def _rounded(value: float | None) -> Cell:
    return None if value is None else round(value)


def _short(value: Any) -> Cell:
    if value is None or isinstance(value, int | float):
        return value
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
