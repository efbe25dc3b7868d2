"""What is kept of a search: one versioned JSON file per problem, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from search.decision.verdict import Verdict
from search.errors import ConfigError, DataError
from search.ledger import ModelCost, Stats
from search.loop.outcome import SearchOutcome
from search.support.files import sweep_parts, write_atomic
from search.tree import Node, SearchTree
from search.types import NodeId, NodeStatus, Problem, Selected

VERSION: Final = 2
"""Of a record's layout and of the draws behind it. Before 2 a node's seed came from the order of creation."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_stats(values: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """Refuse statistics of another layout. What a search counts is 0 in those of before it was counted."""
    values = {"tokens_thrown": 0, "num_hopeless": 0, **values}
    names = {item.name for item in fields(Stats)}
    if values.keys() != names:
        raise ValueError(f"statistics differ: {', '.join(sorted(values.keys() ^ names))}")
    return values


def _rounded(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(round(value, 5) for value in values)


StatsRecord = Annotated[dict[str, float | int | None], AfterValidator(_known_stats)]
"""The fields of `search.ledger.Stats`."""


class NodeRecord(_Record):
    """A node as it is kept; see `search.tree.Node`. Features are left out: they can be computed again.

    Log-probabilities are rounded to 5 decimals.
    """

    id: int
    parent: int | None
    depth: int
    ids: tuple[int, ...]
    text: str
    reward: float | None
    writer: str
    status: NodeStatus
    reason: str
    seed: int
    seconds_write: float
    seconds_score: float
    estimate: float | None
    dropped_tokens: int
    cluster: int | None = None
    forced_tokens: int = 0
    logprobs: Annotated[tuple[float, ...] | None, AfterValidator(_rounded)] = None


class TreeRecord(_Record):
    """A whole tree, nodes in the order of their ids."""

    id: str
    question: str
    nodes: tuple[NodeRecord, ...]


class ProblemRecord(_Record):
    """One problem's search.

    Attributes:
        version: of this layout.
        config_hash: of the settings it ran with.
        problem_id, problem, reference: what was asked, and the reference answer.
        answer, correct: what the vote gave, and whether it is right (None without a reference, or undecided).
        error: why the search as a whole failed; None if it did not.
        winner: the last node of the best trajectory that gives the answer; None in records from before it was kept.
        tally: the weight each answer got, heaviest first.
        tree, stats, notes, selections, models: as in `search.loop.outcome.SearchOutcome`.
    """

    version: Literal[2] = VERSION
    config_hash: str
    problem_id: str
    problem: str
    reference: str | None
    answer: str | None
    correct: bool | None
    error: str | None
    winner: int | None = None
    tally: dict[str, float] = {}
    stats: StatsRecord
    notes: tuple[str, ...]
    selections: tuple[Selected, ...]
    models: dict[str, ModelCost] = {}
    tree: TreeRecord | None

    @property
    def asked(self) -> Problem:
        """What was asked."""
        return Problem(self.problem_id, self.problem, self.reference)

    def outcome(self) -> SearchOutcome | None:
        """The search again, without features; None for one that broke before it had a tree.

        Raises:
            DataError: the nodes are not a tree, or there is no node of a number that is named.
        """
        if self.tree is None:
            return None
        tree = tree_from_record(self.tree)
        named = [node for one in self.selections for node in (*one.candidates, *one.kept)]
        named += [] if self.winner is None else [NodeId(self.winner)]
        if strays := [node for node in named if not 0 <= node < len(tree)]:
            raise DataError(f"tree {tree.id}: there is no node {strays[0]}")
        stats = Stats(**self.stats)  # type: ignore[arg-type]
        return SearchOutcome(self.asked, tree, stats, self.notes, self.selections, self.models)


def tree_record(tree: SearchTree) -> TreeRecord:
    """The record of a tree."""
    names = NodeRecord.model_fields
    nodes = tuple(NodeRecord(**{name: getattr(node, name) for name in names}) for node in tree)
    return TreeRecord(id=tree.id, question=tree.question, nodes=nodes)


def tree_from_record(record: TreeRecord) -> SearchTree:
    """The tree again, for voting, grading and viewing; it has no features.

    Raises:
        DataError: the nodes are not a tree.
    """
    if not record.nodes or record.nodes[0].parent is not None:
        raise DataError(f"tree {record.id}: the first node must be the root")
    root = record.nodes[0]
    tree = SearchTree(record.id, root.ids, root.text, record.question, root.seed)
    tree.root.status, tree.root.reason = root.status, root.reason
    for kept in record.nodes[1:]:
        if kept.id != len(tree) or kept.parent is None or not 0 <= kept.parent < kept.id:
            raise DataError(f"tree {record.id}: node {kept.id} is out of place")
        values = kept.model_dump()
        values.update(id=NodeId(kept.id), parent=NodeId(kept.parent))
        values["num_path_tokens"] = tree.nodes[kept.parent].num_path_tokens + len(kept.ids)
        tree.restore(Node(**values))
    return tree


def stats_record(stats: Stats) -> dict[str, float | int | None]:
    """The statistics as a flat mapping, seconds rounded to microseconds."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(stats).items()}


def costs_record(models: Mapping[str, ModelCost]) -> dict[str, dict[str, Any]]:
    """Costs by role as JSON values, with what follows from them."""
    return {
        role: {**asdict(cost), "thrown_tokens": cost.thrown_tokens, "flops": cost.flops}
        for role, cost in models.items()
    }


