"""One problem's search as the viewer reads it: flat columns over its nodes, and no token ids."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from search.decision.verdict import Verdict
from search.loop.outcome import SearchOutcome
from search.replay import Replayed, being_written, is_by_depth, replay
from search.results.record import costs_record, stats_record
from search.tree import Node, SearchTree
from search.types import Problem

VIEW_VERSION: Final = 1

_REWARD_DIGITS = 4
_SECONDS_DIGITS = 4


def problem_view(
    problem: Problem,
    outcome: SearchOutcome | None,
    verdict: Verdict | None = None,
    *,
    error: str | None = None,
    method: str | None = None,
    width: int | None = None,
    running: bool = False,
) -> dict[str, Any]:
    """What the viewer shows of one problem, as JSON values.

    Args:
        problem: what was asked.
        outcome: of the search, as far as it has come; None for one that broke before it had a tree.
        verdict: what its trajectories were found to say; None for a search that did not come to a vote, whose costs
            are not shown either.
        error: why the search as a whole failed.
        method: the search method's name.
        width: trajectories that were to be spent.
        running: whether the search goes on.

    Returns:
        A mapping with a version. `nodes` holds a column for each of a node's values, in the order of the ids; text,
        writer, status and reason are places in `strings`. A column in which nothing is known is None. `by_depth` says
        whether each selection is that of a depth; where not, each has the number of nodes that there were.
    """
    tree = None if outcome is None else outcome.tree
    ended = None if verdict is None else outcome
    given = Verdict() if verdict is None else verdict
    by_depth = outcome is None or is_by_depth(outcome.tree, outcome.selections)
    nodes, strings = ({}, []) if tree is None else _columns(tree)
    chosen = () if given.winner is None else (given.winner,)
    return {
        "version": VIEW_VERSION,
        "id": problem.id,
        "problem": problem.text,
        "reference": problem.answer,
        "answer": given.answer,
        "correct": given.correct,
        "error": error,
        "running": running,
        "method": method,
        "width": width,
        "num_nodes": 0 if tree is None else len(tree),
        "stats": None if ended is None else stats_record(ended.stats),
        "models": {} if ended is None else costs_record(ended.models),
        "vote": None
        if verdict is None
        else [[answer, _rounded(weight, _REWARD_DIGITS)] for answer, weight in verdict.tally.items()],
        "by_depth": by_depth,
        "selections": [] if outcome is None else _selections(outcome, by_depth),
        "chosen": [] if tree is None else sorted(tree.union(chosen)),
        "nodes": nodes,
        "strings": strings,
    }


def _selections(outcome: SearchOutcome, by_depth: bool) -> list[dict[str, Any]]:
    replayed = list(replay(outcome.tree, outcome.selections))
    shown = [_selection(one) for one in replayed]
    if not by_depth:
        for one, view, writing in zip(replayed, shown, being_written(outcome.tree, replayed), strict=True):
            view |= {"num_nodes": one.num_nodes, "writing": writing}
    return shown


def _selection(one: Replayed) -> dict[str, Any]:
    return {
        "depth": one.depth,
        "num_candidates": len(one.candidates),
        "kept": list(one.kept),
        "kv_tokens": one.kv_tokens.kept,
        "kv_tokens_candidates": one.kv_tokens.candidates,
        "cluster_distance": _rounded(one.cluster_distance, _REWARD_DIGITS),
    }


def _columns(tree: SearchTree) -> tuple[dict[str, list[Any] | None], list[str]]:
    """The nodes column by column, and the strings that columns point into."""
    places: dict[str, int] = {}

    def place(text: str) -> int:
        return places.setdefault(text, len(places))

    columns: dict[str, Callable[[Node], object]] = {
        "parent": lambda node: node.parent,
        "status": lambda node: place(node.status.value),
        "reason": lambda node: place(node.reason),
        "text": lambda node: place(node.text),
        "writer": lambda node: place(node.writer),
        "reward": lambda node: _rounded(node.reward, _REWARD_DIGITS),
        "estimate": lambda node: _rounded(node.estimate, _REWARD_DIGITS),
        "cluster": lambda node: node.cluster,
        "num_tokens": lambda node: len(node.ids),
        "dropped_tokens": lambda node: node.dropped_tokens or None,
        "seconds_write": lambda node: _rounded(node.seconds_write, _SECONDS_DIGITS),
        "seconds_score": lambda node: _rounded(node.seconds_score, _SECONDS_DIGITS),
    }
    filled = {name: [read(node) for node in tree] for name, read in columns.items()}
    known = {name: None if all(value is None for value in column) else column for name, column in filled.items()}
    return known, list(places)


def _rounded(value: float | None, digits: int) -> float | None:
    """JSON has no NaN and no infinity; neither is a value that a viewer could show."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
