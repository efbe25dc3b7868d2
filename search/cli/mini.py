"""`ets mini`: the mini family, trained from nothing, checked, and its problems exported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from search.cli.kinds import COUNT, FILE, SEED, Number
from search.cli.show import progress, tell

if TYPE_CHECKING:
    from search.mini.fit import TrainEvent

_ROLES = ("target", "draft", "prm", "router", "probe")


@click.group()
def mini() -> None:
    """The mini family: small models, trained from nothing on a CPU, that err as real ones do."""


@mini.command()
@click.argument("role", type=click.Choice([*_ROLES, "all"]))
@click.option(
    "--out",
    type=FILE,
    metavar="DIR",
    help="folder that holds, or will hold, target, draft, prm, router and probe; default: where the shipped files lie",
)
@click.option("--seed", type=SEED, default=0, metavar="N", help="seed of everything")
@click.option("--resume", is_flag=True, help="go on from an interrupted training")
@click.option(
    "--scale",
    type=Number(min=0, max=1, min_open=True),
    default=1.0,
    metavar="X",
    help="share of the full length, to try things out",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def train(role: str, out: Path | None, seed: int, resume: bool, scale: float, as_json: bool) -> None:
    """Train ROLE from nothing; `all` makes the shipped files again.

    The prm needs target and draft beside it, and router and probe, which routes by the draft's own states, all three.
    """
    from search.mini.assets import weights_folder
    from search.mini.recipes import recipe_for
    from search.mini.train import train as train_one

    base = out or weights_folder()
    results: dict[str, dict[str, Any]] = {}
    names = _ROLES if role == "all" else (role,)
    for name in names:
        if name in ("router", "probe"):
            continue
        with progress(name, recipe_for(name, scale).num_steps) as bar:
            report, folder = _to_bar(bar), base / name
            done = train_one(name, folder, seed=seed, resume=resume, scale=scale, report=report, policies=base)
        results[name] = {"folder": str(done.folder), "cpu_seconds": done.cpu_seconds, **done.figures}
    if "router" in names or "probe" in names:
        from search.learning.mini_router import train_mini_probe, train_mini_router

        # Both learn from the same steps.
        with nullcontext(base / "router-data") if out is not None else TemporaryDirectory() as data:
            for name, train_router in (("router", train_mini_router), ("probe", train_mini_probe)):
                if name in names:
                    results[name] = train_router(base, Path(data), seed=seed, scale=scale, say=_say)
    lines = []
    for name, result in results.items():
        figures = "".join(f", {key} {value:.3f}" for key, value in list(result.items())[2:])
        lines.append(f"{name}: {result['folder']}, {result['cpu_seconds']:.0f} CPU seconds{figures}")
    tell(as_json, results, "\n".join(lines))


def _to_bar(bar: Callable[[int, str], None]) -> Callable[[TrainEvent], None]:
    """Has a training tell its steps, its loss and its newest dev figures."""
    newest: dict[str, float] = {}

    def report(event: TrainEvent) -> None:
        newest.update(event.figures)
        figures = (f", {name} {value:.3f}" for name, value in newest.items())
        bar(event.step, f"loss {event.loss:.4f}{''.join(figures)}")

    return report


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


@mini.command()
@click.option("--weights", type=FILE, metavar="DIR", help="folder of the family; default: shipped")
@click.option("--split", default="test", metavar="NAME", help="problems to measure on")
@click.option("--limit", type=COUNT, default=300, metavar="N", help="problems")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1), metavar="N", help="may be repeated")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def check(weights: Path | None, split: str, limit: int, seeds: tuple[int, ...], as_json: bool) -> int:
    """Measure the family against its gate; exit 1 if a line is missed."""
    from search.studies import mini_check

    report = mini_check.check(weights=weights, split=split, num_problems=limit, seeds=seeds, say=_say)
    lines = []
    for line in report.gate:
        bounds = " to ".join("" if bound is None else str(bound) for bound in (line.low, line.high))
        lines.append(f"{'ok ' if line.passed else 'MISS'} {line.figure:32} {line.value:8.3f}   {bounds}")
    tell(as_json, report.to_dict(), "\n".join(lines))
    return 0 if report.passed else 1


@mini.command()
@click.argument("split")
@click.argument("file", type=FILE)
@click.option("--limit", type=COUNT, default=500, metavar="N", help="problems")
def export(split: str, file: Path, limit: int) -> None:
    """Write the problems of SPLIT (such as test or dev-hard) to FILE, a line of JSON each."""
    from search.mini.export import export_jsonl

    count = export_jsonl(split, limit, file)
    sys.stderr.write(f"{count} problems in {file}\n")
