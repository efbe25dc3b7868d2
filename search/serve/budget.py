"""How much a request may take: what its headers allow, and what its effort stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.catalogue import METHODS
from search.config import SearchSettings
from search.serve.body import Asked
from search.serve.errors import invalid_input

EFFORTS: Mapping[str, float] = {"none": 0, "minimal": 1 / 8, "low": 1 / 4, "medium": 1, "high": 2, "xhigh": 4}
"""The widths that efforts stand for, in widths of the server's own; at least 1, at most the server's limit."""

WIDTH, MAX_TOKENS, DEADLINE = "x-ets-width", "x-ets-max-tokens", "x-ets-deadline"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a request's headers allow; None: they say nothing.

    A header is a bound and no setting: what is below it stays as it is. So a proxy can bound what passes through it.

    Attributes:
        width: of the search.
        max_tokens: of one trajectory.
        deadline: seconds from the request's arrival to its answer.
    """

    width: int | None = None
    max_tokens: int | None = None
    deadline: float | None = None

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Budget:
        """The bounds in a request's headers, by their lower-case names.

        Raises:
            ApiError: 422; a header is no such number.
        """
        return cls(_count(headers, WIDTH), _count(headers, MAX_TOKENS), _seconds(headers, DEADLINE))

    def changes(self, asked: Asked, settings: SearchSettings, max_width: int) -> dict[str, Any]:
        """A request's settings, within these bounds.

        Args:
            asked: the request.
            settings: of its search, as they would be without bounds, effort and ends.
            max_width: the server's limit.
        """
        changes, width = dict(asked.changes), settings.width
        if "width" not in METHODS[settings.method].fixed:
            if asked.effort is not None and "width" not in changes:
                width = min(max_width, max(1, round(width * EFFORTS[asked.effort])))
            width = min(width, self.width or width)
            if width != settings.width:
                changes["width"] = width
        if self.max_tokens is not None and settings.max_tokens > self.max_tokens:
            changes["max_tokens"] = self.max_tokens
        if asked.ends:  # a step that holds one is its solution's last
            changes["stop"] = [*(settings.stop or ()), *asked.ends]
            changes["final"] = [*(settings.final or ()), *asked.ends]
        return changes


def _count(headers: Mapping[str, str], name: str) -> int | None:
    given = headers.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 9 and int(given) >= 1):
        raise invalid_input(f"header {name}: {given!r} is no whole number from 1 on", name)
    return int(given)


def _seconds(headers: Mapping[str, str], name: str) -> float | None:
    given = headers.get(name)
    if given is None:
        return None
    try:
        seconds = float("" if "_" in given else given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise invalid_input(f"header {name}: {given!r} is no number of seconds above 0", name)
    return seconds
