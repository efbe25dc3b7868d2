"""Recorded steps as levels of a search: whole solutions cut into steps, or the trees of a real run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from search.answers.graders import Grader
from search.errors import ConfigError, DataError
from search.replay import replay
from search.results.record import ProblemRecord, tree_from_record
from search.runs.report import read_run
from search.setup.registry import make_grader
from search.studies.recorded import PieceTokenizer, read_solutions
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, NodeStatus, Reduce, Step

LEVELS = 2
"""Of whole solutions; deeper steps of independent ones have nothing in common."""


@dataclass(frozen=True, slots=True)
class Level:
    """One selection that a method is to make.

    Attributes:
        problem: whose it is.
        depth: of its candidates.
        tree: its open leaves are the candidates; what had ended before is finished.
        width: children to hand out: one for each solution that goes on.
        right: the share of a candidate's recorded continuations that end in a right answer.
        scored: whether the candidates have the rewards of a run.
    """

    problem: str
    depth: int
    tree: SearchTree
    width: int
    right: Mapping[NodeId, float]
    scored: bool = False

    def kept_tokens(self, leaves: Iterable[NodeId]) -> int:
        """Tokens of the steps on the paths to some leaves, each once, without the prompt, which all keep."""
        return self.tree.unique_tokens((ROOT, *leaves)) - len(self.tree.root.ids)


class RecordedLevels(NamedTuple):
    """Levels to select at.

    Attributes:
        levels: those of one problem follow each other, in the order of the problems.
        reduce: which reward of a leaf's path is meant.
    """

    levels: tuple[Level, ...]
    reduce: Reduce


def read_levels(path: Path, limit: int | None = None) -> RecordedLevels:
    """Read a file of solutions or a run's folder.

    Args:
        path: rows `problem`, `text`, `answer`, `correct`; or what `ets eval --out` wrote.
        limit: problems at most.

    Raises:
        ConfigError: there is nothing there, or nothing of this kind.
        DataError: a row or record is not what it must be, or no level has a candidate.
    """
    if not path.exists():
        raise ConfigError(f"data {str(path)!r}: there is no such file or folder")
    recording = _read_run(path, limit) if path.is_dir() else RecordedLevels(_read_solutions(path, limit), "last")
    if not recording.levels:
        raise DataError(f"{path}: no level of it has an unfinished step whose continuation is recorded")
    return recording


def _read_solutions(file: Path, limit: int | None) -> tuple[Level, ...]:
    return tuple(
        level
        for problem, written in list(read_solutions(file).items())[:limit]
        for depth in range(1, LEVELS + 1)
        if (level := _level_of(problem, written, depth)).right
    )


def _level_of(problem: str, solutions: Sequence[tuple[list[str], bool]], depth: int) -> Level:
    """The steps of this depth of some solutions, as leaves of a tree in which equal beginnings are one path."""
    tree = SearchTree(problem, (0,), "", seed=0)
    nodes: dict[tuple[str, ...], NodeId] = {(): ROOT}
    tokenizer = PieceTokenizer()
    verdicts: defaultdict[NodeId, list[bool]] = defaultdict(list)
    for steps, correct in solutions:
        ends = len(steps) <= depth
        for end in range(1, len(steps) if ends else depth + 1):
            if (path := tuple(steps[:end])) not in nodes:
                nodes[path] = _grow(tree, nodes[path[:-1]], steps[end - 1], tokenizer)
        if ends:
            tree.finish(_grow(tree, nodes[tuple(steps[:-1])], "".join(steps[-1:]), tokenizer), "ended")
        else:
            verdicts[nodes[tuple(steps[:depth])]].append(correct)
    right = {leaf: sum(below) / len(below) for leaf, below in verdicts.items()}
    return Level(problem, depth, tree, sum(map(len, verdicts.values())), right)


def _grow(tree: SearchTree, parent: NodeId, text: str, tokenizer: PieceTokenizer) -> NodeId:
    node = tree.add_child(parent)
    tree.write(Step(node, tokenizer.encode(text), text, FinishReason.STOP, "recorded"))
    return node


def _read_run(folder: Path, limit: int | None) -> RecordedLevels:
    run = read_run(folder)
    reduce: Any = run.settings.search_reduce
    grader = make_grader(run.settings.grader)
    records = sorted(run.records, key=lambda record: record.problem_id)[:limit]
    levels = [level for record in records for level in _levels_of(record, run.settings.width, grader)]
    return RecordedLevels(tuple(levels), reduce if reduce in get_args(Reduce) else "last")


def _levels_of(record: ProblemRecord, width: int, grader: Grader) -> list[Level]:
    """The selections of a record, over those of their candidates below which a trajectory finished."""
    if record.tree is None or record.reference is None:
        return []
    tree = tree_from_record(record.tree)
    verdicts: defaultdict[NodeId, list[bool]] = defaultdict(list)
    for end in tree.leaves(NodeStatus.FINISHED):
        answer = grader.extract(tree.solution_text(end.id))
        right = grader.correct(answer, record.reference) is True
        for node in tree.path(end.id)[:-1]:
            verdicts[node.id].append(right)
    ended = [node for node in tree if node.status is NodeStatus.FINISHED]
    levels = []
    for selection in replay(tree, record.selections):
        before = [node.id for node in ended if node.depth <= selection.depth]
        candidates = [node for node in selection.candidates if node in verdicts]
        if candidates and width > len(before):
            copy, moved = _part(tree, candidates, before)
            shares = {moved[node]: sum(verdicts[node]) / len(verdicts[node]) for node in candidates}
            scored = all(tree[node].reward is not None for node in candidates)
            levels.append(Level(record.problem_id, selection.depth, copy, width - len(before), shares, scored))
    return levels


def _part(
    tree: SearchTree, leaves: Sequence[NodeId], ended: Sequence[NodeId]
) -> tuple[SearchTree, dict[NodeId, NodeId]]:
    """A tree of the paths to some open leaves and to trajectories that have ended, and its nodes by those of `tree`."""
    part = SearchTree(tree.id, tree.root.ids, tree.root.text, tree.question, tree.root.seed)
    moved = {ROOT: ROOT}
    for node in sorted(tree.union((*leaves, *ended)) - {ROOT}):
        old = tree[node]
        assert old.parent is not None
        moved[node] = part.add_child(moved[old.parent])
        part.write(Step(moved[node], old.ids, old.text, FinishReason.STOP, old.writer))
        if old.reward is not None:
            part.set_reward(moved[node], old.reward)
    for node in ended:
        part.finish(moved[node], tree[node].reason)
    return part, moved
