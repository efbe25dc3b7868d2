"""Tables of figures: one value, and how it looks on a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first row of `columns` heads it.

    Attributes:
        name: of its CSV file.
        title: above it.
        columns: headings.
        rows: cells, as many as columns; None prints as nothing.
        notes: below it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, title: str, rows: Sequence[Sequence[tuple[str, Cell]]], notes: tuple[str, ...] = ()
    ) -> Table:
        """A table of rows that have each cell beside its heading; at least one."""
        columns = tuple(heading for heading, _ in rows[0])
        return cls(name, title, columns, tuple(tuple(cell for _, cell in row) for row in rows), notes)

    def markdown(self) -> str:
        """As GitHub shows it."""
        lines = [f"### {self.title}", "", _line(self.columns), "|---" * len(self.columns) + "|"]
        lines += [_line([_shown(cell) for cell in row]) for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def text(self) -> str:
        """As columns for a terminal, numbers to the right."""
        shown = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        right = [all(isinstance(row[at], int | float | None) for row in self.rows) for at in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(cells, widths, right, strict=True)
            ).rstrip()
            for cells in shown
        ]
        return "\n".join([self.title, "", *lines, *(f"\n{note}" for note in self.notes)])

    def html(self) -> str:
        """As a table of a page, with its title as caption."""
        heads = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        caption = f"<caption>{escape(self.title)}</caption>"
        return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{notes}"

    _repr_html_ = html

    def csv(self) -> str:
        """Comma-separated, one line a row."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return out.getvalue()


def share(value: float, interval: Sequence[float] | None = None) -> str:
    """A share with its interval."""
    return f"{value:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")


def difference(value: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _cell(cell: Cell) -> str:
    number = ' class="number" style="text-align: right"' if isinstance(cell, int | float) else ""
    return f"<td{number}>{escape(_shown(cell))}</td>"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
