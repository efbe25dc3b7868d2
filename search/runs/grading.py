"""Files of answers, graded: how many are right, and where two graders, or a grader and a person, differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.answers.graders import Grader, close_grader
from search.catalogue import PEERS, load
from search.errors import DataError
from search.setup.registry import make_grader

_WORDS = {True: "same", False: "different", None: "undecided"}


@dataclass(frozen=True, slots=True)
class Graded:
    """One line of a file.

    Attributes:
        line: its number, from 1.
        answer: as it was compared; None where a solution gave none.
        verdict: of the grader; None where it is undecided.
        given: the verdict that the line has; None where it has none.
        beside: the other grader's; None without one, or where it is undecided.
    """

    line: int
    answer: str | None
    reference: str
    verdict: bool | None
    given: bool | None = None
    beside: bool | None = None


@dataclass(frozen=True, slots=True)
class Grading:
    """A graded file.

    Attributes:
        lines: all of them.
        grader, against: by name; against is None where nothing was laid beside.
    """

    lines: tuple[Graded, ...]
    grader: str
    against: str | None

    @property
    def counts(self) -> dict[str, int]:
        """How many lines are the same, different and undecided."""
        counted = Counter(_WORDS[line.verdict] for line in self.lines)
        return {word: counted[word] for word in _WORDS.values()}

    @property
    def given(self) -> tuple[Graded, ...]:
        """The lines that have a verdict."""
        return tuple(line for line in self.lines if line.given is not None)

    @property
    def differing(self) -> tuple[Graded, ...]:
        """The lines on which the grader differs from the given verdict, or from the other grader."""
        return tuple(
            line
            for line in self.lines
            if (line.given is not None and line.given is not line.verdict)
            or (self.against is not None and line.beside is not line.verdict)
        )

    def to_dict(self) -> dict[str, Any]:
        """As `ets grade --json` prints it."""
        given, beside = self._agreement()
        return {
            "num_lines": len(self.lines),
            "grader": self.grader,
            "against": self.against,
            **{f"num_{word}": count for word, count in self.counts.items()},
            "num_with_verdict": len(self.given),
            "num_agreeing_with_verdict": given,
            "num_agreeing_with_other": beside,
            "differing": [asdict(line) for line in self.differing],
        }

    def to_text(self) -> str:
        """The counts, the agreement, and each line on which there is none."""
        counts = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        given, beside = self._agreement()
        rows = [f"lines             {len(self.lines)}: {counts} (grader {self.grader})"]
        if self.given:
            rows.append(f"as given          {given} of {len(self.given)} ({given / len(self.given):.2%})")
        if self.against is not None and self.lines:
            rows.append(f"as {self.against:14} {beside} of {len(self.lines)} ({(beside or 0) / len(self.lines):.2%})")
        for line in self.differing:
            said = [f"{self.grader} says {_WORDS[line.verdict]}"]
            if line.given is not None:
                said.append(f"given is {_WORDS[line.given]}")
            if self.against is not None:
                said.append(f"{self.against} says {_WORDS[line.beside]}")
            rows.append(f"line {line.line}: {line.answer!r} beside {line.reference!r}: {', '.join(said)}")
        return "\n".join(rows)

    def _agreement(self) -> tuple[int, int | None]:
        """Lines on which the grader says what was given, and what the other says; None without another."""
        given = sum(line.given is line.verdict for line in self.given)
        beside = None if self.against is None else sum(line.beside is line.verdict for line in self.lines)
        return given, beside


def grade_file(path: Path, grader: str, against: str | None = None, *, solutions: bool = False) -> Grading:
    """Grade each line of a file.

    Args:
        path: JSON lines with `answer`, `reference` and perhaps `verdict`.
        grader: by name, as in the registry.
        against: another one, or a peer's: "math-verify".
        solutions: answers are read out of whole solutions.

    Raises:
        DataError: the file cannot be read, or a line is not of that shape.
        ConfigError: a grader needs what is not installed.
    """
    rows = list(_rows(path))
    judge = make_grader(grader)
    other: Grader | None = None
    if against is not None:
        other = load(PEERS[against])() if against in PEERS else make_grader(against)
    try:
        return Grading(tuple(_graded(row, judge, other, solutions=solutions) for row in rows), grader, against)
    finally:
        for one in (judge, other):
            if one is not None:
                close_grader(one)


def _graded(row: Graded, judge: Grader, other: Grader | None, *, solutions: bool) -> Graded:
    answer = judge.extract(row.answer or "") if solutions else row.answer
    beside = None if other is None else other.correct(answer, row.reference)
    return Graded(row.line, answer, row.reference, judge.correct(answer, row.reference), row.given, beside)


def _rows(path: Path) -> Iterator[Graded]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read: {reason}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}") from error
        accepted = 'accepted: {"answer": TEXT, "reference": TEXT} and perhaps "verdict": true or false'
        if not isinstance(row, dict) or "answer" not in row or "reference" not in row:
            raise DataError(f"{path}, line {number}: answer or reference is missing; {accepted}")
        answer, reference, given = row["answer"], row["reference"], row.get("verdict")
        if answer is not None and (isinstance(answer, bool) or not isinstance(answer, str | int | float)):
            raise DataError(f"{path}, line {number}: answer is {type(answer).__name__}; {accepted}")
        if isinstance(reference, bool) or not isinstance(reference, str | int | float) or str(reference).strip() == "":
            raise DataError(f"{path}, line {number}: reference is empty or no text; {accepted}")
        if given is not None and not isinstance(given, bool):
            raise DataError(f"{path}, line {number}: verdict is {given!r}; {accepted}")
        yield Graded(number, None if answer is None else str(answer), str(reference), None, given)
