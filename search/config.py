"""One schema for YAML, flags and --help: the groups put together, and what is wrong said in a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from search.errors import ConfigError
from search.setting_groups import (
    DataSettings,
    EngineSettings,
    MethodSettings,
    ModelSettings,
    PromptSettings,
    RewardSettings,
    RoutingSettings,
    SamplingSettings,
    ServerSettings,
    TreeSettings,
    VoteSettings,
)
from search.setting_types import Group


# The fields of the last base come first.
class SearchSettings(
    VoteSettings, PromptSettings, SamplingSettings, TreeSettings, RoutingSettings, RewardSettings, EngineSettings
):
    """Everything that decides what a search does. Two runs with equal settings are the same run.

    It is each of its groups, so it goes wherever one of them is read. A setting's name is its own in all of them: it
    is a field here, a flag, and a key of a run's record.
    """


class EvalSettings(DataSettings, SearchSettings):
    """A search over a whole data set."""


GROUPS: Mapping[str, type[Group]] = {
    "models": ModelSettings,
    "servers": ServerSettings,
    "rewards": RewardSettings,
    "routing": RoutingSettings,
    "search": TreeSettings,
    "sampling": SamplingSettings,
    "prompts": PromptSettings,
    "votes": VoteSettings,
    "problems": DataSettings,
}
"""Groups by the names that YAML has for them; each setting is in one of them."""

TRANSPORT = frozenset(ServerSettings.model_fields)
"""Settings that decide no result."""

METHOD_OPTIONS = tuple(name for name in MethodSettings.model_fields if name not in ("method", "frontier", "options"))
"""Settings that are options of a method; None leaves the method's own default."""

ESCAPED = frozenset({"assistant_prefix", "stop", "final"})
"""Settings in which the command line and the environment read `\\n` as a line break, `\\t` as a tab, `\\\\` as `\\`."""

_REASONS = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be more than {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be less than {lt:g}",
    "too_long": "must have at most {max_length}",
}
"""What is wrong by pydantic's names, in words of our own."""

_FLAGS = {"options": "--set", "chat_options": "--chat-option"}

Settings = TypeVar("Settings", bound=Group)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top is a mapping; an empty one has nothing in it.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping at its top.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: {_reason(error)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"configuration {path}{where}: not valid YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"configuration {path}: must be a mapping of settings to values")
    return values


def ungrouped(schema: type[SearchSettings], grouped: object, where: str = "") -> dict[str, Any]:
    """Settings by their names alone, of which YAML has each in its group, as `search: {width: 8}`.

    Args:
        schema: whose groups there may be.
        grouped: as it was read.
        where: what a refusal begins with.

    Raises:
        ConfigError: names what stands outside its group, with the place where it belongs; or no such group or setting.
    """
    groups = {name: group.model_fields for name, group in GROUPS.items() if issubclass(schema, group)}
    places = {setting: f"{name}.{setting}" for name, members in groups.items() for setting in members}
    if not isinstance(grouped, Mapping):
        raise ConfigError(f"{where}must be a mapping of groups to settings; groups: {', '.join(groups)}")
    values: dict[str, Any] = {}
    astray: list[tuple[str, Any, Iterable[str]]] = []
    for name, members in grouped.items():
        if name not in groups:
            astray.append((f"group {name!r}", name, groups))
        elif isinstance(members, Mapping):
            there = groups[name]
            astray += [(f"setting '{name}.{setting}'", setting, there) for setting in members if setting not in there]
            values |= members
        elif members is not None:
            raise ConfigError(f"{where}{name} = {members!r}: must be a mapping of settings to values")
    if moved := [f"{setting}: now {places[setting]}" for _, setting, _ in astray if setting in places]:
        raise ConfigError(where + "; ".join(moved))
    if astray:
        stray, _, accepted = astray[0]
        raise ConfigError(f"{where}unknown {stray}; known: {', '.join(accepted)}")
    return values


def build(schema: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Validate settings, by their names alone.

    Raises:
        ConfigError: names the first wrong setting, its value and what is accepted.
    """
    try:
        return schema(**values)
    except ValidationError as error:
        raise ConfigError(explain(schema, error)) from None


def flag(name: str) -> str:
    """The command-line spelling of a setting."""
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def first_error(error: ValidationError) -> ErrorDetails:
    """The error to be told: of the first setting that is wrong; of a union's errors the deepest, which was meant."""
    errors = error.errors()
    first = [each for each in errors if each["loc"][:1] == errors[0]["loc"][:1]]
    return max(first, key=lambda each: len(each["loc"]))


def explain(schema: type[Group], error: ValidationError) -> str:
    """What was wrong and what is accepted, in one line."""
    first = first_error(error)
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name!r}; known: {', '.join(sorted(schema.model_fields))}"
    message = reason(first)
    if name in ("options", "chat_options") and len(first["loc"]) > 1:  # else the last of a union's kinds stands there
        name, message = f"{name}.{first['loc'][1]}", "must be a number, a text, true or false"
    if first["type"] == "missing":
        message = f"no {first['loc'][-1]!r} in it"
    given = "" if name == "engine_api_key" else f" = {first['input']!r}"
    return f"{name}{given}: {message}"


def reason(error: ErrorDetails) -> str:
    """What is wrong with a value, in words that go after it."""
    kind, about = error["type"], error.get("ctx", {})
    if kind in ("too_short", "string_too_short") and about["min_length"] == 1:
        return "must not be empty"
    if kind in _REASONS:
        return _REASONS[kind].format(**about)
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return message[:1].lower() + message[1:]


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
