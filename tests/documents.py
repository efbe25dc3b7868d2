"""What the documents show to be typed: Python blocks, command lines, and the lines that a test is to run."""

import ast
import builtins
import importlib
import inspect
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import click

from search.catalogue import ENGINES, pick
from search.cli.main import cli
from search.cli.options import read_settings
from search.config import EvalSettings, SearchSettings
from search.setup.registry import BENCHES
from search.setup.resolve import settle
from search.setup.routing import parse_router

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
GENERATED = frozenset({"commands.md"})
"""Written from the commands themselves: usage with placeholders, not lines to be typed."""

SERVED = "http://127.0.0.1:8000"
"""Where the documents' snippets expect `ets serve`."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"<!-- needs: (.+?) -->\s*\Z")
_SHELL_ENDS = frozenset({"|", ">", ">>", "<", "&", "&&", ";"})


class Snippet(NamedTuple):
    """A Python block: where it stands, its code, and what it says it needs that is not here; "" for nothing."""

    name: str
    code: str
    needs: str


def snippets(page):
    """Every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        if block[1] == "python":
            needs = _NEEDS.search(text[: block.start()])
            yield Snippet(
                f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}", block[2], needs[1] if needs else ""
            )


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]
SERVED_SNIPPETS = [snippet for snippet in SNIPPETS if SERVED in snippet.code and not snippet.needs]


def without_fences(page):
    """A page's text outside its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def shell_text(page):
    """The lines of a page's indented and shell blocks, continued ones joined."""
    fenced = [
        block[2] for block in _FENCE.finditer(page.read_text(encoding="utf-8")) if block[1] in ("console", "bash", "sh")
    ]
    indented = re.findall(r"^ {4}(.*)$", without_fences(page), re.MULTILINE)
    return re.sub(r"\\\n\s*", " ", "\n".join([*indented, *fenced]))


def command_lines(page):
    """The arguments of every `ets ...` line of a page's blocks."""
    if page.name in GENERATED:
        return
    for line in shell_text(page).splitlines():
        if line.removeprefix("$ ").startswith("ets "):
            yield arguments(line.removeprefix("$ "))


def arguments(line):
    """What follows `ets` on a line, up to where the shell takes over."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    words.whitespace_split = True
    found = []
    for word in words:
        if word in _SHELL_ENDS:
            break
        found.append(word)
    return found[1:]


def lines_to_run(page):
    """The `ets` lines in the blocks of a page that are marked to be run, in order; "run small" with what is small."""
    for how, block in re.findall(r"<!-- (run|run small) -->\n\n((?: {4}.*\n)+)", page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            words = arguments(line.strip())
            yield small(words) if how == "run small" else words


SMALL = {"--policy": "mini:target", "--device": "cpu", "--limit": "1", "--width": "2"}


def small(words):
    """The same command with the mini family in place of models that are not here, for one problem at width 2."""
    words = list(words)
    for place, (flag, value) in enumerate(pairwise(words), 1):
        if flag == "--data":
            words[place] = str(ROOT / value) if (ROOT / value).is_file() else "mini:test"
        elif flag == "--prm" and value.partition(":")[0] not in ("none", "confidence"):
            words[place] = "mini:prm"
        elif flag in SMALL:
            words[place] = SMALL[flag]
    return words


def inline_commands(page):
    """Every command in running text, as words: `ets eval --out` and the like."""
    for code in re.findall(r"`(ets [^`\n]+)`", without_fences(page)):
        yield shlex.split(code)[1:]


def parse(words):
    """Parse a command line as the command would, without running it.

    Raises:
        click.UsageError, ConfigError, AssertionError: it would be refused.
    """
    command, ctx, words = _command(words)
    assert not isinstance(command, click.Group) or words[:1] in (["--help"], ["--version"]), f"{words}: no such command"
    try:
        ctx = command.make_context(ctx.info_name, list(words), parent=ctx.parent)
    except click.exceptions.Exit as ended:
        assert ended.exit_code == 0
        return
    if command.name == "bench":
        pick("bench", ctx.params["name"], BENCHES)
    if "method" in ctx.params:
        schema = EvalSettings if "data" in ctx.params else SearchSettings
        settings = settle(read_settings(schema, ctx, None)).settings
        for name in ("engine", "prm_engine", "draft_engine", "router_engine"):
            pick("engine", getattr(settings, name).partition(":")[0], ENGINES)
        parse_router(settings.router)


def check_flags(words):
    """Check a command that is only named: that it is there, and has the flags it is shown with."""
    command, ctx, rest = _command(words)
    known = {flag for one in command.get_params(ctx) for flag in (*one.opts, *one.secondary_opts)}
    if isinstance(command, click.Group):
        assert not rest or rest[0] == "COMMAND" or rest[0].startswith("-") or "|" in rest, f"ets {words}: no {rest[0]}"
        assert {word for word in rest if word.isalpha() and word.islower()} <= set(command.list_commands(ctx)), words
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, words


def _command(words):
    command, ctx = cli, click.Context(cli, info_name="ets")
    # An option is no command, and COMMAND stands for any.
    while isinstance(command, click.Group) and words and not words[0].startswith("-") and not words[0].isupper():
        found = command.get_command(ctx, words[0])
        if found is None:
            break
        command, ctx, words = found, click.Context(found, info_name=words[0], parent=ctx), words[1:]
    return command, ctx, words


def check_names(code, name):
    """Compile a snippet that cannot run here; its imports must exist, its names be known, its settings be settings."""
    tree = ast.parse(compile_source(code, name))
    known = {*dir(builtins), "__name__"}
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{name}: {node.module} has no {alias.name}"
                known.add(alias.asname or alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
                known.add(alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            known.add(node.name)
        elif isinstance(node, ast.Call):
            calls.append(node)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used <= known, f"{name}: unknown names {used - known}"
    from search import Search

    accepted = {*inspect.signature(Search).parameters, *SearchSettings.model_fields}
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "Search":
            given = {keyword.arg for keyword in call.keywords}
            assert given <= accepted, f"{name}: Search takes no {given - accepted}"


def compile_source(code, name):
    """The code itself, once it is known to compile."""
    compile(code, name, "exec")
    return code
