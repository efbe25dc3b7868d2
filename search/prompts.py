"""Prompt formats: how a question becomes the text that a policy model continues."""

from __future__ import annotations

from typing import Literal

from search.errors import ConfigError
from search.protocols import Tokenizer

PromptFormat = Literal["chat", "plain"]

_INSTRUCTION = (
    "Solve the problem step by step. Leave a blank line after each step. "
    "End with the sentence: The answer is \\boxed{...}."
)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; what came from broken bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def choose_format(requested: str, tokenizer: Tokenizer) -> PromptFormat:
    """Settle "auto": the tokenizer's chat template where there is one, else plain text.

    The mini family carries its own prompt as a template, so nothing here knows it by name.

    Raises:
        ConfigError: "chat" was asked for and the tokenizer has no template.
    """
    has_template = tokenizer.chat([{"role": "user", "content": "1 + 1"}]) is not None
    if requested == "chat" and not has_template:
        raise ConfigError("prompt chat: this model's tokenizer has no chat template; accepted here: plain, auto")
    return "chat" if has_template and requested != "plain" else "plain"


def render(prompt_format: PromptFormat, question: str, tokenizer: Tokenizer) -> str:
    """The prompt for one question, ending where the first step begins.

    Raises:
        ConfigError: the question is empty.
    """
    if not question.strip():
        raise ConfigError("the problem is empty; give its text")
    if not is_unicode(question):
        raise ConfigError("the problem is not valid Unicode text")
    if prompt_format == "chat":
        try:
            prompt = tokenizer.chat(
                [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": question}]
            )
        except ConfigError:  # some templates know no system role
            prompt = tokenizer.chat([{"role": "user", "content": f"{_INSTRUCTION}\n\n{question}"}])
        assert prompt is not None, "choose_format found a template"
        return prompt
    return f"{tokenizer.start}{_INSTRUCTION}\n\nProblem: {question}\n\nSolution:\n\n"
