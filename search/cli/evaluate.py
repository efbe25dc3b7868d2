"""`ets eval`: a search over a data set, one record per problem, resumable."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from search.cli.kinds import COUNT, FILE
from search.cli.main import say
from search.cli.options import read_settings, settings_options
from search.cli.show import GOES_ON, progress, tell
from search.config import EvalSettings
from search.errors import ConfigError, EngineError, SearchError


@click.command("eval")
@settings_options(EvalSettings)
@click.option("--out", type=FILE, metavar="DIR", help="keep the run here; resumes it if it is there")
@click.option("--concurrency", type=COUNT, default=8, metavar="C", help="problems side by side")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.pass_context
def evaluate(
    ctx: click.Context, /, config: Path | None, out: Path | None, concurrency: int, as_json: bool, **_: object
) -> int:
    """Search every problem of a data set and print the accuracy with its cost."""
    settings = read_settings(EvalSettings, ctx, config)

    from search.runs.evaluation import Evaluation

    evaluation = Evaluation(settings, out)
    if line := evaluation.data.described(settings.data):
        sys.stderr.write(f"{line}\n")
    try:
        evaluation.load()
        with progress("eval", len(evaluation.problems), evaluation.num_done, concurrency) as bar:
            summary = asyncio.run(evaluation.run(concurrency, bar))
    except SearchError as error:
        if out is None or not (isinstance(error, EngineError) or isinstance(error.__cause__, EngineError)):
            raise
        raise ConfigError(f"{error}; once it is there, {GOES_ON} with {out}") from error
    except KeyboardInterrupt:
        kept = f"{evaluation.num_kept} of {len(evaluation.problems)} problems are kept in {out}: {GOES_ON}"
        raise KeyboardInterrupt("nothing is kept: --out DIR keeps a run" if out is None else kept) from None
    tell(as_json, summary.to_dict(), summary.to_text())
    for line in summary.failures[:10]:
        sys.stderr.write(line + "\n")
    if summary.num_failed:
        again = "the same command tries them again" if out is not None else "with --out DIR they could be tried again"
        say(f"{summary.num_failed} of {summary.num_problems} problems failed; {again}")
        return 3
    return 0
