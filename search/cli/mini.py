"""`ets mini`: the mini family, trained from nothing, checked, and its problems exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.cli.show import print_json, progress

if TYPE_CHECKING:
    from search.mini.fit import TrainEvent
    from search.mini.train import TrainResult

_ROLES = ("target", "draft", "prm", "all")


@click.group()
def mini() -> None:
    """The mini family: small models, trained from nothing on a CPU, that err as real ones do."""


@mini.command()
@click.argument("role", type=click.Choice(_ROLES))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="folder for the checkpoint, or for all three; default: where the shipped files lie",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="seed of everything")
@click.option("--resume", is_flag=True, help="go on from an interrupted training")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    metavar="X",
    help="share of the full length, to try things out",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def train(role: str, out: Path | None, seed: int, resume: bool, scale: float, as_json: bool) -> None:
    """Train ROLE from nothing; `all` makes the shipped files again. The PRM needs target and draft beside it."""
    from search.mini.assets import NAMES, weights_folder
    from search.mini.train import train as train_one

    base = weights_folder() if out is None else out
    folders = {name: base / name for name in NAMES} if role == "all" or out is None else {role: out}
    policies = base if role == "all" or out is None else None
    results: dict[str, TrainResult] = {}
    for name in NAMES if role == "all" else (role,):
        with progress(f"train {name}", 1000) as bar:

            def report(event: TrainEvent) -> None:
                bar.update(round(1000 * event.step / event.num_steps), _note(event))  # noqa: B023

            results[name] = train_one(
                name, folders[name], seed=seed, resume=resume, scale=scale, report=report, policies=policies
            )
    if as_json:
        print_json(
            {
                name: {"folder": str(result.folder), "cpu_seconds": result.cpu_seconds, **result.figures}
                for name, result in results.items()
            }
        )
        return
    for name, result in results.items():
        figures = ", ".join(f"{key} {value:.3f}" for key, value in result.figures.items())
        sys.stdout.write(f"{name}: {result.folder}, {result.cpu_seconds:.0f} CPU seconds, {figures}\n")


def _note(event: TrainEvent) -> str:
    figures = "".join(f", {key} {value:.3f}" for key, value in event.figures.items())
    return f"loss {event.loss:.4f}{figures}"


@mini.command()
@click.argument("split")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="problems; default: as for ets eval")
def export(split: str, file: Path, limit: int | None) -> None:
    """Write the problems of SPLIT (such as test or dev-hard) to FILE, a line of JSON each."""
    from search.data import load_problems
    from search.record import write_atomic

    problems = load_problems(f"mini:{split}", limit)
    lines = [json.dumps({"id": one.id, "problem": one.text, "answer": one.answer}) for one in problems]
    write_atomic(file, "\n".join(lines) + "\n")
    sys.stderr.write(f"{len(problems)} problems in {file}\n")
