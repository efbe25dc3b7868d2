"""`ets compare RUN RUN ...`: kept runs side by side on the problems they share; no model is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.kinds import FILE
from search.cli.show import print_json
from search.support.plots import check_plots

if TYPE_CHECKING:
    from search.runs.compare import Comparison
    from search.runs.report import Run

FORMATS = ("text", "md", "csv", "json")


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how a comparison is shown."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="print one JSON object, as --format json"),
        click.option("--plot", type=FILE, metavar="FILE", help="draw accuracy against the KV cache kept"),
        click.option("--format", "layout", type=click.Choice(FORMATS), default="text", help="of the table"),
    ):
        command = option(command)
    return command


def show(comparison: Comparison, layout: str, plot: Path | None) -> None:
    """Print a comparison in one of `FORMATS`, and draw it where that is asked for."""
    from search.runs.compare import plot as draw

    table = comparison.table()
    if layout == "json":
        print_json(comparison.to_dict())
    elif layout == "csv":
        sys.stdout.write(table.csv())
        sys.stderr.writelines(f"{note}\n" for note in table.notes)
    else:
        sys.stdout.write((table.markdown() if layout == "md" else table.text()) + "\n")
    if plot is not None:
        draw(comparison, plot)
        sys.stderr.write(f"wrote {plot}\n")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=FILE)
@table_options
@click.option(
    "--html", "page", type=FILE, metavar="FOLDER", help="write a page: table, plot, who solved what, with the trees"
)
def compare(runs: tuple[Path, ...], layout: str, plot: Path | None, as_json: bool, page: Path | None) -> None:
    """Compare runs that ets eval --out kept with the first of them, on the problems that all have.

    Accuracy with Wilson's interval; the paired difference to the first with its bootstrap interval; KV tokens kept,
    tokens written and those of them by the target, each a problem; wall seconds of solving, and problems an hour.
    """
    if plot is not None:
        check_plots()

    from search.runs.compare import compare as compared
    from search.runs.report import read_run

    read = [read_run(folder) for folder in runs]
    comparison = compared(read)
    if page is not None:
        _write_page(comparison, read, page)
    show(comparison, "json" if as_json else layout, plot)


def _write_page(comparison: Comparison, runs: Sequence[Run], folder: Path) -> None:
    """The comparison's page, and one of trees for each run beside it."""
    from search.runs.compare_page import compare_page
    from search.support.files import write_atomic
    from search.view import page
    from search.view.kept import read_kept

    trees = []
    for place, run in enumerate(runs, 1):
        kept = read_kept(run.folder)
        trees.append(f"trees-{place}.html")
        write_atomic(folder / trees[-1], page(kept.title, kept.views))
    write_atomic(folder / "index.html", compare_page(comparison, runs, trees))
    sys.stderr.write(f"wrote {folder / 'index.html'}\n")
