"""The documents' snippets run, and their claims about files and start-up hold."""

import ast
import json
import re
import runpy
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import click
import pytest
import yaml
from documents import (
    PAGES,
    SERVED_SNIPPETS,
    SNIPPETS,
    arguments,
    check_flags,
    check_names,
    command_lines,
    inline_commands,
    lines_to_run,
    parse,
    without_fences,
)

import search
from search.config import EvalSettings, build, ungrouped
from search.errors import SearchError
from search.runs.sweep import read_sweep

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
LINES = [(page.name, words) for page in PAGES for words in command_lines(page)]
MARKED = {page: list(lines_to_run(page)) for page in PAGES}


@pytest.mark.parametrize(
    "snippet", [one for one in SNIPPETS if one not in SERVED_SNIPPETS], ids=lambda snippet: snippet.name
)
def test_a_snippet_runs(snippet, capsys, tmp_path, monkeypatch):
    """Those that ask a server are run where there is one."""
    if snippet.needs:
        check_names(snippet.code, snippet.name)
        return
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet.code, snippet.name, "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.strip()


def test_names_that_are_not_there_are_found_in_a_snippet_that_cannot_run():
    for code in ("from search import Serch", "Search(1)", "from search import Search\nSearch(widht=3)", "if"):
        with pytest.raises((AssertionError, SyntaxError)):
            check_names(code, "made up")


@pytest.mark.parametrize(("page", "words"), LINES, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in LINES])
def test_a_command_line_is_one_that_ets_takes(page, words):
    parse(words)


@pytest.mark.parametrize("line", ["ets solv", "ets solve --mini x", "ets eval --widht 3", "ets bench none", "ets"])
def test_a_command_line_that_ets_refuses_is_found(line):
    with pytest.raises((click.UsageError, SearchError, AssertionError)):
        parse(arguments(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_running_text_and_make_targets_and_extras_are_there(page):
    for words in inline_commands(page):
        check_flags(words)
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = page.read_text()
    named = re.findall(r"`make ([\w-]+)", text) + re.findall(r"^ {4}make ([\w-]+)", text, re.MULTILINE)
    assert set(named) <= set(targets)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for given in re.findall(r"ets-arbitrage\[([\w,]+)\]", text):
        assert set(given.split(",")) <= set(extras), page.name


# Those of routers.md train a router, as test_cli_router.py does on less.
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.nightly if page.name == "routers.md" else ())
        for page in PAGES
        if MARKED[page]
    ],
    ids=lambda page: page.name,
)
def test_the_lines_marked_to_be_run_do_what_they_should(page, inside):
    for words in MARKED[page]:
        ran = inside(*words)
        assert ran.code == 0 and ran.out.strip(), f"ets {' '.join(words)}: {ran.err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_yaml_are_settings(page, tmp_path):
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        values = yaml.safe_load(block)
        if "grid" in values:
            (tmp_path / "grid.yaml").write_text(block)
            assert len(read_sweep(tmp_path / "grid.yaml").cells) > 1
        else:
            build(EvalSettings, ungrouped(EvalSettings, values))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_the_environment_are_settings(page):
    for name in re.findall(r"ETS_(?!SKIP_)([A-Z_]+)=", page.read_text()):
        assert name.lower() in EvalSettings.model_fields, f"{page.name}: ETS_{name}"


def test_the_api_page_names_what_search_exports():
    page = (ROOT / "docs/python-api.md").read_text()
    assert not [name for name in search.__all__ if f"`{name}" not in page and f"import {name}" not in page]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda file: file.name)
def test_an_example_runs(example, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_the_readme_starts_with_the_two_commands():
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]
    assert lines[:2] == ["make demo", "make test"]


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", without_fences(page)):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("script", ["files.py", "references.py", "choosing.py"])
def test_pages_written_by_a_script_are_as_it_would_write_them(script):
    command = [sys.executable, str(ROOT / "docs" / script), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def stops(text):
    """The functions that a text names, in order, as (file, name in it): `a/b.py`: `f`, `C.g`."""
    named = re.findall(r"`([\w/]+\.py)`:\s((?:`[\w.]+`(?:,\s)?)+)", text)
    return [(file, name) for file, names in named for name in re.findall(r"`([\w.]+)`", names)]


def functions(file):
    """The names of a file's functions and methods."""
    tree = ast.parse((ROOT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {one.name for one in tree.body if isinstance(one, kinds)}
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef)]
    return names | {f"{one.name}.{method.name}" for one in classes for method in one.body if isinstance(method, kinds)}


def test_a_function_that_the_architecture_names_is_in_its_file():
    assert len(stops(ARCHITECTURE)) > 50
    for file, name in stops(ARCHITECTURE):
        assert name in functions(file), f"{file} has no {name}"


TRACED = """
import json, sys, threading
from search.cli.main import cli

line, stops, root = json.loads(sys.argv[1]), {tuple(stop) for stop in json.loads(sys.argv[2])}, sys.argv[3] + "/"
files, called = {file for file, _ in stops}, []

def note(frame, event, argument):
    if event == "call" and (file := frame.f_code.co_filename.removeprefix(root)) in files:
        if (stop := (file, frame.f_code.co_qualname)) in stops:
            called.append(stop)

threading.setprofile(note)
sys.setprofile(note)
try:
    cli.main(line, standalone_mode=False)
finally:
    sys.setprofile(None)
    print(json.dumps(called))
"""


def test_the_walk_of_a_problem_is_the_one_it_takes(tmp_path):
    walk = ARCHITECTURE.partition("## One problem's way")[2].partition("What the list leaves out")[0]
    named = stops(walk)
    line = re.search(r"`ets (solve [^`]*) FILE`", walk)[1].split()
    command = [
        sys.executable,
        "-c",
        TRACED,
        json.dumps([*line, str(tmp_path / "tree.json")]),
        json.dumps(named),
        str(ROOT),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last = {}, {}
    for place, stop in enumerate(map(tuple, json.loads(ran.stdout.splitlines()[-1]))):
        first.setdefault(stop, place)
        last[stop] = place
    # Two threads take turns as they like, so that a call may come a level later than the list has it, but not earlier.
    for before, stop in pairwise(named):
        assert last.get(stop, -1) > first[before], f"{stop} is not called after {before}"


def test_the_layers_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer.replace("search.", "").replace(" | ", ", ") for layer in contracts[0]["layers"]]
    assert " < ".join(f"`{layer}`" for layer in reversed(layers)) in ARCHITECTURE


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_search_is_quick_and_loads_no_backend():
    code = "import time; t = time.process_time(); import search; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3
    heavy = "{'torch', 'transformers', 'numpy', 'scipy', 'pydantic'}"
    assert python(f"import sys, search; print(sorted({heavy} & sys.modules.keys()))").strip() == "[]"


def test_help_is_quick():
    code = (
        "import os, subprocess, sys;"
        "subprocess.run([sys.executable, '-m', 'search.cli', '--help'], capture_output=True, check=True);"
        "t = os.times(); print(t.children_user + t.children_system)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.5
    loaded = "import sys\nfrom search.cli.main import cli\ncli.main(['--help'], standalone_mode=False)\n"
    assert python(loaded + "print('torch' in sys.modules)").splitlines()[-1] == "False"
