"""Flags made from the settings' schema: names, types, ranges, defaults and help are written there once."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource
from pydantic import SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from search.cli.kinds import FILE
from search.config import ESCAPED, SearchSettings, build, flag, load_yaml, ungrouped
from search.errors import ConfigError
from search.prompt.files import with_files

Command = Callable[..., Any]
Settings = TypeVar("Settings", bound=SearchSettings)


_SHORT = {"engine_api_key": "api_key"}
"""Further names of settings, where a command has no option of its own by that name."""


def settings_options(schema: type[SearchSettings], *, short: bool = True) -> Callable[[Command], Command]:
    """Add a flag for every setting of `schema`, and --config. Each is also read from ETS_<SETTING>.

    Args:
        schema: the settings.
        short: whether a setting's shorter name, where it has one, names it too.
    """

    def decorate(command: Command) -> Command:
        for name, info in reversed(schema.model_fields.items()):
            command = _option(name, info, (name, _SHORT[name]) if short and name in _SHORT else (name,))(command)
        return click.option(
            "--config",
            type=FILE,
            metavar="FILE.yaml",
            help="settings as YAML, in groups; flags win",
        )(command)

    return decorate


def read_settings(schema: type[Settings], ctx: click.Context, config: Path | None) -> Settings:
    """The settings of one call: flag over environment over YAML over default.

    Raises:
        ConfigError: a value that the schema does not accept, from wherever it came.
    """
    values = {} if config is None else ungrouped(schema, load_yaml(config), f"configuration {config}: ")
    for name in schema.model_fields:
        if ctx.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            given = ctx.params[name]
            values[name] = _pairs(name, given) if _kind(schema.model_fields[name]) is dict else given
    return with_files(build(schema, values))


def _option(name: str, info: FieldInfo, names: tuple[str, ...]) -> Callable[[Command], Command]:
    default = None if info.default is PydanticUndefined else info.default
    shown = f"  [default: {default}]" if default is not None else ""
    common: dict[str, Any] = {
        "help": f"{info.description}{shown}",
        "envvar": [f"ETS_{spelling.upper()}" for spelling in names],
        "default": None,
    }
    kind = _kind(info)
    if kind is dict:
        return click.option(flag(name), name, type=_PairType(), multiple=True, metavar="KEY=VALUE", **common)
    if kind is tuple:
        return click.option(flag(name), name, type=_TextType(name), multiple=True, **common)
    if kind is bool:
        return click.option(f"{flag(name)}/--no-{name.replace('_', '-')}", name, **common)
    if typing.get_origin(kind) is Literal:
        return click.option(flag(name), name, type=click.Choice(typing.get_args(kind)), **common)
    if kind is SecretStr:
        kind = str
    shape = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    metavar = str(shape.get("metavar") or {int: "N", float: "X"}.get(kind, "NAME"))
    kind = _TextType(name) if kind is str else kind
    return click.option(*map(flag, names), name, type=kind, metavar=metavar, **common)


class _TextType(click.types.StringParamType):
    """A text as it is, or with escapes where the setting has them; in the environment each line is one of several."""

    name = "text"
    envvar_list_splitter = "\n"

    def __init__(self, setting: str) -> None:
        self._escaped = setting in ESCAPED

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text that was meant."""
        return _ESCAPE.sub(lambda escape: _ESCAPES[escape[0]], value) if self._escaped else value


_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
_ESCAPE = re.compile("|".join(map(re.escape, _ESCAPES)))


class _PairType(click.types.StringParamType):
    """KEY=VALUE; in the environment several with spaces or line breaks between them, a value may hold spaces.

    `read_settings` says what is wrong with it, as with any other setting.
    """

    name = "pair"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Cut before each KEY=."""
        return re.split(r"\s+(?=[^\s=]+=)", rv.strip())


def _kind(info: FieldInfo) -> Any:
    """What a setting's flag takes: tuple and dict may be repeated."""
    kind = _plain(info.annotation)
    return typing.get_origin(kind) if typing.get_origin(kind) in (tuple, dict) else kind


def _plain(annotation: Any) -> Any:
    """The type under Annotated and Optional."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _plain(next(kind for kind in typing.get_args(annotation) if kind is not type(None)))
    return annotation


def _pairs(name: str, given: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{flag(name)} {pair!r}: must be KEY=VALUE")
        try:
            values[key] = TypeAdapter(bool | int | float).validate_python(json.loads(text), strict=True)
        except ValueError:
            values[key] = text
    return values
