"""Prompts for models with and without chat templates, and with templates that know no system role."""

import asyncio

import pytest

from search.driver import Driver, Limits
from search.engines.fake import FakeEngine
from search.errors import ConfigError
from search.policies import Rebase
from search.prompts import STYLES, choose_format, render
from search.types import NodeStatus, Problem
from search.writer import ModelWriter


class Tokenizer:
    """As far as prompts need one."""

    def __init__(self, template=None, start=""):
        self.template, self.start = template, start

    def chat(self, messages, options=None):
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


def chatml(messages):
    """Qwen2.5-Math's template: a system prompt of its own where none is given."""
    if messages[0]["role"] != "system":
        own = "Please reason step by step, and put your final answer within \\boxed{}."
        messages = [{"role": "system", "content": own}, *messages]
    turns = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
    return turns + "<|im_start|>assistant\n"


def llama(messages):
    turns = "".join(
        f"<|start_header_id|>{one['role']}<|end_header_id|>\n\n{one['content']}<|eot_id|>" for one in messages
    )
    return turns + "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.mark.parametrize(("template", "name"), [(chatml, "qwen-math"), (llama, "llama-3"), (roles, "chat")])
def test_auto_knows_a_family_by_its_template(template, name):
    assert choose_format("auto", Tokenizer(template)) == name


def test_each_family_is_asked_in_its_own_way():
    qwen = render("qwen-math", "1 + 1?", Tokenizer(chatml))
    assert qwen == chatml([{"role": "user", "content": "1 + 1?"}]), "its own system prompt, and nothing else"
    assert "## Step n: " in render("llama-3", "1 + 1?", Tokenizer(llama))
    assert render("math-shepherd", "1 + 1?", Tokenizer(None, "<s>")) == "<s>1 + 1?\n"
    assert render("mini", "1 + 1?", Tokenizer(roles)) == "user: 1 + 1?"
    assert STYLES["math-shepherd"].stop == ("ки",) and STYLES["llama-3"].stop == ("\n\n",)


@pytest.mark.parametrize("name", ["qwen-math", "llama-3", "mini"])
def test_a_family_that_needs_a_template_says_so(name):
    with pytest.raises(ConfigError, match=f"prompt {name}: this model's tokenizer has no chat template"):
        choose_format(name, Tokenizer())
    assert choose_format("math-shepherd", Tokenizer()) == "math-shepherd"


def test_an_unknown_format_is_named():
    with pytest.raises(ConfigError, match="unknown prompt format 'qwen'"):
        choose_format("qwen", Tokenizer(roles))


def test_a_final_phrase_ends_a_trajectory():
    def steps(**limits):
        driver = Driver(Rebase(), ModelWriter(FakeEngine()), None, width=4, limits=Limits(max_depth=4, **limits))
        return list(asyncio.run(driver.solve(Problem("p", "Add 3.\n\n"), "Add 3.\n\n")).tree)[1:]

    phrase = next(node.text for node in steps() if node.depth == 1 and node.status is NodeStatus.EXPANDED)
    found = [node for node in steps(final=(phrase,)) if phrase in node.text]
    assert found and all(node.status is NodeStatus.FINISHED for node in found)
    assert {"final answer"} <= {node.reason for node in found}
