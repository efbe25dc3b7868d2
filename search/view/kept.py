"""Kept searches for the viewer: a run's folder, or one record's file, voted over again without a model."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from search.answers.graders import Grader
from search.decision.verdict import Verdict, decide
from search.errors import ConfigError, DataError
from search.results.record import ProblemRecord, read_json, read_record
from search.setting_groups import method_name
from search.setup.registry import opened_grader
from search.tree import SearchTree
from search.types import NodeId, NodeStatus, Reduce, VoteRule
from search.view.problem import problem_view


@dataclass(frozen=True, slots=True)
class Kept:
    """What a path holds.

    Attributes:
        title: for the page.
        views: one of each readable record, in the order of their ids.
        broken: one line for each record that could not be read.
    """

    title: str
    views: tuple[dict[str, Any], ...]
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Settings:
    """How a record's search was run, as far as it is known."""

    config_hash: str | None = None
    width: int | None = None
    method: str | None = None
    vote: str | None = None
    reduce: str | None = None
    grader: str | None = None


def read_kept(path: Path, rule: VoteRule | None = None, reduce: Reduce | None = None) -> Kept:
    """Read what `ets eval --out`, or `ets solve --tree`, kept.

    A record that cannot be read is left out and named in `broken`.

    Args:
        path: a run's folder, or a record's file.
        rule: the vote; None for the record's own, or, beside another `reduce`, its run's; without its run by weight
            where it has rewards, by majority where it has none.
        reduce: how rewards become a trajectory's weight; None for the record's own, or, beside another `rule`, its
            run's; without its run the last step's.

    Raises:
        ConfigError: there is nothing there, or no record in it.
        DataError: `run.json`, or every record, cannot be read.
    """
    if path.is_dir():
        files, settings = _run_files(path), _run_settings(path)
    elif path.exists():
        run = path.resolve().parent.parent
        files, settings = [path], _run_settings(run) if (run / "run.json").is_file() else _Settings()
    else:
        raise ConfigError(f"{path}: there is no such file or folder")
    views, broken = [], []
    with ExitStack() as stack:
        graders = cache(lambda name: stack.enter_context(opened_grader(name)))
        for file in files:
            try:
                views.append(_view(read_record(file), settings, rule, reduce, graders))
            except DataError as error:
                broken.append(str(error) if str(file) in str(error) else f"{file}: {error}")
    if not views:
        raise DataError(broken[0] + (f"; nor can the {len(broken) - 1} others" if len(broken) > 1 else ""))
    views.sort(key=lambda view: _natural(view["id"]))
    return Kept(path.resolve().name, tuple(views), tuple(broken))


def _run_files(folder: Path) -> list[Path]:
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{folder}: holds no run (no run.json); give a folder that ets eval --out wrote")
    files = sorted((folder / "problems").glob("*.json"))
    if not files:
        raise ConfigError(f"{folder}: holds no records yet")
    return files


def _run_settings(folder: Path) -> _Settings:
    kept = read_json(folder / "run.json")
    settings = kept.get("settings")
    if not isinstance(settings, dict):
        raise DataError(f"{folder / 'run.json'}: not a run of this version (no settings)")
    width = settings.get("width")
    text = {name: str(settings[name]) for name in ("method", "vote", "reduce", "grader") if name in settings}
    if "method" in text:
        text["method"] = method_name(text["method"], str(settings.get("frontier", "level")))
    return _Settings(str(kept.get("config_hash")), width if isinstance(width, int) else None, **text)


def _natural(problem_id: str) -> list[tuple[int, str]]:
    """A key by which test-2 comes before test-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", problem_id)]


def _view(
    record: ProblemRecord,
    run: _Settings,
    rule: VoteRule | None,
    reduce: Reduce | None,
    graders: Callable[[str], Grader],
) -> dict[str, Any]:
    """One record's view, with its own vote or another."""
    settings = run if run.config_hash == record.config_hash else _Settings()
    outcome, by, by_rewards = record.outcome(), settings.vote, settings.reduce
    winner = None if record.winner is None else NodeId(record.winner)
    verdict = Verdict(record.answer, record.correct, winner, record.tally)
    if outcome is not None and (rule is not None or reduce is not None):
        by_rewards = reduce or _accepted(by_rewards, get_args(Reduce), "last")
        by = rule or _accepted(by, get_args(VoteRule), "weighted" if _is_scored(outcome.tree) else "majority")
        verdict = decide(outcome.tree, by, by_rewards, graders(settings.grader or "plain"), record.reference)
    view = problem_view(
        record.asked, outcome, verdict, error=record.error, method=settings.method, width=settings.width
    )
    return {**view, "vote_rule": "" if outcome is None else _in_words(by, by_rewards)}


def _is_scored(tree: SearchTree) -> bool:
    """Whether every finished trajectory has rewards to vote by."""
    ends = tree.leaves(NodeStatus.FINISHED)
    return all(any(step.reward is not None for step in tree.path(end.id)) for end in ends)


def _in_words(rule: str | None, reduce: str | None) -> str:
    if rule is None or rule == "majority":
        return rule or ""
    return f"{rule}, {reduce}"


def _accepted(value: str | None, accepted: tuple[str, ...], otherwise: str) -> Any:
    return value if value in accepted else otherwise
