"""What prompts are made of, read from files into the settings, so that a run is kept with the texts themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from prm.critic_prompt import PROMPTS, parse_prompt
from search.catalogue import scorer_kind
from search.config import SearchSettings, build
from search.errors import ConfigError
from search.prompt.template import PromptTemplate
from search.setting_groups import PromptSettings
from search.setting_types import Example

Settings = TypeVar("Settings", bound=SearchSettings)

_QUESTION = ("question", "problem")
_ANSWER = ("solution", "answer")
"""Names of an example's fields; where a row has several, the first of these that it has counts."""


def with_files(settings: Settings) -> Settings:
    """The settings with every file of a prompt read; those that hold the texts already stay as they are.

    Raises:
        ConfigError: a file cannot be read, an example has no question or answer, or the template is wrong.
    """
    changes: dict[str, Any] = {}
    system = settings.system_prompt
    if system is not None and names_file(system):
        text = _read("system_prompt", system[1:]).strip()
        changes["system_prompt"] = f"@{text}" if text.startswith("@") else text
    template = settings.prompt_template
    if template is not None and not _is_template(template):
        changes["prompt_template"] = template = _read("prompt_template", template)
    critic, kind = settings.critic_prompt, settings.prm.partition(":")[0]
    if critic is not None and not _is_yaml(critic):
        changes["critic_prompt"] = critic = _read("critic_prompt", critic)
    if critic is not None and scorer_kind(settings.prm) and kind in PROMPTS:
        parse_prompt(critic, kind)
    if isinstance(settings.few_shot, str):
        changes["few_shot"] = _examples(settings.few_shot)
    if template is not None:
        _check(PromptTemplate.parse(template), settings)
    return build(type(settings), {**settings.model_dump(exclude_unset=True), **changes}) if changes else settings


def names_file(system_prompt: str) -> bool:
    """Whether a system prompt is @FILE; @@ at its start is a text that begins with @."""
    return system_prompt.startswith("@") and not system_prompt.startswith("@@")


def _is_template(text: str) -> bool:
    """A template has an expression or a statement, for without one it could not ask; a file's name has none."""
    return "{{" in text or "{%" in text


def _is_yaml(text: str) -> bool:
    """A mapping has a colon and something behind it; a file's name has not."""
    return "\n" in text or ": " in text


def _check(template: PromptTemplate, settings: PromptSettings) -> None:
    for name, variable in (("system_prompt", "system"), ("few_shot", "examples")):
        if getattr(settings, name) and variable not in template.reads:
            raise ConfigError(f"{name}: prompt_template does not read it; it must have `{variable}` somewhere")


def _read(name: str, file: str) -> str:
    path = Path(file).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: {path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{name}: cannot read {str(path)!r}: {reason}") from None


def _examples(file: str) -> tuple[Example, ...]:
    found = []
    for number, line in enumerate(_read("few_shot", file).split("\n"), 1):
        if line.strip():
            found.append(_example(f"few_shot {file}, line {number}", line))
    if not found:
        raise ConfigError(f"few_shot {file}: no example in it")
    return tuple(found)


def _example(where: str, line: str) -> Example:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: not JSON") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: must be an object with question and answer (or problem and solution)")
    texts = []
    for what, names in (("question", _QUESTION), ("answer", _ANSWER)):
        name = next((name for name in names if name in row), None)
        if name is None:
            raise ConfigError(f"{where}: no {what}; it must have {' or '.join(names)}")
        if not isinstance(row[name], str) or not row[name].strip():
            raise ConfigError(f"{where}: {name} must be a text that is not empty")
        texts.append(row[name])
    return Example(question=texts[0], answer=texts[1])
