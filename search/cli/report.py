"""`ets report RUN...`: what kept runs say, voted again under other rules, and their plots; no model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from search.catalogue import GRADERS
from search.cli.kinds import FILE
from search.cli.show import print_json
from search.support.plots import check_plots
from search.types import Reduce, VoteRule


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=FILE)
@click.option("--vote", "rule", type=click.Choice(get_args(VoteRule)), help="how trajectories become an answer")
@click.option("--reduce", type=click.Choice(get_args(Reduce)), help="how step rewards become a trajectory's weight")
@click.option("--grader", type=click.Choice(list(GRADERS)), help="how answers are compared")
@click.option("--plot", type=FILE, metavar="DIR", help="draw accuracy against cost, KV over depth")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object a run")
def report(
    runs: tuple[Path, ...], rule: str | None, reduce: str | None, grader: str | None, plot: Path | None, as_json: bool
) -> int:
    """Sum up runs that ets eval --out kept; an option that is not given stays as it ran."""
    from search.runs.report import plot_runs, read_run, report_dict, revote

    if plot is not None:
        check_plots()
    ran = [read_run(folder) for folder in runs]
    voted = [revote(run, rule, reduce, grader) for run in ran]
    for before, after in zip(ran, voted, strict=True):
        votes = [(run.settings.vote, run.settings.reduce, run.settings.grader) for run in (before, after)]
        if votes[0] != votes[1] and before.settings.until == "decided":
            sys.stderr.write(
                f"{before.folder}: its searches stopped when their own vote was decided, so this one is over fewer "
                "trajectories; run with --until spent to vote over all\n"
            )
    for run in voted:
        if as_json:
            print_json(report_dict(run))
            continue
        settings, summary = run.settings, run.summary
        sys.stdout.write(
            f"{run.folder}\n{summary.to_text()}\n"
            f"vote              {settings.vote}, rewards by {settings.reduce}, grader {settings.grader}\n\n"
        )
    if plot is not None:
        for file in plot_runs(voted, plot):
            sys.stderr.write(f"wrote {file}\n")
    return 3 if any(run.summary.num_failed for run in voted) else 0
