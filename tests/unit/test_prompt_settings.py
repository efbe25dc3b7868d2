"""The settings of prompts, from wherever a person gives them: flag, environment, YAML, Python."""

import json

import click
import pytest
from click.testing import CliRunner

from search.api import Search
from search.cli.options import read_settings, settings_options
from search.config import EvalSettings, SearchSettings, build, config_hash
from search.errors import ConfigError


@click.command()
@settings_options(SearchSettings)
@click.pass_context
def echo(ctx, /, config, **_):
    """Print the settings as they were read."""
    click.echo(read_settings(SearchSettings, ctx, config).model_dump_json())


def read(*args, **environment):
    found = CliRunner().invoke(echo, args, env={f"ETS_{name}": value for name, value in environment.items()})
    if found.exception is not None:
        raise found.exception
    return build(SearchSettings, json.loads(found.output))


def test_texts_that_may_be_repeated_come_from_everywhere_alike(tmp_path):
    wanted = build(SearchSettings, {"stop": ["\n\n", "Step"], "final": ["The answer is"]})
    (tmp_path / "c.yaml").write_text('stop: ["\\n\\n", Step]\nfinal: The answer is\n')
    flags = read("--stop", r"\n\n", "--stop", "Step", "--final", "The answer is")
    environment = read(STOP="\\n\\n\nStep", FINAL="The answer is")
    yaml = read("--config", str(tmp_path / "c.yaml"))
    assert wanted == flags == environment == yaml
    with Search(prm=None, stop=["\n\n", "Step"], final="The answer is") as search:
        assert (search.settings.stop, search.settings.final) == (wanted.stop, wanted.final)
    assert read("--stop", "flag", "--config", str(tmp_path / "c.yaml"), STOP="environment").stop == ("flag",)


def test_only_line_breaks_tabs_and_backslashes_are_escaped():
    assert read("--stop", r"a\tb\\n\boxed{").stop == ("a\tb\\n\\boxed{",)


def test_nothing_given_leaves_the_format_its_own():
    assert read().stop is None and read().final is None
    assert build(SearchSettings, {"stop": []}).stop == ()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--stop", ""), "stop = '': string should have at least 1 character"),
        (("--stop", "a", "--stop", ""), "stop = ''"),
        (("--final", ""), "final = '': string should have at least 1 character"),
        (("--chat-option", "thinking"), "--chat-option 'thinking': must be KEY=VALUE"),
        (("--set", "=1"), "--set '=1': must be KEY=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_one_line(inside, args, message):
    ran = inside("solve", "1 + 1?", *args)
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1


def test_chat_options_have_types():
    wanted = {"enable_thinking": False, "budget": 3, "share": 0.5, "date_string": "26 Jul 2024"}
    pairs = [f"{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in wanted.items()]
    assert read(*(part for pair in pairs for part in ("--chat-option", pair))).chat_options == wanted
    assert read(CHAT_OPTIONS=" ".join(pairs)).chat_options == wanted
    assert read(OPTIONS="a=1 b=x").options == {"a": 1, "b": "x"}


def test_prompts_are_part_of_what_makes_a_run():
    changes = [{"stop": ["\n"]}, {"final": ["So"]}, {"chat_options": {"enable_thinking": False}}]
    assert len({config_hash(build(EvalSettings, change)) for change in [{}, *changes]}) == 4


def test_stop_and_final_stand_in_place_of_the_formats_own():
    with Search(prm=None, stop="=", final="boxed", width=2, method="rebase") as search:
        result = search.solve("Ann has 3 books. She buys 4 more. How many books are there now?")
    steps = [node for node in result.tree if node.parent is not None]
    assert any(node.text.endswith("=") for node in steps) and not any("=" in node.text[:-1] for node in steps)
    assert search.driver.sampling.stop == ("=",) and search.driver.limits.final == ("boxed",)


def test_a_chat_option_that_no_template_reads_is_refused(inside):
    with pytest.raises(ConfigError, match="chat option 'enable_thinking': the model's chat template reads no such"):
        Search(prm=None, chat_options={"enable_thinking": False}).solve("1 + 1?")
    ran = inside("solve", "1 + 1?", "--chat-option", "tokenize=true")
    assert ran.code == 2 and "chat option 'tokenize'" in ran.err
