"""`ets prm`: a process reward model trained from any base model, and measured on step-labelled data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prm import family
from prm.train import TrainSettings
from search.catalogue import PRM_FAMILIES
from search.cli.kinds import COUNT, FILE, PRECISION, Number
from search.cli.show import plain_figures, progress, share_progress, tell
from search.cli.training import Flags, field_options, take_settings, training_options
from search.config import SearchSettings, build
from search.errors import ConfigError

if TYPE_CHECKING:
    from prm.labels import LabelledSolution
    from search.protocols import Engine, Scorer

_LABEL_CODECS = [name for name in PRM_FAMILIES if not family(name).outputs]
_TRAINING: Flags = {
    "batch_size": ("--batch-size", COUNT, "N", "solutions in one forward"),
    "num_accumulated": ("--accumulate", COUNT, "N", "forwards in one step"),
    "max_steps": ("--max-steps", COUNT, "N", "stop after so many steps of the optimiser"),
    "save_every": ("--save-every", COUNT, "N", "steps between two saves"),
}


@click.group("prm")
def prm() -> None:
    """Process reward models: train one from any base model, and measure one."""


@prm.command()
@click.argument("base")
@click.argument("data", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, type=FILE, metavar="DIR", help="folder for the checkpoint")
@click.option("--dev", type=FILE, metavar="FILE", help="step-labelled data to measure the result on")
@click.option(
    "--codec",
    type=click.Choice(_LABEL_CODECS),
    default="label-tokens",
    help="what the model is to read; label-tokens ends each step with a blank line",
)
@click.option("--good-token", default="+", metavar="TEXT", help="the label of a right step")
@click.option("--bad-token", default="-", metavar="TEXT", help="the label of a wrong step")
@click.option(
    "--reduce",
    type=click.Choice(("last", "min", "mean", "prod")),
    default="min",
    help="how step rewards become a path's in a search: last for labels that judge the whole path",
)
@field_options(TrainSettings(), _TRAINING)
@click.option("--limit", type=COUNT, metavar="N", help="lines to take of each file")
@click.option("--resume", is_flag=True, help="go on from an interrupted training in --out")
@training_options(TrainSettings())
def train(base: str, data: tuple[Path, ...], out: Path, dev: Path | None, as_json: bool, **options: Any) -> None:
    """Train a reward model from BASE (a path, a hub id, or mini:ROLE) on step-labelled .jsonl files.

    DATA may be in the layout of Math-Shepherd, of PRM800K or of ProcessBench.
    """
    from search.learning.prm import PrmTraining, train_prm

    wanted = PrmTraining(base, data, out, dev, take_settings(TrainSettings, options), **options)
    with share_progress("train prm") as bar:
        trained = train_prm(
            wanted, lambda at: bar(at.step, at.num_steps, f"step {at.step}/{at.num_steps}, loss {at.loss:.4f}")
        )
    result = trained.result
    steps = f"{out}: {len(result.losses)} steps on {result.num_solutions} solutions"
    told = f"{steps}, loss {result.losses[0]:.4f} to {result.losses[-1]:.4f}"
    tell(as_json, trained.to_dict(), "\n".join([told, *plain_figures(trained.figures or {})]))


@prm.command("eval")
@click.argument("model")
@click.argument("data", type=FILE)
@click.option("--codec", default="auto", metavar="NAME", help="how the model is read")
@click.option(
    "--threshold", type=Number(0, 1), default=0.5, metavar="X", help="a reward below it says that a step is wrong"
)
@click.option("--limit", type=COUNT, metavar="N", help="lines to take of the file")
@click.option("--concurrency", type=COUNT, default=8, metavar="C", help="solutions side by side")
@click.option("--dtype", type=PRECISION, default="float32", help="precision of the model")
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N")
@click.option("--rewards", type=FILE, metavar="FILE", help="also write each solution's rewards, a line of JSON each")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with the checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def evaluate(model: str, data: Path, rewards: Path | None, as_json: bool, **options: Any) -> None:
    """Measure MODEL (a path, a hub id, or mini:ROLE) on a step-labelled .jsonl file.

    Step AUC, calibration, and the first-error F1 as ProcessBench defines it.
    """
    from prm.labels import load_labelled
    from prm.metrics import figures
    from search.setup.registry import make_engine, make_scorer, prm_config
    from search.support.files import write_atomic

    solutions = load_labelled(data, options["limit"])
    settings = build(
        SearchSettings,
        {"prm": model, "prm_codec": options["codec"], "dtype": options["dtype"], "device": options["device"],
         "trust_remote_code": options["trust_remote_code"]},
    )  # fmt: skip
    config = prm_config(model, options["codec"])
    engine = make_engine("local", model, settings, None)
    scorer = make_scorer(settings, engine, engine.tokenizer)
    with progress("eval prm", len(solutions)) as bar:
        given = asyncio.run(_score(engine, scorer, solutions, options["concurrency"], lambda done: bar(done, "")))
    kept = [(solution, scores) for solution, scores in zip(solutions, given, strict=True) if scores is not None]
    if not kept:
        raise ConfigError(f"every solution of {data} is longer than the model's {engine.info.context_tokens} tokens")
    measured = figures([solution for solution, _ in kept], [scores for _, scores in kept], options["threshold"])
    measured["num_left_out"] = len(solutions) - len(kept)
    if rewards is not None:
        lines = (json.dumps({"labels": solution.labels, "rewards": scores}) for solution, scores in kept)
        write_atomic(rewards, "\n".join(lines) + "\n")
    told = {"model": model, "data": str(data), "codec": config.codec, "reason": config.reason, "figures": measured}
    tell(as_json, told, "\n".join([f"{model}: {config.codec}, since {config.reason}", *plain_figures(measured)]))


async def _score(
    engine: Engine, scorer: Scorer, solutions: list[LabelledSolution], concurrency: int, report: Any
) -> list[tuple[float, ...] | None]:
    from prm.evaluate import score_solutions
    from search.prompt.prompts import PromptRenderer
    from search.setting_groups import PromptSettings

    tokenizer = engine.tokenizer
    prompts = PromptRenderer(PromptSettings(), tokenizer)
    try:
        return await score_solutions(
            scorer, tokenizer, solutions, prompts.render, concurrency=concurrency, report=report
        )
    finally:
        await engine.aclose()
