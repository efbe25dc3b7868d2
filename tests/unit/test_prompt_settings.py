"""The settings of prompts, from wherever a person gives them: flag, environment, YAML, Python."""

import json

import click
import pytest
from click.testing import CliRunner

from search.api import Search
from search.cli.options import read_settings, settings_options
from search.config import EvalSettings, SearchSettings, build
from search.errors import ConfigError
from search.setup.run_key import config_hash


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
    (tmp_path / "c.yaml").write_text('prompts: {stop: ["\\n\\n", Step], final: The answer is}\n')
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
        (("--stop", ""), "stop = '': must not be empty"),
        (("--stop", "a", "--stop", ""), "stop = ''"),
        (("--final", ""), "final = '': must not be empty"),
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
    refused = pytest.raises(ConfigError, match="chat option 'enable_thinking': the model's chat template reads no such")
    with refused, Search(prm=None, chat_options={"enable_thinking": False}) as search:
        search.solve("1 + 1?")
    ran = inside("solve", "1 + 1?", "--chat-option", "tokenize=true")
    assert ran.code == 2 and "chat option 'tokenize'" in ran.err


# Prompts from files

FEW_SHOT = (
    '{"question": "2 + 2?", "answer": "It is 4."}\n\n{"problem": "3 + 3?", "solution": "It is 6.", "answer": "6"}\n'
)
SHOWN = [{"question": "2 + 2?", "answer": "It is 4."}, {"question": "3 + 3?", "answer": "It is 6."}]
TEMPLATE = "{% for one in examples %}{{ one.question }} {{ one.answer }}\n{% endfor %}{{ system }} {{ question }}\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files of a prompt, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "system.txt").write_text("Be brief.\nSay \\boxed{}.\n")
    (tmp_path / "few.jsonl").write_text(FEW_SHOT)
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    return {"system_prompt": "@system.txt", "few_shot": "few.jsonl", "prompt_template": "mine.jinja"}


def test_files_are_read_from_wherever_they_are_named_and_kept_as_their_content(files, tmp_path):
    content = {"system_prompt": "Be brief.\nSay \\boxed{}.", "few_shot": SHOWN, "prompt_template": TEMPLATE}
    wanted = build(SearchSettings, content)
    flags = [part for name, file in files.items() for part in (f"--{name.replace('_', '-')}", file)]
    (tmp_path / "c.yaml").write_text(json.dumps({"prompts": files}))
    environment = {name.upper(): file for name, file in files.items()}
    assert wanted == read(*flags) == read("--config", "c.yaml") == read(**environment)
    with Search(prm=None, **files) as search:
        found = search.settings.model_dump(mode="json")
        assert {name: found[name] for name in content} == content
        assert search.config_hash == Search(prm=None, **content).config_hash
        assert Search(settings=search.settings).settings == search.settings, "content is no file's name"
        assert search.prompt("1 + 1?").text == "2 + 2? It is 4.\n3 + 3? It is 6.\nBe brief.\nSay \\boxed{}. 1 + 1?"


def test_the_hash_changes_with_a_files_content_and_not_with_its_place(files, tmp_path, monkeypatch):
    before = Search(prm=None, **files).config_hash
    (tmp_path / "other").mkdir()
    for file in ("system.txt", "few.jsonl", "mine.jinja"):
        (tmp_path / "other" / file).write_text((tmp_path / file).read_text())
    monkeypatch.chdir(tmp_path / "other")
    assert Search(prm=None, **files).config_hash == before
    for file in ("system.txt", "few.jsonl", "mine.jinja"):
        kept = (tmp_path / "other" / file).read_text()
        (tmp_path / "other" / file).write_text(
            kept.replace("Be", "Do be").replace("It is", "That is").replace(" {{", "  {{")
        )
        assert Search(prm=None, **files).config_hash != before, file
        (tmp_path / "other" / file).write_text(kept)


