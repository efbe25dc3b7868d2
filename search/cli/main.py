"""The `ets` command: its subcommands, loaded when they are used, and how errors become exit codes."""

from __future__ import annotations

import importlib
import io
import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from types import FrameType
from typing import NoReturn

import click

from search.errors import ConfigError, DataError, SearchError

EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 130, 143

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "solve": ("search.cli.solve:solve", "Solve one problem by search and show how."),
    "eval": ("search.cli.evaluate:evaluate", "Search a data set, with a record per problem; resumes."),
    "report": ("search.cli.report:report", "Sum up kept runs, vote again without a model, draw plots."),
    "grade": ("search.cli.grade:grade", "Grade a file of answers; compare graders."),
    "compare": ("search.cli.compare:compare", "Compare kept runs side by side, with paired intervals."),
    "sweep": ("search.cli.sweep:sweep", "Run a grid of settings in one process, and compare."),
    "plan": ("search.cli.plan:plan", "Say what memory and time a search will take, from the models' shapes."),
    "view": ("search.cli.view:view", "Show the trees of a run, or of one problem, in the browser."),
    "repro": ("search.cli.repro:repro", "Reproduce the papers' tables beside the published figures."),
    "serve": ("search.cli.serve:serve", "Serve searched answers to any OpenAI client."),
    "bench": ("search.cli.bench:bench", "Measure a part of the framework."),
    "prm": ("search.cli.prm:prm", "Process reward models: train one from any base, measure one."),
    "probe": ("search.cli.probe:probe", "Probes on the policy's own hidden states: collect, train, measure."),
    "router": ("search.cli.router:router", "Arbitrage's learned router: collect steps, train, measure."),
    "doctor": ("search.cli.doctor:doctor", "Say what is installed, what runs, and what is wrong."),
    "mini": ("search.cli.mini:mini", "The mini family: train it, check it, export its problems."),
}


class _LazyGroup(click.Group):
    """A group that imports a subcommand only when it is run, so that --help stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        from search.catalogue import pick

        module, _, attribute = pick("command", cmd_name, _COMMANDS)[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ets-arbitrage", prog_name="ets")
def cli() -> None:
    """Tree search for LLM reasoning that is cheap.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong input, 3 some problems
    failed, 130 interrupted, 143 the same by SIGTERM.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    _show_notes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to fail
    with warnings.catch_warnings(), _interrupted_by_sigterm() as came:
        warnings.showwarning = lambda message, *_, **__: say(str(message))
        _run(args, came)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[list[int]]:
    """Have SIGTERM end what runs as Ctrl-C does; gives the signals that came."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)

    with _blocked_where_ignored():
        before = signal.signal(signal.SIGTERM, end)
        try:
            yield came
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _blocked_where_ignored() -> Iterator[None]:
    """Have SIGINT blocked where it was ignored, as a shell has it for what it runs with &.

    It still does not come, but has a handler: only where it has Python's own does asyncio.run put in its place one
    that cancels the main task. The other one raises in the midst of whatever the loop does just then.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # first: it drops one that waits
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(args: list[str] | None, terminated: Sequence[int]) -> NoReturn:
    try:
        code = cli.main(args, prog_name="ets", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_BAD_INPUT)
    except click.NoSuchOption as error:
        near = get_close_matches(error.option_name, error.possibilities or (), cutoff=0.8)
        say(click.NoSuchOption(error.option_name, possibilities=near).format_message())
        sys.exit(EXIT_BAD_INPUT)
    except (click.ClickException, ConfigError, DataError) as error:
        say(error.format_message() if isinstance(error, click.ClickException) else str(error))
        sys.exit(EXIT_BAD_INPUT)
    except SearchError as error:
        say(str(error))
        sys.exit(EXIT_FAILURE)
    except (KeyboardInterrupt, click.Abort) as error:
        kept = str(error.__cause__ or error)  # as the command says it, if it keeps anything
        say(f"interrupted; {kept}" if kept else "interrupted")
        sys.exit(EXIT_TERMINATED if terminated else EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILURE)
    sys.exit(code if isinstance(code, int) else 0)


class _Notes(logging.Handler):
    """Shows what a search says of itself."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def _show_notes() -> None:
    """Have what a search says of itself come as one line each."""
    log = logging.getLogger("search")
    log.propagate = False
    log.setLevel(logging.INFO)
    log.handlers[:] = [_Notes()]


def say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    click.echo("ets: " + " ".join(message.split()), err=True)
