"""A person's own prompt template: jinja in a sandbox, its mistakes named with their lines."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.errors import ConfigError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = ("question", "examples", "system", "turns", "chat", "start")
"""What a template may read: see `docs/prompts.md`."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template that has been read and checked.

    Attributes:
        text: its source.
        reads: the variables that it reads, of `VARIABLES`.
    """

    text: str
    reads: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> PromptTemplate:
        """Check a template without rendering it.

        Raises:
            ConfigError: wrong syntax, an unknown variable, or the question is left out.
        """
        from jinja2 import TemplateSyntaxError, meta, nodes

        environment = _environment()
        try:
            tree = environment.parse(text)
            environment.compile(tree)  # unknown filters and tests are found here
        except TemplateSyntaxError as error:
            raise ConfigError(f"prompt_template, line {error.lineno}: {error.message}") from None
        read = meta.find_undeclared_variables(tree)
        for name in sorted(read - {*VARIABLES, *environment.globals}):
            line = min(found.lineno for found in tree.find_all(nodes.Name) if found.name == name)
            raise ConfigError(f"prompt_template, line {line}: unknown variable {name!r}; known: {', '.join(VARIABLES)}")
        if "question" not in read:
            raise ConfigError("prompt_template leaves the question out; it must have {{ question }} somewhere")
        return cls(text, frozenset(read) & frozenset(VARIABLES))

    def compile(self) -> Callable[..., str]:
        """A function from the variables, by keyword, to the text.

        What it raises: ConfigError where the template cannot be rendered, with its line.
        """
        template = _environment().from_string(self.text)

        def render(**variables: object) -> str:
            try:
                return template.render(**variables)
            except ConfigError:
                raise
            except Exception as error:  # whatever an expression may raise
                frames = traceback.extract_tb(error.__traceback__)
                lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
                where = f", line {lines[-1]}" if lines else ""
                raise ConfigError(f"prompt_template{where}: {error or type(error).__name__}") from None

        return render


def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What is protected in a text must come through `tojson` as it is.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    return environment
