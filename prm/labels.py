"""Step-labelled solutions from .jsonl files, in the layouts of Math-Shepherd, PRM800K and ProcessBench.

Math-Shepherd: {"input", "label", "task"}; both hold the question and the solution, a tag "ки" after each step in the
first and '+' or '-' in its place in the second. PRM800K: {"question": {"problem"}, "label": {"steps": [{"completions":
[{"text", "rating"}], "human_completion", "chosen_completion"}]}}; ratings 1 and 0 count as right and -1 as wrong, as
for Qwen2.5-Math-7B-PRM800K. ProcessBench: {"problem", "steps", "label"}; the label is the first wrong step, or -1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from search.errors import ConfigError, DataError

STEP_TAG = "ки"
_FIRST_STEP = re.compile(r"\s*Step\s*1\s*:")
_NUMBER = re.compile(r"Step\s*\d+\s*:\s*")
_MARKS = {"+": True, "-": False}
_ACCEPTED = "accepted: Math-Shepherd's input and label, PRM800K's question and label.steps, ProcessBench's steps"


@dataclass(frozen=True, slots=True)
class LabelledSolution:
    """A question with a solution whose steps are judged.

    Attributes:
        question: the bare question.
        steps: texts, without their numbers.
        labels: for each step whether it is right; None where nobody said, or where another solution says it already.
        complete: whether the solution goes on to its end.
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[bool | None, ...]
    complete: bool = True

    @property
    def first_error(self) -> int | None:
        """The first wrong step; -1 if all are right; None where a label before it is missing."""
        for number, label in enumerate(self.labels):
            if label is None:
                return None
            if not label:
                return number
        return -1


def load_labelled(file: Path, limit: int | None = None) -> list[LabelledSolution]:
    """The solutions of a file's first `limit` lines, in order; a line of PRM800K may hold several.

    Raises:
        ConfigError: there is no such file.
        DataError: a broken line, labels that do not fit the steps, or no solution at all; names file and line.
    """
    if not file.is_file():
        raise ConfigError(f"step labels {str(file)!r}: no such file; {_ACCEPTED}")
    solutions: list[LabelledSolution] = []
    with file.open("rb") as lines:
        for number, line in enumerate(islice(lines, limit), 1):
            if line.strip():
                solutions += _parse(f"{file}, line {number}", line)
    if not solutions:
        raise DataError(f"{file}: holds no step-labelled solutions")
    return solutions


def _parse(where: str, line: bytes) -> Iterator[LabelledSolution]:
    try:
        row = json.loads(line)
    except ValueError:
        raise DataError(f"{where}: not valid JSON") from None
    if isinstance(row, dict):
        if isinstance(row.get("input"), str):
            return iter([_math_shepherd(where, row)])
        if isinstance(row.get("question"), dict) and isinstance(row.get("label"), dict):
            return _prm800k(where, row)
        if isinstance(row.get("problem"), str) and isinstance(row.get("steps"), list):
            return iter([_process_bench(where, row)])
    raise DataError(f"{where}: of no known layout; {_ACCEPTED}")


def _math_shepherd(where: str, row: dict[str, Any]) -> LabelledSolution:
    *pieces, rest = row["input"].split(STEP_TAG)
    if not pieces or rest.strip():
        raise DataError(f"{where}: each step of 'input' must end with the tag {STEP_TAG!r}")
    labels = _marks(where, pieces, row.get("label"))
    first = _FIRST_STEP.search(pieces[0])
    if first is None:
        raise DataError(f"{where}: 'input' has no 'Step 1:', so question and steps cannot be told apart")
    question = pieces[0][: first.start()].strip()
    steps = [pieces[0][first.start() :], *pieces[1:]]
    if not question:
        raise DataError(f"{where}: 'input' has no question before 'Step 1:'")
    return LabelledSolution(question, tuple(_unnumbered(step) for step in steps), labels)


