"""`--field`: which columns of a data set are what, as a column's name or a template of several."""

from __future__ import annotations

import re
from dataclasses import dataclass

from search.errors import ConfigError, DataError
from search.problems.rows import Row

ROLES = ("problem", "answer", "choices", "id")
"""What `--field` names."""

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PART = re.compile(rf"(?:^|,)\s*({'|'.join(ROLES)})\s*=")


def parse_fields(text: str | None) -> dict[str, str]:
    """The roles that `--field` names, each with a column or a template.

    Raises:
        ConfigError: not of the form problem=COLUMN,answer=COLUMN.
    """
    if text is None:
        return {}
    starts = list(_PART.finditer(text))
    accepted = (
        f"--field {text!r}: accepted is problem=COLUMN,answer=COLUMN (also choices=, id=), where COLUMN may be a "
        "template such as '{Body} {Question}'"
    )
    if not starts or starts[0].start() != 0:
        raise ConfigError(accepted)
    ends = [*(match.start() for match in starts[1:]), len(text)]
    named = {match[1]: text[match.end() : end].strip() for match, end in zip(starts, ends, strict=True)}
    if len(named) < len(starts) or not all(named.values()):
        raise ConfigError(accepted)
    return named


@dataclass(frozen=True, slots=True)
class Template:
    """A text with columns in it.

    Attributes:
        text: as it was given: a column's name, or a text with names in braces.
        pieces: texts and, at every second place, columns.
    """

    text: str
    pieces: tuple[str, ...]

    @classmethod
    def of(cls, text: str, role: str) -> Template:
        """Read a template.

        Raises:
            ConfigError: a lone brace, or no column at all.
        """
        if "{" not in text and "}" not in text:
            return cls(text, ("", text, ""))
        pieces, end = [""], 0
        for match in _PLACE.finditer(text):
            pieces[-1] += text[end : match.start()]
            end = match.end()
            if match[1]:
                pieces += [match[1], ""]
            elif match[0] in ("{{", "}}"):
                pieces[-1] += match[0][0]
            else:
                raise ConfigError(f"--field {role}={text}: {match[0]!r} names no column; a brace as text is doubled")
        pieces[-1] += text[end:]
        only_column = len(pieces) == 3 and not pieces[0] and not pieces[2]
        return cls(pieces[1] if only_column else text, tuple(pieces))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names."""
        return self.pieces[1::2]

    @property
    def is_column(self) -> bool:
        """Whether it is one column and nothing else."""
        return len(self.pieces) == 3 and not self.pieces[0] and not self.pieces[2]

    def fill(self, row: Row) -> str:
        """The text for a row.

        Raises:
            DataError: the row lacks a column, or holds no text there.
        """
        pieces = list(self.pieces)
        pieces[1::2] = (text_of(row, column) for column in self.columns)
        return "".join(pieces)


def text_of(row: Row, column: str) -> str:
    """A column's text, or its number as text.

    Raises:
        DataError: the row lacks it, or holds something else there.
    """
    if column not in row.values:
        raise DataError(f"{row.where}: has no {column!r}")
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{row.where}: needs a text under {column!r}")
    return value if isinstance(value, str) else str(value)
