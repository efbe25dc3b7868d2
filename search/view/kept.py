"""Kept searches for the viewer: a run's folder, or one record's file, voted over again without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from search.answers.graders import Grader
from search.config import method_name
from search.errors import ConfigError, DataError
from search.record import ProblemRecord, read_json, read_record, tree_from_record
from search.registry import make_grader
from search.tree import SearchTree
from search.types import NodeId, Problem, Reduce, VoteRule
from search.view.problem import problem_view
from search.vote import Candidate, candidates, vote


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
    method: str | None = None
    width: int | None = None
    rule: str | None = None
    reduce: str | None = None
    grader: str | None = None


def read_kept(path: Path, rule: VoteRule | None = None, reduce: Reduce | None = None) -> Kept:
    """Read what `ets eval --out`, or `ets solve --tree`, kept.

    A record that cannot be read is left out and named in `broken`.

    Args:
        path: a run's folder, or a record's file.
        rule: the vote; None for the record's own. A record that does not hold its vote is voted over again as its
            run was; without its run by weight where it has rewards, by majority where it has none.
        reduce: how rewards become a trajectory's weight; None for the run's own, or the last step's.

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
    for file in files:
        try:
            views.append(_view(read_record(file), settings, rule, reduce))
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
    return _Settings(
        str(kept.get("config_hash")),
        text.get("method"),
        width if isinstance(width, int) else None,
        text.get("vote"),
        text.get("reduce"),
        text.get("grader"),
    )


def _natural(problem_id: str) -> list[tuple[int, str]]:
    """A key by which test-2 comes before test-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", problem_id)]


def _view(record: ProblemRecord, run: _Settings, rule: VoteRule | None, reduce: Reduce | None) -> dict[str, Any]:
    """One record's view: the winning trajectory and the vote are found again in its tree."""
    settings = run if run.config_hash == record.config_hash else _Settings()
    tree = None if record.tree is None else tree_from_record(record.tree)
    shown: dict[str, Any] = {"answer": record.answer, "correct": record.correct}
    how = ""
    if tree is not None:
        _check_nodes(record, tree)
        verdict = _verdict(record, tree, settings, rule, reduce)
        how = verdict.how
        shown.update(answer=verdict.answer, correct=verdict.correct, chosen=verdict.chosen, vote=verdict.tally)
    view = problem_view(
        Problem(record.problem_id, record.problem, record.reference),
        tree,
        error=record.error,
        stats=record.stats,
        models=record.models,
        selections=record.selections,
        method=settings.method,
        width=settings.width,
        **shown,
    )
    return {**view, "vote_rule": how}


def _check_nodes(record: ProblemRecord, tree: SearchTree) -> None:
    """Raise a DataError where a record names nodes that its tree does not have."""
    named = [node for one in record.selections for node in (*one.candidates, *one.kept)]
    named += [] if record.winner is None else [NodeId(record.winner)]
    strays = [node for node in named if not 0 <= node < len(tree)]
    if strays:
        raise DataError(f"tree {tree.id}: there is no node {strays[0]}")


class _Verdict(NamedTuple):
    """A vote over a kept tree; `how` in words for the page, empty where it is not known."""

    how: str
    answer: str | None
    correct: bool | None
    chosen: tuple[int, ...]
    tally: Mapping[str, float]


def _verdict(
    record: ProblemRecord, tree: SearchTree, settings: _Settings, rule: VoteRule | None, reduce: Reduce | None
) -> _Verdict:
    """The record's own vote, or another. Unless that is asked for, answer and verdict stay those of the record."""
    if rule is None and reduce is None and record.winner is not None:
        how = _in_words(settings.rule, settings.reduce)
        return _Verdict(how, record.answer, record.correct, (record.winner,), record.tally)
    grader = make_grader(settings.grader or "plain")
    by_rewards: Reduce = reduce or _known(settings.reduce, get_args(Reduce), "last")
    voters = candidates(tree, by_rewards, grader)
    scored = all(voter.reward is not None for voter in voters if voter.answer is not None)
    by: VoteRule = rule or _known(settings.rule, get_args(VoteRule), "weighted" if scored else "majority")
    outcome, how = vote(voters, by), _in_words(by, by_rewards)
    if rule is None and reduce is None:
        return _Verdict(how, record.answer, record.correct, _best(voters, record.answer, grader), outcome.tally)
    correct = None if record.reference is None else grader.correct(outcome.answer, record.reference)
    return _Verdict(how, outcome.answer, correct, () if outcome.winner is None else (outcome.winner,), outcome.tally)


def _in_words(rule: str | None, reduce: str | None) -> str:
    if rule is None or rule == "majority":
        return rule or ""
    return f"{rule}, {reduce}"


def _known(value: str | None, accepted: tuple[str, ...], otherwise: str) -> Any:
    return value if value in accepted else otherwise


def _best(voters: tuple[Candidate, ...], answer: str | None, grader: Grader) -> tuple[int, ...]:
    """The trajectory of the highest reward among those that gave the record's answer; of equals the lowest node."""
    if answer is None:
        return ()
    key = grader.key(answer)
    agreeing = [voter for voter in voters if voter.answer is not None and key in (voter.key, grader.key(voter.answer))]
    if not agreeing:
        return ()
    return (max(agreeing, key=lambda voter: (0.0 if voter.reward is None else voter.reward, -voter.node)).node,)
