"""`ets solve`: one problem, its answer, its tree and its cost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import click

from search.cli.kinds import FILE
from search.cli.options import read_settings, settings_options
from search.cli.show import print_json, print_result
from search.config import SearchSettings
from search.errors import ConfigError
from search.types import Problem, Reduce


@click.command()
@click.argument("problem", required=False)
@click.option("--mini", "mini_index", type=int, metavar="I", help="solve test problem I of the mini family")
@settings_options(SearchSettings)
@click.option("--tree", type=FILE, metavar="OUT.json", help="write the whole tree to a file")
@click.option("--show-prompt", is_flag=True, help="print the prompt as the policy model reads it, and search nothing")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.pass_context
def solve(
    ctx: click.Context,
    /,
    problem: str | None,
    mini_index: int | None,
    config: Path | None,
    tree: Path | None,
    show_prompt: bool,
    as_json: bool,
    **_: object,
) -> int:
    """Solve PROBLEM by search; - reads it from standard input."""
    settings = read_settings(SearchSettings, ctx, config)
    asked = _problem(problem, mini_index)
    if show_prompt:
        return asyncio.run(_show_prompt(settings, asked.text, as_json))
    if tree is not None:
        _check_writable(tree)

    from search.api import Search
    from search.runs.pulse import Pulse
    from search.support.files import write_atomic

    search = Search(settings=settings)

    async def run() -> int:
        async with search:
            pulse = Pulse(search, 1, lambda note: click.echo(f"solve: {note}", err=True))
            try:
                result = await search.asolve(asked, watch=pulse.watch)
            finally:
                pulse.stop()
            if tree is not None:
                write_atomic(tree, result.to_record(search.config_hash).model_dump_json(indent=1) + "\n")
            if as_json:
                print_json(result.to_dict())
            else:
                print_result(result, reduce=cast(Reduce, search.settings.search_reduce))
            return 1 if result.error is not None else 0

    search.load()
    return asyncio.run(run())


async def _show_prompt(settings: SearchSettings, question: str, as_json: bool) -> int:
    """The prompt on standard output as it is, and its number of tokens beside it; only the policy is loaded."""
    from search.api import Search
    from search.prompt.prompts import PromptRenderer
    from search.setup.registry import make_engine

    chosen = Search(settings=settings).settings
    name = chosen.policy if chosen.writer == "model" else chosen.target
    engine = make_engine(chosen.engine, name, chosen, chosen.max_kv_tokens)
    try:
        prompt = PromptRenderer(chosen, engine.tokenizer).render(question)
    finally:
        await engine.aclose()
    if as_json:
        print_json({"text": prompt.text, "num_tokens": len(prompt.ids), "ids": list(prompt.ids)})
    else:
        click.echo(prompt.text, nl=False)
        click.echo(f"\n{len(prompt.ids)} tokens", err=True)
    return 0


def _problem(text: str | None, mini_index: int | None) -> Problem:
    if (text is None) == (mini_index is None):
        raise ConfigError("give one problem: its text, - for standard input, or --mini I")
    if mini_index is not None:
        from search.mini.problems import problem

        if mini_index < 0:
            raise ConfigError(f"--mini {mini_index}: must be 0 or more")
        mini = problem("test", mini_index)
        return Problem(mini.id, mini.text, mini.answer)
    assert text is not None
    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError("standard input is not UTF-8 text") from None
    return Problem("0", text)


def _check_writable(file: Path) -> None:
    """Say before the search, not after it, that its tree has no place to go."""
    from search.support.files import write_atomic

    if file.is_dir():
        raise ConfigError(f"cannot write {file}: it is a directory")
    existed = file.exists()
    if not existed:
        write_atomic(file, "")
        file.unlink()
