"""`ets sweep FILE.yaml`: a grid of settings over one data set, run in one process and compared at its end."""

from __future__ import annotations

from pathlib import Path

import click

from search.cli.compare import show, table_options
from search.cli.kinds import FILE
from search.cli.main import say
from search.cli.show import GOES_ON, progress
from search.errors import SearchError
from search.support.plots import check_plots


@click.command()
@click.argument("file", type=FILE, metavar="FILE.yaml")
@click.option(
    "--out", type=FILE, metavar="DIR", help="keep the runs here, a folder each, and go on with them; default: runs/FILE"
)
@table_options
def sweep(file: Path, out: Path | None, layout: str, plot: Path | None, as_json: bool) -> int:
    """Run all combinations of the grid in FILE.yaml, and compare them with the first.

    The file has settings (of all runs), grid (settings to lists of values, or a list of such mappings), and
    concurrency. Models are loaded once; a run that fails does not stop the others, and the same command goes on.
    """
    if plot is not None:
        check_plots()

    from search.runs.sweep import read_sweep, run_sweep

    wanted = read_sweep(file)
    for note in wanted.notes:
        say(note)
    folder = out or Path("runs") / file.stem
    try:
        comparison, failures = run_sweep(wanted, folder, progress, say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what is done is kept in {folder}: {GOES_ON}") from None
    if comparison is not None:
        show(comparison, "json" if as_json else layout, plot)
    elif len(failures) == len(wanted.cells):
        raise SearchError(f"every run failed; the first: {failures[0]}")
    if failures:
        say(f"{len(failures)} failures, the first: {failures[0]}; the same command goes on with what is in {folder}")
        return 3
    return 0
