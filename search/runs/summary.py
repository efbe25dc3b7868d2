"""What a run came to: one object over all its records, as JSON and as a few lines of text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from search.config import EvalSettings, SearchSettings
from search.ledger import ModelCost, Price, Stats, total, total_costs
from search.results.record import ProblemRecord, costs_record, stats_record
from search.setting_types import parse_price
from search.setup.resolve import record_of
from search.support.statistics import wilson_interval


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
            than the sum in `stats`. Loading is left out, and of a call that was killed what came after its last
            problem; None where no problem was timed.
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
    seconds_wall: float | None
    seconds_loading: float
    num_timed: int
    num_resumed: int
    failures: tuple[str, ...]
    notes: dict[str, int]
    models: dict[str, ModelCost]
    leaves_mean: float | None = None
    clusters_mean: float | None = None

    @property
    def price(self) -> Price | None:
        """What the policy's server asks; None where nobody said."""
        return None if self.settings.price is None else parse_price(self.settings.price)

    @property
    def cost(self) -> float | None:
        """What the run cost by `price`, in its currency; None without one, or where the server told no tokens."""
        policy = self.models.get("policy")
        return None if self.price is None or policy is None else policy.cost(self.price)

    def to_dict(self) -> dict[str, Any]:
        """As `ets eval --json` prints it: the totals of the statistics lie flat beside the rest."""
        apart = ("stats", "settings", "failures", "models")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in apart}
        stats = {"num_failed_nodes" if name == "num_failed" else name: value for name, value in self.stats.items()}
        settings = record_of(self.settings)
        models = costs_record(self.models)
        if self.price is not None:
            values["cost"] = self.cost
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
        most = settings.limit if isinstance(settings, EvalSettings) else None
        wanted = f" of at most {most}" if most is not None and self.num_problems < most else ""
        before = f", {self.num_resumed} done before" if self.num_resumed else ""
        lines = [
            f"{settings.method_name}, width {settings.width}, seed {settings.seed}, run {self.config_hash}",
            f"problems          {self.num_problems}{wanted}, {self.num_failed} failed{before}",
            f"accuracy          {accuracy}",
            f"policy tokens     {count(stats['computed_tokens'])} computed, {count(stats['unique_tokens'])} unique",
        ]
        if stats["tokens_thrown"]:
            lines.append(f"thrown away       {stats['tokens_thrown']} tokens written ahead")
        lines.append(f"reward tokens     {count(stats['prm_tokens'])} computed, {stats['prm_unique_tokens']} unique")
        mean, peak = stats["kv_tokens_mean"], stats["kv_tokens_peak"]
        kept = "unknown"
        if mean is not None and peak is not None:
            kept = f"{mean:.0f} kept on average, {peak:.0f} at most, mean over problems"
        lines.append(f"KV tokens         {kept}")
        if (price := self.price) is not None:
            cost = "unknown" if self.cost is None else f"{self.cost:.4g}"
            lines.append(f"cost              {cost}, at {price.prompt:g} and {price.written:g} a million tokens")
        if stats["num_hopeless"]:
            lines.append(f"given up          {stats['num_hopeless']} steps of too little confidence")
        if self.leaves_mean is not None:
            of = f"{self.clusters_mean:.1f} of {self.leaves_mean:.1f}"
            lines.append(f"clusters          {of} leaves at a selection, means")
        timed = "" if self.num_timed == self.num_problems else f" (of {self.num_timed} of {self.num_problems} problems)"
        wall = "unknown wall" if self.seconds_wall is None else f"{self.seconds_wall:.1f} wall{timed}"
        summed = f"{stats['seconds']:.1f} summed over problems"
        lines.append(f"seconds           {wall}, {summed}; loading {self.seconds_loading:.1f}")
        lines += [f"{role:17} {describe_cost(cost)}" for role, cost in self.models.items()]
        lines += [f"at {times:<5} selections {note}" for note, times in [*self.notes.items()][:_SHOWN_NOTES]]
        return "\n".join(lines)


def count(value: float | int | None) -> str:
    """A count, or that it is unknown."""
    return "unknown" if value is None else str(value)


def describe_cost(cost: ModelCost) -> str:
    """One model's cost in a line."""
    written = f", {cost.sampled_tokens} tokens written" if cost.sampled_tokens else ""
    dropped = f" ({cost.dropped_tokens} dropped, {cost.thrown_tokens} thrown away)" if cost.kept_tokens else ""
    flops = "unknown" if cost.flops is None else f"{cost.flops:.3g}"
    written = ", unknown tokens written" if cost.sampled_tokens is None else written
    written += "" if cost.prompt_tokens is None else f" for prompts of {cost.prompt_tokens}"
    return f"{cost.num_calls} calls{written}{dropped}, {cost.seconds:.2f} s, {flops} FLOPs"


_PARTICULARS = re.compile(r"^selection [0-9]+: |(?<=the vote is )[.0-9]+ (?=certain)|: [-+.0-9e]+ against .*$")
"""Of a note, what differs from search to search."""

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
    num_timed = sum(int(one["num_problems"]) for one in sessions)
    return Summary(
        num_problems=len(every),
        num_failed=len(failed),
        num_undecided=sum(record.correct is None for record in graded),
        accuracy=right / len(graded) if graded else None,
        accuracy_ci95=wilson_interval(right, len(graded)) if graded else None,
        config_hash=config_hash,
        settings=settings,
        stats=sum_stats(Stats(**record.stats) for record in every),  # type: ignore[arg-type]
        seconds_wall=sum(float(one["seconds"]) for one in sessions) if num_timed or not every else None,
        seconds_loading=sum(float(one.get("seconds_loading", 0)) for one in sessions),
        num_timed=num_timed,
        num_resumed=num_resumed,
        failures=tuple(f"problem {record.problem_id} failed: {record.error}" for record in failed),
        notes=dict(Counter(_PARTICULARS.sub("", note) for record in every for note in record.notes).most_common()),
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
