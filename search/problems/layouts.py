r"""From a row of a data set to a problem: which columns hold its text, its choices and its reference answer.

Data sets name their columns in few ways, so a layout is recognised by the names that are there, whatever their case:

- the text: the first of `TEXT_COLUMNS`, after those of `COMPANION_COLUMNS` (a story whose question stands apart);
- the choices: options or choices in any of their public shapes, columns A to D, or GPQA's right and wrong answers;
- the reference: the first of `ANSWER_COLUMNS`; of a whole solution what stands after #### or in its last \boxed.

`--field problem=...,answer=...` names them instead. What cannot be a reference is an error, never a reference: an
answer that nobody can give would only count as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from search.errors import ConfigError, DataError
from search.problems.choices import Choices, choices_of_columns, choices_of_value
from search.problems.fields import Template, text_of
from search.problems.references import reference_text, without_unit
from search.problems.rows import Row
from search.types import Problem

TEXT_COLUMNS = ("problem", "question", "squestion", "question_stem", "query", "prompt", "content", "input")
COMPANION_COLUMNS = ("passage", "context", "body", "preamble", "table_title", "table")
CHOICE_COLUMNS = ("options", "choices")
LETTER_COLUMNS = ("choice_answer", "correct", "answerkey", "correct_option", "correct_answer", "label")
ANSWER_COLUMNS = (
    "final_answer", "final_ans", "expected_answer", "answer_number", "answer", "correct_answer", "ground_truth",
    "target", "lsolutions", "response",
)  # fmt: skip
FINAL_COLUMNS = frozenset({"final_answer", "final_ans", "expected_answer", "lsolutions"})
SOLUTION_COLUMN = "solution"
ID_COLUMNS = ("id", "unique_id", "iindex")
_NAMES: Mapping[str, frozenset[str]] = {
    name: frozenset(columns.split())
    for name, columns in {
        "gsm8k": "question answer ####",
        "gpqa": "question correct_answer incorrect_answer_1",
        "svamp": "body question answer equation",
        "asdiv": "body question answer",
        "tabmwp": "table question answer",
        "olympiadbench": "question final_answer",
        "gaokao2024_mix": "question choice_answer",
        "agieval": "question options label",
        "aqua": "question options correct",
        "mathqa": "problem options correct",
        "arc": "question choices answerkey",
        "openbookqa": "question_stem choices answerkey",
        "mmlu_pro": "question options answer_index",
        "mmlu": "question choices answer subject",
        "cmmlu": "question a b c d answer",
        "sat_math": "question options answer",
        "mgsm": "question answer_number",
        "multiarith": "squestion lsolutions",
        "mawps": "input target",
        "carp": "content answer",
        "metamath": "query response",
        "college_math": "question_number question answer data_topic",
        "math500": "problem answer unique_id",
        "math": "problem solution level type",
        "minerva_math": "problem solution type",
    }.items()
}
"""Layouts by what tells them apart, the narrower first; a name is said and decides nothing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of one data set become problems.

    Attributes:
        name: what it is known as, or where it was read from.
        text: the problem's text by a template; None: `companions` and the first of `questions` that a row has.
        companions, questions: columns of the text.
        choices: the column of the choices, or the columns of each; empty where there are none.
        answer: columns of the reference, the first that holds something counts; empty: no references.
        answer_text: the reference by a template instead.
        id: what identifies a problem; None numbers the rows.
        has_hashes: some references stand after ####, so all that are not bare numbers must.
        has_units: a reference's unit in brackets is left out.
        unit: one of those units, to be shown.
    """

    name: str
    text: Template | None
    companions: tuple[str, ...]
    questions: tuple[str, ...]
    choices: tuple[str, ...]
    answer: tuple[str, ...]
    answer_text: Template | None
    id: Template | None
    has_hashes: bool
    has_units: bool
    unit: str

    def problem(self, row: Row) -> Problem:
        """A row's problem.

        Raises:
            DataError: names the row, and what is wrong with it.
        """
        text = self._text(row)
        choices = self._choices(row)
        if choices is not None:
            text = choices.shown_in(text)
        reference = self._reference(row, choices)
        numbered = self.id is None or (self.id.is_column and row.values.get(self.id.text) is None)
        name = row.name if self.id is None or numbered else self.id.fill(row)
        return Problem(name, text, reference)

    def describe(self) -> str:
        """In one line what is read as what."""
        text = self.text.text if self.text is not None else " + ".join((*self.companions, " or ".join(self.questions)))
        parts = [f"problem = {text}"]
        if self.choices:
            parts.append(f"choices = {', '.join(self.choices)}")
        if self.answer_text is not None:
            parts.append(f"reference = {self.answer_text.text}")
        elif self.answer:
            parts.append(f"reference = {' or else '.join(self.answer)}{self._how()}")
        else:
            parts.append("no references")
        if self.id is not None:
            parts.append(f"id = {self.id.text}")
        return f"read as {self.name}: {', '.join(parts)}"

    def _how(self) -> str:
        if self.choices:
            return " as the choice's letter"
        if _plain(self.answer[0]) == SOLUTION_COLUMN:
            return " (its last box or ####)"
        if self.has_hashes:
            return " after ####"
        return f" without its unit '{self.unit}'" if self.has_units and self.unit else ""

    def _text(self, row: Row) -> str:
        if self.text is not None:
            text = self.text.fill(row)
        else:
            text = self._question(row)
            for column in reversed(self.companions):
                if row.values.get(column) not in (None, ""):
                    text = _joined(column, text_of(row, column), text)
        if not text.strip():
            raise DataError(f"{row.where}: the problem's text is empty")
        return text

    def _question(self, row: Row) -> str:
        """The question by its column; of two that differ it is not for us to say which is the problem."""
        here = [column for column in self.questions if row.values.get(column) not in (None, "")]
        text, *others = (text_of(row, column) for column in here or self.questions[:1])
        if any(other.strip() != text.strip() for other in others):
            raise DataError(
                f"{row.where}: {' and '.join(map(repr, here))} differ; name one with --field problem=COLUMN"
            )
        return text

    def _choices(self, row: Row) -> Choices | None:
        if len(self.choices) == 1:
            return choices_of_value(row.values.get(self.choices[0]), row.where)
        if self.choices and all(row.values.get(column) in (None, "") for column in self.choices):
            return None
        return choices_of_columns({column: text_of(row, column) for column in self.choices}) if self.choices else None

    def _reference(self, row: Row, choices: Choices | None) -> str | None:
        if self.answer_text is not None and not self.answer_text.is_column:
            value: Any = self.answer_text.fill(row)
            column = self.answer_text.text
        elif self.answer:
            here = [name for name in self.answer if row.values.get(name) not in (None, "")] or [self.answer[0]]
            column = here[0]
            if column not in row.values:
                raise DataError(f"{row.where}: has no {column!r}; {_ELSE}")
            value = row.values[column]
        else:
            return None
        try:
            if choices is not None:
                return choices.letter(value)
            if self.has_units and isinstance(value, str):
                value = without_unit(value)
            return reference_text(
                value,
                is_solution=_plain(column) == SOLUTION_COLUMN,
                has_hashes=self.has_hashes,
                is_final=_plain(column) in FINAL_COLUMNS,
            )
        except ValueError as error:
            raise DataError(f"{row.where}: {column!r} holds {error}; {_ELSE}") from None


_ELSE = "name the reference's column with --field answer=COLUMN, or leave references out with --no-reference"


def recognise(rows: Sequence[Row], source: str, named: Mapping[str, str], references: bool) -> Layout:
    """The layout of rows, by the columns that are in any of them.

    Args:
        rows: all that are read.
        source: what the rows are of, for errors.
        named: as `parse_fields` gives it; the rest is recognised.
        references: whether reference answers are wanted.

    Raises:
        ConfigError: a named column that no row has, or nothing that could be a text or a reference.
    """
    columns = {column: None for row in rows for column in row.values}
    by_name = {_plain(column): column for column in reversed(columns)}
    templates = {role: Template.of(text, role) for role, text in named.items()}
    for role, template in templates.items():
        for column in template.columns:
            if column not in columns:
                raise ConfigError(f"--field {role}: no row of {source} has {column!r}; {_there(columns)}")
    if "choices" in templates and not templates["choices"].is_column:
        raise ConfigError("--field choices: must be one column")

    questions = tuple(by_name[name] for name in TEXT_COLUMNS[:2] if name in by_name) or (
        (_first(by_name, TEXT_COLUMNS) or "",)
    )
    if "problem" not in templates and not questions[0]:
        raise ConfigError(
            f"{source}: no column for the problem's text; {_there(columns)}; name one with --field problem="
        )
    choices = (templates["choices"].text,) if "choices" in templates else _choice_columns(by_name)
    answer = _answer_columns(by_name, bool(choices)) if "answer" not in templates else templates["answer"].columns[:1]
    if references and not answer:
        raise ConfigError(f"{source}: no column for the reference answer; {_there(columns)}; {_ELSE}")
    if not references:
        answer = ()
    companions = tuple(by_name[name] for name in COMPANION_COLUMNS if name in by_name)
    id_column = _first(by_name, ID_COLUMNS)
    values = [row.values.get(answer[0]) for row in rows] if answer else []
    has_hashes = any(isinstance(value, str) and "####" in value for value in values)
    name = "--field says" if "problem" in templates else _name({*by_name, *(["####"] if has_hashes else [])})
    units = name == "asdiv" and "answer" not in templates
    return Layout(
        name=name,
        text=templates.get("problem"),
        companions=companions,
        questions=questions,
        choices=choices,
        answer=answer,
        answer_text=templates.get("answer") if references else None,
        id=templates.get("id") or (None if id_column is None else Template(id_column, ("", id_column, ""))),
        has_hashes=has_hashes,
        has_units=units,
        unit=next((value[len(without_unit(value)) :].strip() for value in values if isinstance(value, str)), ""),
    )


def _plain(column: str) -> str:
    return re.sub(r"[ \-]+", "_", column.strip().lower())


def _there(columns: Collection[str]) -> str:
    shown = ", ".join(repr(column) for column in list(columns)[:20])
    return f"there are {shown}{' ...' if len(columns) > 20 else ''}" if columns else "there are none"


def _first(known: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((known[name] for name in names if name in known), None)


def _choice_columns(known: Mapping[str, str]) -> tuple[str, ...]:
    single = _first(known, CHOICE_COLUMNS)
    if single is not None:
        return (single,)
    wrong = [name for name in known if re.fullmatch(r"incorrect_answer_\d", name)]
    if wrong and "correct_answer" in known:
        return tuple(known[name] for name in ("correct_answer", *sorted(wrong)))
    letters = [name for name in "abcdefghij" if name in known]
    return tuple(known[name] for name in letters) if letters[:4] == list("abcd") else ()


def _answer_columns(known: Mapping[str, str], has_choices: bool) -> tuple[str, ...]:
    """The reference's columns; a letter's column may be empty where a problem of the set has no choices."""
    letters = LETTER_COLUMNS if has_choices else ("choice_answer",)
    letter = _first(known, letters)
    if letter is not None:
        return (letter, known["answer"]) if "answer" in known else (letter,)
    answer = _first(known, (*ANSWER_COLUMNS, SOLUTION_COLUMN))
    return () if answer is None else (answer,)


def _name(here: Set[str]) -> str:
    return next((name for name, needed in _NAMES.items() if needed <= here), "a common layout")


def _joined(column: str, before: str, after: str) -> str:
    """Two parts of a problem as one text; a story that goes on in the same line gets the full stop it may lack."""
    before, after = before.strip(), after.strip()
    if _plain(column) != "body":
        return f"{before}\n{after}"
    return f"{before}{'.' if before[-1:].isalnum() else ''} {after}"
