"""How to get what an optional part needs: the command that works in this environment, checkout or wheel."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

DISTRIBUTION = "ets-arbitrage"

_ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout, where this runs from one."""


def install(extra: str) -> str:
    """The command that installs an extra here: inside the checkout by its name, elsewhere by its packages' own names.

    This project itself is on no index.

    Args:
        extra: as in pyproject.toml, e.g. "plots".
    """
    named = _from_checkout(extra)
    if named and Path.cwd() == _ROOT:
        return install_packages("-e", f".[{extra}]")
    return install_packages(*named or _from_metadata(extra) or (f"/path/to/checkout[{extra}]",))


def install_packages(*requirements: str) -> str:
    """The command that installs these here."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return shlex.join([str(python), "-m", "pip", "install", *requirements])


def _from_checkout(extra: str) -> list[str]:
    """From the project file, which is newer than what an editable install noted once."""
    try:
        project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    named = project.get("project", {}).get("name") == DISTRIBUTION
    return list(project["project"].get("optional-dependencies", {}).get(extra, [])) if named else []


def _from_metadata(extra: str) -> list[str]:
    try:
        asked = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    parted = (line.partition(";") for line in asked)
    return [name.strip() for name, _, condition in parted if marker.search(condition)]
