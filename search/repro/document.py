"""A reproduction's document: claims first, tables as Markdown, CSV and JSON, figures as PNG."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.record import write_atomic

UNKNOWN = "not published"
NOT_RUN = "not run"

Cell = str | int | float | None
Verdict = Literal["holds", "does not hold", "cannot be told"]


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

    def markdown(self) -> str:
        """As GitHub shows it."""
        lines = [f"### {self.title}", "", _line(self.columns), "|---" * len(self.columns) + "|"]
        lines += [_line([_shown(cell) for cell in row]) for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def csv(self) -> str:
        """Comma-separated, one line a row."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the papers say, held against our figures.

    Attributes:
        text: the claim.
        verdict: whether our figures show it, show the opposite, or cannot tell.
        detail: the figures.
    """

    text: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True)
class Document:
    """All of it.

    Attributes:
        name: "ets" or "arbitrage".
        title, notes: as the recipe has them.
        claims, tables: in order.
        figures: flat numbers, for other programs.
        provenance: commit, machine, seeds, where the records are.
        shown: what the figures do and do not show.
        images: PNG files by name, that exist in the folder given to `write`.
    """

    name: str
    title: str
    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    figures: Mapping[str, float | int | None]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    images: tuple[str, ...] = field(default=())

    def markdown(self) -> str:
        """The page: what does not hold stands first."""
        order = ("does not hold", "cannot be told", "holds")
        claims = sorted(self.claims, key=lambda claim: order.index(claim.verdict))
        parts = [f"## {self.title}"]
        if claims:
            parts.append("\n".join(f"- **{claim.verdict}**: {claim.text} ({claim.detail})" for claim in claims))
        parts += [" ".join(self.notes)] if self.notes else []
        parts += [table.markdown() for table in self.tables]
        parts += [f"![{name}]({name})" for name in self.images]
        parts += ["### What this shows, and what it does not", *self.shown] if self.shown else []
        made = "\n".join(f"- {key}: {value}" for key, value in self.provenance.items())
        return "\n\n".join([*parts, f"### How it was made\n\n{made}"]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "repro": self.name,
            "title": self.title,
            "figures": dict(self.figures),
            "claims": [
                {"claim": claim.text, "verdict": claim.verdict, "detail": claim.detail} for claim in self.claims
            ],
            "tables": {
                table.name: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in self.tables
            },
            "provenance": dict(self.provenance),
        }

    def write(self, folder: Path) -> list[Path]:
        """Write the page, the tables and the figures.

        Raises:
            ConfigError: the folder cannot be written to.
        """
        texts = {f"{self.name}.md": "# Reproduction\n\n" + self.markdown()}
        texts |= {f"{self.name}-{table.name}.csv": table.csv() for table in self.tables}
        texts[f"{self.name}.json"] = json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"
        for name, text in texts.items():
            write_atomic(folder / name, text)
        return [folder / name for name in (*texts, *self.images)]


def above(low: float, high: float) -> Verdict:
    """What the interval of a difference says of the claim that it is above 0."""
    return "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"


def machine() -> str:
    """The machine in words."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def share(value: float, interval: Sequence[float] | None = None) -> str:
    """A share with its interval."""
    return f"{value:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")


def difference(value: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def times(value: float | None) -> Cell:
    """A ratio."""
    return None if value is None else f"{value:.2f}x"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
