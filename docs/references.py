"""Writes configuration.md and commands.md from the settings' schema and from the commands themselves (`make docs`)."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from search.catalogue import METHODS, load
from search.cli.main import cli
from search.config import GROUPS, METHOD_OPTIONS, EvalSettings, flag
from search.setting_types import Group
from search.setup.registry import method_options

HERE = Path(__file__).resolve().parent

_CONFIGURATION = """\
# Configuration

Every setting has one definition, in `search/setting_groups.py`. It is a flag, an environment variable, an argument of
`Search(...)`, and a field of a YAML file, which has it in its group. A flag wins over the environment, which wins over
`--config FILE.yaml`, which wins over the default. An unknown setting, or a value out of range, ends the command with
one line and exit code 2.

    ets solve --mini 0 --method beam --width 8 --set num_keep=2

says the same as

```yaml
search:
  method: beam
  width: 8
  options: {num_keep: 2}
```

in a file that `--config` names. Only files have groups: a setting's name is its own in all of them, and a file that has
one elsewhere (as all files had before there were groups) is refused with its place: `width: now search.width`.

A run that `ets eval --out` keeps has its resolved settings in `run.json`, by their names alone. Two runs with equal
settings are the same run: where servers are, and how requests to them travel, is not part of that, and a path counts as
the place that it leads to. What a run does not use is not there, nor is a limit that is not set. Beside the settings
stand fingerprints of the weights, what each session's engines said of themselves, and notes: whatever a person must
know of the run, as stderr said it. A run whose weights have changed below it, or whose server computes in another
precision now, is not gone on with.

No mini model stands beside a model that is not of the mini family, unless it is named: with `--policy PATH` alone there
is no reward model, and the method says what it then does.

"ets:" and "arbitrage:" before a meaning say which method or writer reads the setting.
"""

_COMMANDS = """\
# Commands

Results go to standard output, everything else to standard error; `--json` prints one object. Exit codes: 0 done, 1
failed, 2 wrong input, 3 some problems failed, 130 interrupted, 143 the same by SIGTERM. `ets --help` and
`ets COMMAND --help` print what stands here.