def _marks(where: str, pieces: list[str], label: object) -> tuple[bool, ...]:
    """The judgement of each step: from a text that follows `input`, or from a list."""
    if isinstance(label, list):
        marks = [_MARKS.get(one) if isinstance(one, str) else bool(one) for one in label]
    elif isinstance(label, str):
        marks = []
        at = 0
        for piece in pieces:
            if not label.startswith(piece, at):
                count = sum(line.rstrip().endswith(("+", "-")) for line in label.splitlines())
                _refuse_counts(where, len(pieces), count)
                raise DataError(f"{where}: 'label' does not follow 'input' at step {len(marks) + 1}")
            at += len(piece)
            marks.append(_MARKS.get(label[at : at + 1]))
            at += 1
        if label[at:].strip():
            raise DataError(f"{where}: 'label' goes on after the last of {len(pieces)} steps")
    else:
        raise DataError(f"{where}: needs a text or a list under 'label'")
    _refuse_counts(where, len(pieces), len(marks))
    right = [mark for mark in marks if mark is not None]
    if len(right) < len(marks):
        raise DataError(f"{where}: the label of step {marks.index(None) + 1} is neither '+' nor '-'")
    return tuple(right)


def _refuse_counts(where: str, num_steps: int, num_labels: int) -> None:
    if num_steps != num_labels:
        raise DataError(f"{where}: {num_steps} steps and {num_labels} labels; there must be one label a step")


def _unnumbered(step: str) -> str:
    return _NUMBER.sub("", step.strip(), count=1)


def _prm800k(where: str, row: dict[str, Any]) -> Iterator[LabelledSolution]:
    """The path of chosen completions, and one solution for each other completion, judged at its last step alone."""
    question, steps = row["question"].get("problem"), row["label"].get("steps")
    if not isinstance(question, str) or not question.strip() or not isinstance(steps, list):
        raise DataError(f"{where}: needs question.problem and a list under label.steps")
    path: list[str] = []
    labels: list[bool | None] = []
    others: list[LabelledSolution] = []
    finished = row["label"].get("finish_reason") == "solution"
    for number, step in enumerate(steps, 1):
        completions = step.get("completions") if isinstance(step, dict) else None
        texts: list[tuple[Any, Any]] = [
            (completion.get("text"), completion.get("rating"))
            for completion in completions or ()
            if isinstance(completion, dict)
        ]
        if any(not isinstance(text, str) or rating not in (-1, 0, 1, None) for text, rating in texts):
            raise DataError(f"{where}: step {number} has a completion without text, or with a rating beside -1, 0, 1")
        chosen = step.get("chosen_completion") if isinstance(step, dict) else None
        if chosen is not None and not (isinstance(chosen, int) and 0 <= chosen < len(texts)):
            raise DataError(f"{where}: step {number} chose completion {chosen} of {len(texts)}")
        for place, (text, rating) in enumerate(texts):
            if place != chosen and rating is not None:
                before = (None,) * len(path)
                others.append(LabelledSolution(question, (*path, text), (*before, rating >= 0), False))
        human = step.get("human_completion") if isinstance(step, dict) else None
        if chosen is not None:
            text, rating = texts[chosen]
            path.append(text)
            labels.append(None if rating is None else rating >= 0)
        elif isinstance(human, dict) and isinstance(human.get("text"), str):
            path.append(human["text"])
            labels.append(True)
        else:
            break
    if any(label is not None for label in labels):
        yield LabelledSolution(question, tuple(path), tuple(labels), finished)
    yield from others


def _process_bench(where: str, row: dict[str, Any]) -> LabelledSolution:
    steps, label = row["steps"], row.get("label")
    if not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise DataError(f"{where}: 'steps' must be texts, at least one")
    if isinstance(label, list):
        _refuse_counts(where, len(steps), len(label))
        return LabelledSolution(row["problem"], tuple(steps), tuple(bool(right) for right in label))
    if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
        raise DataError(f"{where}: label {label!r} is no step: {len(steps)} steps, so -1 to {len(steps) - 1}")
    if label == -1:
        return LabelledSolution(row["problem"], tuple(steps), (True,) * len(steps))
    later: tuple[bool | None, ...] = (None,) * (len(steps) - label - 1)
    return LabelledSolution(row["problem"], tuple(steps), ((True,) * label) + (False,) + later)
