"""A reproduction's document: claims first, tables as Markdown, CSV and JSON, figures as PNG."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from search.support.files import write_atomic
from search.support.tables import Cell, Table

UNKNOWN = "not published"
NOT_RUN = "not run"

Verdict = Literal["holds", "does not hold", "cannot be told"]


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
        provenance = "\n".join(f"- {key}: {value}" for key, value in self.provenance.items())
        return "\n\n".join([*parts, f"### How it was made\n\n{provenance}"]) + "\n"

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


def times(value: float | None) -> Cell:
    """A ratio."""
    return None if value is None else f"{value:.2f}x"
