"""Model names: `mini-target@ets-16` is the policy `mini-target` searched by method ets at width 16."""

from __future__ import annotations

from collections.abc import Mapping
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


def parse_name(model: str, name: str) -> dict[str, Any]:
    """The settings that a request's model name stands for: method, width, both or none.

    Args:
        model: NAME, NAME@METHOD, NAME@METHOD-WIDTH, or NAME@WIDTH.
        name: what is served.

    Raises:
        ApiError: 404, no such model or method; says what there is.
    """
    found, at, spec = model.partition("@") if not name.count("@") else _split(model, name)
    if found != name or (at and not spec):
        raise _unknown(f"there is no model {model!r} here; this server has {name!r}, and {name}@METHOD-WIDTH")
    if not at:
        return {}
    method, _, number = spec.rpartition("-")
    values: dict[str, Any] = {}
    if number.isascii() and number.isdecimal() and len(number) <= 9:
        values["width"] = int(number)
        spec = method
    if spec:
        if spec not in METHODS:
            known = ", ".join(METHODS)
            raise _unknown(f"model {model!r}: there is no method {spec!r}; known: {known}")
        values["method"] = spec
    return values


def listed(name: str) -> Mapping[str, dict[str, str]]:
    """What the list of models shows: the policy by itself, and under every method."""
    return {name: {}, **{f"{name}@{method}": {"method": method} for method in METHODS}}


def _split(model: str, name: str) -> tuple[str, str, str]:
    """As `str.partition`, where the served name has an @ of its own."""
    return (name, *model[len(name) :].partition("@")[1:]) if model.startswith(name) else (model, "", "")


def _unknown(message: str) -> ApiError:
    return ApiError(404, message, param="model", code="model_not_found")