class RunDirectory:
    """A run on disk: `run.json` (settings and provenance), `problems/*.json` (records), `summary.json`."""

    def __init__(self, path: Path) -> None:
        """Name the place; nothing is read or written yet."""
        self.path = path

    def open(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Start the run, or go on with it.

        Args:
            run: what `run.json` is to hold; `config_hash` and `weights` decide whether an earlier run may be gone on
                with.

        Returns:
            What `run.json` holds.

        Raises:
            ConfigError: the place holds a run with other settings or other weights, or cannot be written to.
            DataError: its `run.json` cannot be read, or is of another version.
        """
        for folder in (self.path, self.path / "problems"):
            sweep_parts(folder)
        file = self.path / "run.json"
        if not file.exists():
            begun = {**run, "record_version": VERSION}
            write_atomic(file, json.dumps(begun, indent=1) + "\n")
            return begun
        existing = read_json(file)
        check_version(file, existing.get("record_version", 1))
        if existing.get("config_hash") != run["config_hash"]:
            changed = _difference(existing.get("settings", {}), run.get("settings", {}))
            raise ConfigError(
                f"{self.path} holds a run with other settings ({changed}); give another --out, or the same settings"
            )
        before, now = existing.get("weights", {}), run.get("weights", {})
        changed = ", ".join(role for role in before if role in now and before[role] != now[role])
        if changed:
            raise ConfigError(
                f"{self.path} holds a run with other weights: the files of {changed} have changed since; "
                "give another --out, or the same weights"
            )
        return existing

    def note(self, **values: Any) -> None:
        """Keep more in `run.json`."""
        file = self.path / "run.json"
        write_atomic(file, json.dumps({**read_json(file), **values}, indent=1) + "\n")

    def record_file(self, problem_id: str) -> Path:
        """Where a problem's record lies; the name is safe on every file system and unique for the id."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", problem_id)[:80].lstrip(".")
        if safe != problem_id:
            safe = f"{safe}-{hashlib.sha256(problem_id.encode()).hexdigest()[:8]}"
        return self.path / "problems" / f"{safe}.json"

    def save(self, record: ProblemRecord) -> None:
        """Write a problem's record, atomically."""
        write_atomic(self.record_file(record.problem_id), record.model_dump_json() + "\n")

    def load(self, problem: Problem, config_hash: str) -> ProblemRecord | None:
        """A problem's finished record; None if it is missing, unreadable, of a failed search or of other settings.

        Raises:
            ConfigError: it is of a problem with another text or reference: the data changed below the run.
        """
        try:
            record = read_record(self.record_file(problem.id))
        except DataError:
            return None
        if record.config_hash != config_hash or record.error is not None or record.problem_id != problem.id:
            return None
        if (record.problem, record.reference) != (problem.text, problem.answer):
            what = "text" if record.problem != problem.text else "reference"
            raise ConfigError(
                f"{self.path} holds a run of other data: problem {problem.id} has another {what} now; give another "
                "--out, or the data it ran on"
            )
        return record


def read_record(file: Path) -> ProblemRecord:
    """Read a problem's record.

    Raises:
        DataError: the file cannot be read or is not a record.
    """
    try:
        text = file.read_bytes()
        if (found := re.match(rb'\{"version":(\d+),', text)) is not None:
            check_version(file, int(found[1]))
        return ProblemRecord.model_validate_json(text)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None
    except ValidationError as error:
        raise DataError(f"{file}: not a problem's record ({error.errors()[0]['msg']})") from None


def check_version(file: Path, version: object) -> None:
    """Refuse what was kept by another version of this program.

    Raises:
        DataError: says which version reads it.
    """
    if version != VERSION:
        raise DataError(
            f"{file}: kept in layout {version}, this program reads layout {VERSION}; "
            "run it again (in another folder), or read it with the version that wrote it"
        )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None
    except ValueError:
        raise DataError(f"{file}: not valid JSON") from None
    if not isinstance(values, dict):
        raise DataError(f"{file}: must hold an object")
    return values


def problem_record(config_hash: str, outcome: SearchOutcome, verdict: Verdict) -> ProblemRecord:
    """The record of a search and of what its trajectories were found to say."""
    return ProblemRecord(
        config_hash=config_hash,
        problem_id=outcome.problem.id,
        problem=outcome.problem.text,
        reference=outcome.problem.answer,
        answer=verdict.answer,
        correct=verdict.correct,
        error=outcome.error,
        winner=verdict.winner,
        tally=dict(verdict.tally),
        stats=stats_record(outcome.stats),
        notes=outcome.notes,
        selections=outcome.selections,
        models=dict(outcome.models),
        tree=tree_record(outcome.tree),
    )


def failed_record(config_hash: str, problem: Problem, error: str) -> ProblemRecord:
    """The record of a search that broke before it had a tree."""
    return ProblemRecord(
        config_hash=config_hash,
        problem_id=problem.id,
        problem=problem.text,
        reference=problem.answer,
        answer=None,
        correct=None,
        error=error,
        stats=stats_record(Stats()),
        notes=(),
        selections=(),
        tree=None,
    )


def _difference(known: object, new: object) -> str:
    if not isinstance(known, Mapping) or not isinstance(new, Mapping):
        return "its run.json has none that can be read"
    names = [name for name in sorted({*known, *new}) if known.get(name) != new.get(name) and new.get(name) != "auto"]
    # What only one of them has may not be settled yet, as the prompt is before its model is loaded.
    names = [name for name in names if name in known and name in new] or names
    shown = [f"{name}: {known.get(name, 'none')} there, {new.get(name, 'none')} now" for name in names[:3]]
    return "; ".join(shown) + (" ..." if len(names) > 3 else "") if shown else "no settings recorded"