def test_a_run_holds_the_texts_and_goes_on_without_the_files(files, tmp_path, inside):
    (tmp_path / "t.jinja").write_text("{{ question | replace('. ', '.\\n') }}\n\n\n")
    line = ("eval", "--data", "mini:test", "--width", "2", "--method", "rebase", "--prompt-template", "t.jinja")
    line = (*line, "--out", "run", "--json")
    first = inside(*line, "--limit", "1")
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert kept["prompt_template"] == "{{ question | replace('. ', '.\\n') }}\n\n\n"
    assert first.code == 0 and inside(*line, "--limit", "2").code == 0
    (tmp_path / "t.jinja").write_text("{{ question }} \n\n\n")
    changed = inside(*line, "--limit", "2")
    assert changed.code == 2 and "run" in changed.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("few.jsonl", '{"question": "a", "answer": "b"}\n{"question": "a"}', "few.jsonl, line 2: no answer; it must"),
        ("few.jsonl", '\n{"answer": "b"}', "few.jsonl, line 2: no question; it must have question or problem"),
        ("few.jsonl", '{"question": "a", "answer": 3}', "line 1: answer must be a text that is not empty"),
        ("few.jsonl", '{"question": " ", "answer": "b"}', "line 1: question must be a text that is not empty"),
        ("few.jsonl", "[1]", "line 1: must be an object"),
        ("few.jsonl", '{"question"', "line 1: not JSON"),
        ("few.jsonl", "\n", "no example in it"),
        ("mine.jinja", "{{ question }}\n{{ problem }}", "prompt_template, line 2: unknown variable 'problem'"),
        ("mine.jinja", "{{ question }}\n\n{% for %}", "prompt_template, line 3: "),
        ("mine.jinja", "Hello", "prompt_template leaves the question out"),
        ("mine.jinja", "{{ question }}{{ system }}", "few_shot: prompt_template does not read it"),
        ("mine.jinja", "{{ question }}{{ examples }}", "system_prompt: prompt_template does not read it"),
        ("system.txt", None, "system_prompt: cannot read 'system.txt': No such file or directory"),
        ("few.jsonl", None, "few_shot: cannot read 'few.jsonl': No such file or directory"),
        ("mine.jinja", None, "prompt_template: cannot read 'mine.jinja': No such file or directory"),
        ("system.txt", b"\xff\xfe\xfd", "system_prompt: system.txt is not UTF-8 text"),
    ],
)
def test_a_wrong_file_is_one_line(files, tmp_path, inside, name, content, message):
    file = tmp_path / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    flags = [part for name, given in files.items() for part in (f"--{name.replace('_', '-')}", given)]
    ran = inside("solve", "1 + 1?", *flags)
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1


def test_a_wrong_example_in_yaml_or_python_is_named():
    with pytest.raises(ConfigError, match="no 'answer' in it"):
        build(SearchSettings, {"few_shot": [{"question": "a"}]})
    with pytest.raises(ConfigError, match="few_shot = '': must not be empty"):
        build(SearchSettings, {"few_shot": [{"question": "a", "answer": ""}]})


def test_a_text_may_begin_with_an_at_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "system.txt").write_text("@home")
    shown = "{{ system }}: {{ question }}"
    for given in ("@system.txt", "@@home"):
        with Search(prm=None, system_prompt=given, prompt_template=shown) as search:
            assert search.prompt("1?").text == "@home: 1?"
            assert Search(settings=search.settings).settings.system_prompt == "@@home"


def test_the_prompt_can_be_looked_at(inside):
    ran = inside("solve", "Ann has 3 books. She buys 4.", "--show-prompt", "--assistant-prefix", r"Ann\n")
    assert ran.code == 0 and ran.out == "Ann has 3 books.\nShe buys 4.\n\nAnn\n"
    as_json = json.loads(inside("solve", "Ann has 3 books. She buys 4.", "--show-prompt", "--json").out)
    assert as_json["text"] == "Ann has 3 books.\nShe buys 4.\n\n" and as_json["num_tokens"] == len(as_json["ids"])
    assert ran.err.split()[-2:] == [str(as_json["num_tokens"] + 2), "tokens"]


def test_a_prefix_belongs_to_the_prompt_and_not_to_the_solution():
    with Search(prm=None, assistant_prefix="3 + ", width=1, method="greedy", settings=None) as search:
        result = search.solve("Ann has 3 books. She buys 4 more. How many books are there now?")
    assert result.tree.root.text.endswith("\n\n3 + ") and not result.tree.steps_text(1).startswith("3 + ")
