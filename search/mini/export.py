"""Problems of a split as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from search.errors import ConfigError
from search.mini.problems import problems
from search.support.files import write_atomic


def export_jsonl(split: str, n: int, path: Path) -> int:
    """Write problems 0 to ``n - 1`` of a split, one object a line with ``id``, ``problem``, ``answer``.

    Args:
        split: one of ``search.mini.problems.SPLITS``.
        n: how many, at least 1.
        path: written atomically.

    Returns:
        Number of problems written.

    Raises:
        ConfigError: if the split is unknown, ``n`` is too small, or the file cannot be written.
    """
    if n < 1:
        raise ConfigError(f"number of problems must be at least 1, not {n}")
    lines = [json.dumps({"id": item.id, "problem": item.text, "answer": item.answer}) for item in problems(split, n)]
    write_atomic(path, "\n".join(lines) + "\n")
    return len(lines)
