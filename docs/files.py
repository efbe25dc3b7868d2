"""Writes the list of source files in architecture.md from the first line of each module's docstring (`make docs`)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("search", "prm", "ets", "arbitrage")
HEADING = "## Files\n\n"


def lines() -> str:
    """One table row per source file, in the order of their paths."""
    rows = ["| file | idea |", "|---|---|"]
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            idea = " ".join(docstring.partition("\n\n")[0].split()).replace("|", "\\|")
            rows.append(f"| `{file.relative_to(ROOT)}` | {idea} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """The page with its list as it should be."""
    above = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    return above + HEADING + lines()


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == page() else "docs/architecture.md is old; run `make docs`")
    PAGE.write_text(page(), encoding="utf-8")
