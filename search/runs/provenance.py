"""How a run came about: version, commit, command line, settings and the fingerprints of its weights."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from search.api import Search
from search.catalogue import scorer_kind
from search.config import SearchSettings
from search.setup.registry import weights_of
from search.setup.resolve import parts
from search.setup.routing import router_kind


def provenance(search: Search) -> dict[str, Any]:
    """What a run directory says of how it came about."""
    return {
        "version": package_version(),
        "commit": _commit(),
        "argv": command_line(sys.argv),
        "python": platform.python_version(),
        "config_hash": search.config_hash,
        "seed": search.settings.seed,
        "settings": search.record,
        "notes": list(search.notes),
        "weights": model_weights(search.settings),
    }


def model_weights(settings: SearchSettings) -> dict[str, str]:
    """Fingerprints of the checkpoints that run in this process, by role, as far as their files are at hand."""
    fingerprints = {part.role: weights_of(part.model) for part in parts(settings) if not part.served}
    if (kind := scorer_kind(settings.prm)) is not None and kind.has_files:
        fingerprints["prm"] = weights_of(settings.prm)
    if settings.writer == "arbitrage" and router_kind(settings.router).judge == "probe":
        fingerprints["router"] = weights_of(settings.router_model)
    return {role: value for role, value in fingerprints.items() if value is not None}


def command_line(argv: Iterable[str]) -> list[str]:
    """A command line as it may be kept: its keys are left out."""
    kept: list[str] = []
    for word in argv:
        flag, equals, _ = word.partition("=")
        hidden = f"{flag}=***" if equals and flag in _KEY_FLAGS else word
        kept.append("***" if kept and kept[-1] in _KEY_FLAGS else hidden)
    return kept


_KEY_FLAGS = frozenset({"--engine-api-key", "--api-key"})


def package_version() -> str:
    """The installed version of this distribution."""
    try:
        return version("ets-arbitrage")
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str | None:
    """The commit of the source tree this runs from; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
