"""Prompts for models with and without chat templates, and with templates that know no system role."""

import pytest

from search.errors import ConfigError
from search.prompts import choose_format, render


class Tokenizer:
    """As far as prompts need one."""

    def __init__(self, template=None, start=""):
        self.template, self.start = template, start

    def chat(self, messages):
        return None if self.template is None else self.template(messages)


def roles(messages):
    return "|".join(f"{one['role']}: {one['content']}" for one in messages)


def no_system(messages):
    if messages[0]["role"] == "system":
        raise ConfigError("no system role")
    return roles(messages)


def test_a_template_is_used_where_there_is_one():
    tokenizer = Tokenizer(roles)
    assert choose_format("auto", tokenizer) == "chat"
    assert choose_format("plain", tokenizer) == "plain"
    assert render("chat", "1 + 1?", tokenizer).startswith("system: Solve the problem step by step.")


def test_a_template_without_a_system_role_gets_it_all_from_the_user():
    prompt = render("chat", "1 + 1?", Tokenizer(no_system))
    assert prompt.startswith("user: Solve the problem step by step.") and prompt.endswith("1 + 1?")


def test_plain_prompts_begin_as_the_models_texts_do():
    tokenizer = Tokenizer(start="<s>")
    assert choose_format("auto", tokenizer) == "plain"
    prompt = render("plain", "1 + 1?", tokenizer)
    assert prompt.startswith("<s>Solve") and "Problem: 1 + 1?" in prompt and prompt.endswith("\n\n")
    with pytest.raises(ConfigError, match="no chat template"):
        choose_format("chat", tokenizer)
