"""Model names and base URLs: `mini-target@ets-16` is the policy `mini-target` searched by method ets at width 16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search.catalogue import METHODS
from search.config import SearchSettings
from search.serve.errors import ApiError


def served_name(settings: SearchSettings) -> str:
    """How the policy is called to clients; with a router the policy is the target."""
    return short_name(settings.policy if settings.writer == "model" else settings.target)


def short_name(model: str) -> str:
    """A model without where it lies: `mini:target` is mini-target, a folder its last part, a hub id itself."""
    if model.startswith("mini:"):
        return model.replace(":", "-")
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() or path.is_absolute() else model


def scorer_name(prm: str) -> str:
    """How a scorer is called in a model's name and in a base URL: without slashes."""
    return short_name(prm).rpartition("/")[2]


def parse_name(model: str, policies: Mapping[str, str], scorers: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a request's model name stands for.

    Args:
        model: NAME, or NAME and after an @ each of: METHOD, METHOD-WIDTH or WIDTH; SCORER.
        policies: the policies that are served, by name. The first is the server's own, and sets nothing.
        scorers: what may score, by name.

    Raises:
        ApiError: 404, no such model, method or scorer; says what there is.
    """
    own = next(iter(policies))
    served = max((name for name in policies if model == name or model.startswith(f"{name}@")), key=len, default=None)
    if served is None:
        have = ", ".join(repr(name) for name in policies)
        raise _no_model(f"there is no model {model!r} here; this server has {have}, and {own}@METHOD-WIDTH")
    values = {} if served == own else {"policy": policies[served]}
    rest = model[len(served) + 1 :].split("@") if model != served else []
    try:
        return {**values, **parse_parts(rest, scorers)}
    except ValueError as error:
        raise _no_model(f"model {model!r}: {error}") from None


def parse_path(parts: Iterable[str], scorers: Mapping[str, str]) -> dict[str, Any]:
    """The settings that stand in a base URL before /v1.

    Args:
        parts: its parts, each as in `parse_name`.
        scorers: as in `parse_name`.

    Raises:
        ApiError: 404.
    """
    try:
        return parse_parts(parts, scorers)
    except ValueError as error:
        raise ApiError(404, f"there is nothing at this address: {error}", code="not_found") from None


def parse_parts(parts: Iterable[str], scorers: Mapping[str, str]) -> dict[str, Any]:
    """The settings that words stand for, each of them METHOD, METHOD-WIDTH, WIDTH, or SCORER.

    Raises:
        ValueError: a word stands for nothing, or two for the same.
    """
    values: dict[str, Any] = {}
    for part in parts:
        stands_for = {"prm": scorers[part]} if part in scorers else _method(part, scorers)
        if again := sorted(stands_for.keys() & values.keys()):
            raise ValueError(f"{part!r}: the {again[0]} is said twice")
        values |= stands_for
    return values


def _method(part: str, scorers: Mapping[str, str]) -> dict[str, Any]:
    method, _, number = part.rpartition("-")
    width: dict[str, Any] = {}
    if number.isascii() and number.isdecimal() and len(number) <= 9:
        width["width"], part = int(number), method
    if not part and width:
        return width
    if part not in METHODS:
        if width or not scorers or get_close_matches(part, METHODS, 1):
            raise ValueError(f"there is no method {part!r}; known: {', '.join(METHODS)}")
        raise ValueError(
            f"there is no method and no scorer {part!r}; methods: {', '.join(METHODS)}; scorers: {', '.join(scorers)}"
        )
    return {"method": part, **width}


def listed(policies: Iterable[str]) -> Mapping[str, dict[str, str]]:
    """What the list of models shows: each policy by itself, and under every method."""
    return {
        full: sets
        for name in policies
        for full, sets in {name: {}, **{f"{name}@{method}": {"method": method} for method in METHODS}}.items()
    }


def _no_model(message: str) -> ApiError:
    return ApiError(404, message, param="model", code="model_not_found")