Where *Settings* stands under a command, it takes a flag for every setting in [Configuration](configuration.md) as well.
"""

_BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "{} at most", "lt": "less than {}"}


def _cell(text: str) -> str:
    """Text that stands in one cell of a table as it is."""
    return re.sub(r"([|<*])", r"\\\1", " ".join(text.split()))


def _code(text: object) -> str:
    return f"`{text}`"


def _parts(annotation: Any) -> tuple[Any, list[object], bool]:
    """The plain type under Annotated and Optional, the constraints met on the way, and whether None is accepted."""
    if typing.get_origin(annotation) is typing.Annotated:
        kind, constraints, optional = _parts(typing.get_args(annotation)[0])
        return kind, [*_flat(typing.get_args(annotation)[1:]), *constraints], optional
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(annotation) if one is not type(None)]
        kind, constraints, _ = _parts(kinds[0])
        return kind, constraints, len(kinds) < len(typing.get_args(annotation))
    return annotation, [], False


def _flat(metadata: tuple[object, ...]) -> Iterator[object]:
    for one in metadata:
        yield from one.metadata if isinstance(one, FieldInfo) else (one,)


def _accepted(kind: Any, constraints: list[object], optional: bool) -> str:
    """What a setting takes, in words."""
    if typing.get_origin(kind) is Literal:
        said = [", ".join(map(_code, typing.get_args(kind)))]
    elif kind is bool:
        said = ["`true`, `false`"]
    elif typing.get_origin(kind) is dict:
        said = ["names with a number, text, `true` or `false` each"]
    elif typing.get_origin(kind) is tuple:
        said = ["texts, each of one character or more"]
    elif kind is str:
        said = ["see the meaning"]
    else:
        said = [
            form.format(f"{getattr(one, name):,}" if getattr(one, name) < 2**62 else "2^63")
            for one in constraints
            for name, form in _BOUNDS.items()
            if getattr(one, name, None) is not None
        ] or ["any"]
    return "; ".join([*said, *(["or nothing"] if optional else [])])


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "choice"
    names = {int: "whole number", float: "number", str: "text", bool: "switch", SecretStr: "text"}
    several = {tuple: "list of texts", dict: "mapping"}
    return names.get(kind) or several[typing.get_origin(kind)]


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "`{}`"
    if info.default is None:
        return "nothing"
    return _code(str(info.default).lower() if isinstance(info.default, bool) else info.default)


def _setting(name: str, info: FieldInfo) -> str:
    kind, constraints, optional = _parts(info.annotation)
    spelled = flag(name) + {dict: " KEY=VALUE", tuple: " TEXT"}.get(typing.get_origin(kind), "")
    if kind is bool:
        spelled += f", --no-{name.replace('_', '-')}"
    accepted = _accepted(kind, [*_flat(tuple(info.metadata)), *constraints], optional)
    cells = [
        "<br>".join([_code(name), *map(_code, spelled.split(", ")), _code(f"ETS_{name.upper()}")]),
        _type_name(kind),
        _default(info),
        accepted,
        _cell(info.description or ""),
    ]
    return "| " + " | ".join(cells) + " |"


def settings_table(group: type[Group]) -> str:
    """One row for each setting of a group."""
    head = "| setting, flag, environment | type | default | accepted | meaning |\n" + "|---" * 5 + "|\n"
    return head + "\n".join(_setting(name, info) for name, info in group.model_fields.items()) + "\n"


def _attributes(documented: type) -> dict[str, str]:
    """What the Attributes section of a class's docstring says, by name; what it leaves out, its bases say."""
    if documented is object:
        return {}
    section = inspect.cleandoc(documented.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    said: dict[str, str] = {}
    for line in section.splitlines():
        entry = re.match(r" {4}(\w[\w, ]*): (.*)", line)
        if entry:
            name = entry.group(1)
            said[name] = entry.group(2)
        elif said:
            said[name] += " " + line.strip()
    own = {one.strip(): text for names, text in said.items() for one in names.split(",")}
    return {**_attributes(documented.__base__ or object), **own}


def _option_default(item: dataclasses.Field[Any]) -> str:
    return "nothing" if item.default is None else _code(item.default)


def methods_table() -> str:
    """What each method stands for, and the options it has."""
    lines = ["| method | stands for | option | default | meaning |", "|---" * 5 + "|"]
    for name, method in METHODS.items():
        policy = load(method.policy)
        fixed = ", ".join(_code(f"{key} {value:g}" if key == "temperature" else f"{key} {value}")
                          for key, value in method.fixed.items())  # fmt: skip
        meanings = _attributes(policy)
        rows = method_options(name).values()
        cells = [
            [
                _code(item.name),
                _option_default(item),
                _cell(meanings[item.name]) + (f" Also `{flag(item.name)}`." if item.name in METHOD_OPTIONS else ""),
            ]
            for item in rows
        ]
        for place, row in enumerate(cells or [["", "", "no options"]]):
            lines.append("| " + " | ".join([*([_code(name), fixed] if place == 0 else ["", ""]), *row]) + " |")
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """The page of all settings."""
    return "\n".join(
        [
            _CONFIGURATION,
            *(
                f"## {name}\n\n{inspect.cleandoc(group.__doc__ or '')}\n\n{settings_table(group)}"
                for name, group in GROUPS.items()
            ),
            "## Methods and their options\n",
            "An option is given as `--set NAME=VALUE`, in Python under `options`, in YAML in `search`.\n"
            "A value given for what a method stands for, or for an option it does not have, is left alone, and a line\n"
            "on stderr says so.\n",
            methods_table(),
        ]
    )


def _commands(group: click.Group, ctx: click.Context, path: str) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command below a group by its full name, groups before their own."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        own = click.Context(command, parent=ctx, info_name=name)
        yield f"{path} {name}", command, own
        if isinstance(command, click.Group):
            yield from _commands(command, own, f"{path} {name}")


def _is_setting(option: click.Parameter) -> bool:
    return str(option.envvar or "").startswith("ETS_") and option.name in EvalSettings.model_fields


def _option(option: click.Option, ctx: click.Context) -> str:
    spelled = ", ".join(map(_code, [*option.opts, *option.secondary_opts]))
    value = "" if option.is_flag else _value(option, ctx)
    default = option.to_info_dict()["default"]
    if option.is_flag:
        shown = (option.opts if default else option.secondary_opts)[0] if option.secondary_opts else ""
    else:
        values = default if isinstance(default, list | tuple) else [] if default is None else [default]
        shown = ", ".join(map(str, values))
    notes = [option.help or ""] + (["required"] if option.required else []) + (["may be repeated"] * option.multiple)
    meaning = "; ".join(dict.fromkeys(note for note in notes if note and note not in (option.help or "")[1:]))
    return f"| {spelled} | {value} | {_code(shown) if shown else ''} | {_cell(meaning)} |"


def _value(option: click.Option, ctx: click.Context) -> str:
    if isinstance(option.type, click.Choice):
        return ", ".join(map(_code, option.type.choices))
    return _code(option.metavar or option.make_metavar(ctx))


def commands() -> str:
    """The page of all commands."""
    top = click.Context(cli, info_name="ets")
    parts = [_COMMANDS]
    for path, command, ctx in _commands(cli, top, "ets"):
        level = "#" * len(path.split())
        pieces = " ".join(command.collect_usage_pieces(ctx))
        parts += [f"{level} {path}\n", f"    {path} {pieces}\n"]
        parts.append(inspect.cleandoc(command.help or "").replace("\b\n", "") + "\n")
        options = [one for one in command.params if isinstance(one, click.Option)]
        if any(_is_setting(one) for one in options):
            schema = "and `data`, `limit`" if any(one.name == "data" for one in options) else ""
            parts.append(f"*Settings*: all of [Configuration](configuration.md) {schema}".rstrip() + ".\n")
        rest = [_option(one, ctx) for one in options if not _is_setting(one) and not one.hidden]
        if rest:
            parts.append("| flag | value | default | meaning |\n|---|---|---|---|\n" + "\n".join(rest) + "\n")
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {"configuration.md": configuration, "commands.md": commands}

if __name__ == "__main__":
    for name, page in PAGES.items():
        file = HERE / name
        if sys.argv[1:] != ["--check"]:
            file.write_text(page(), encoding="utf-8")
        elif file.read_text(encoding="utf-8") != page():
            sys.exit(f"docs/{name} is old; run `make docs`")
