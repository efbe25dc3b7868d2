"""The key of a run: equal for equal settings alone, so that a run is resumed under its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.catalogue import scorer_kind
from search.config import TRANSPORT, SearchSettings

_PATHS = ("policy", "prm", "draft", "target", "router_model", "data")
"""Settings that may be a path."""


_AS_BEFORE: Mapping[str, object] = {"lookahead": 0, "frontier": "level", "begin": "all"}
"""Values of younger settings by which a search is what it was before there were any."""


def config_hash(settings: SearchSettings | Mapping[str, Any]) -> str:
    """12 hexadecimal digits that are equal for equal settings alone.

    How many problems are taken is left out, and so is where servers are and how they are asked: these change no record,
    so a run can be gone on with under another limit, or on servers that were started anew elsewhere. A path counts as
    the place that it leads to, however it is written. A setting that is younger than records of this layout is left out
    where it changes nothing, so that they are gone on with.
    """
    values = settings.model_dump(mode="json") if isinstance(settings, SearchSettings) else dict(settings)
    values = {name: value for name, value in values.items() if name not in {"limit", *TRANSPORT}}
    values = {name: value for name, value in values.items() if name not in _AS_BEFORE or value != _AS_BEFORE[name]}
    values = {name: engine_kind(value) if name.endswith("engine") else value for name, value in values.items()}
    values |= {name: _place(values[name]) for name in _PATHS if name in values}
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _place(name: str) -> str:
    """A path as the place that it leads to, also behind a scorer's kind; a name of another kind as it is."""
    kind = scorer_kind(name)
    before = name[: name.index(":") + 1] if kind is not None and (kind.has_files or kind.loads) else ""
    try:
        path = Path(name.removeprefix(before)).expanduser()
        return f"{before}{path.resolve()}" if path.exists() else name
    except (OSError, RuntimeError, ValueError):
        return name


def engine_kind(spec: str) -> str:
    """The kind of an engine without its address: "sglang" of "sglang:http://host:port"."""
    return spec.partition(":")[0]
