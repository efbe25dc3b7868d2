"""`ets probe`: a small network on the policy's own hidden states as its reward model: collect, train, measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from prm.probe_training import ProbeTraining
from search.cli.kinds import COUNT, FILE, PRECISION, SEED, Number
from search.cli.show import plain_figures, share_progress, tell
from search.cli.training import Flags, field_options, probe_progress, read_layers, take_settings
from search.config import SearchSettings, build
from search.errors import ConfigError

_TRAINING: Flags = {
    "network": ("--network", click.Choice(("linear", "mlp")), "", ""),
    "units": ("--units", COUNT, "N", "of the MLP's hidden layer"),
    "num_folds": ("--folds", click.IntRange(min=3), "N", "of the problems, to cross-fit"),
    "max_epochs": ("--epochs", COUNT, "N", "passes over the data, at most"),
    "patience": ("--patience", COUNT, "N", "epochs without a gain"),
    "batch_problems": ("--batch-problems", COUNT, "N", "problems in one update"),
    "learning_rate": ("--learning-rate", Number(min=0, min_open=True), "X", ""),
    "weight_decay": ("--weight-decay", Number(min=0), "X", ""),
    "pair_weight": ("--pair-weight", Number(min=0), "X", "of the term that compares steps of one problem"),
    "seed": ("--seed", SEED, "N", "seed of everything"),
}


@click.group("probe")
def probe() -> None:
    """Probes: whether a step leads to a right answer, read off the policy's own hidden states."""


@probe.command()
@click.option("--out", required=True, type=FILE, metavar="DIR", help="folder of the shards; finished ones are kept")
@click.option("--policy", default="mini:target", metavar="NAME", help="the policy, as for ets eval")
@click.option("--engine", default="local", metavar="NAME", help="where it runs, as for ets eval")
@click.option(
    "--solutions",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="recorded solutions, rows of problem and text (and answer and correct, without references); may be repeated",
)
@click.option(
    "--run", "runs", type=FILE, multiple=True, metavar="DIR", help="a run that ets eval kept; may be repeated"
)
@click.option("--data", metavar="NAME", help="where the recorded solutions' problems stand, by id, as for ets eval")
@click.option("--layers", callback=read_layers, metavar="N,N", help="layers to read; default: five from the middle on")
@click.option("--limit", type=COUNT, metavar="N", help="problems to take; default: all")
@click.option("--grader", default="auto", metavar="NAME", help="as for ets eval; auto: as a run was graded, else math")
@click.option("--prompt", default="auto", metavar="NAME", help="how recorded problems were asked")
@click.option("--max-step-tokens", type=COUNT, default=256, metavar="N", help="tokens of one step")
@click.option("--shard-size", type=COUNT, default=20, metavar="N", help="problems in one file")
@click.option("--concurrency", type=COUNT, default=2, metavar="C", help="problems side by side")
@click.option("--dtype", type=PRECISION, default="float32")
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with the checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def collect(out: Path, as_json: bool, **options: Any) -> None:
    """Read a policy's hidden states at the ends of the steps of solutions. Run again, it goes on where it stopped.

    Labels are the share of right answers among the solutions that go on from a step.
    """
    from search.learning.probes import Collection, num_steps
    from search.learning.probes import collect as read

    own = {name: options.pop(name) for name in ("solutions", "runs", "data", "layers", "limit", "shard_size")}
    concurrency = options.pop("concurrency")
    wanted = Collection(settings=build(SearchSettings, {**options, "prm": "none"}), **own, concurrency=concurrency)
    with share_progress("collect") as bar:
        sampled = read(wanted, out, lambda done, total: bar(done, total, f"{done}/{total} problems"))
    solutions = [solution for problem in sampled for solution in problem.solutions]
    right = sum(solution.correct for solution in solutions)
    summary = {
        "folder": str(out),
        "figures": {
            "num_problems": len(sampled),
            "num_solutions": len(solutions),
            "num_steps": num_steps(sampled),
            "share_right": right / len(solutions),
            "share_without_answer": sum(solution.answer < 0 for solution in solutions) / len(solutions),
        },
    }
    steps = f"{num_steps(sampled)} steps of {len(solutions)} solutions of {len(sampled)} problems"
    tell(as_json, summary, f"{out}: {steps}, {right / len(solutions):.1%} of them right")


@probe.command()
@click.argument("features", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, type=FILE, metavar="DIR", help="folder for the probe")
@click.option("--layers", callback=read_layers, metavar="N,N", help="layers to try; default: all that were collected")
@field_options(ProbeTraining(), _TRAINING)
@click.option("--curve", is_flag=True, help="train on parts of the problems too, to see what more data would do")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def train(features: tuple[Path, ...], out: Path, layers: tuple[int, ...], as_json: bool, **options: Any) -> None:
    """Train a probe on the features in FEATURES: networks on each layer, by cross-fitting, and the best one's probe."""
    from prm.probe import CONFIG_FILE, save_held_out
    from prm.probe_features import read_features
    from prm.probe_training import train as fit

    if (out / CONFIG_FILE).exists():
        raise ConfigError(f"{out} holds a probe already; give another folder")
    collected = read_features(features)
    settings = take_settings(ProbeTraining, options)
    with probe_progress() as report:
        trained = fit(
            collected, layers or collected.settings["layers"], settings, curve=options["curve"], report=report
        )
    by_problem = {name: trained.log_odds[collected.problems == at] for at, name in enumerate(collected.problem_ids)}
    save_held_out(out, by_problem)
    trained.probe.save(out)
    config = trained.probe.config
    shown = {"layer": config.layer, "reduce": config.reduce, "temperature": config.temperature}
    lines = [f"{out}: layer {config.layer} of {config.num_layers}, {config.network}, reduce {config.reduce}"]
    for layer, value in trained.by_layer.items():
        shown[f"auc_steps_within_layer_{layer}"] = value
        lines.append(f"layer {layer:<4} held-out AUC of steps within problems {value:.4f}")
    shown |= {f"auc_steps_within_data_{share:g}": value for share, value in trained.by_data.items()}
    lines += [f"{share:>5.0%} of the data: {value:.4f}" for share, value in sorted(trained.by_data.items())]
    tell(as_json, {"folder": str(out), "figures": shown, "record": config.record}, "\n".join(lines))


@probe.command("eval")
@click.argument("model", type=FILE)
@click.argument("features", nargs=-1, required=True, type=FILE)
@click.option("--reduce", default=None, metavar="NAME", help="last, min, mean or prod; default: as the probe says")
@click.option("--plot", type=FILE, metavar="DIR", help="draw the curves over layers and data; needs matplotlib")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def evaluate(model: Path, features: tuple[Path, ...], reduce: str | None, plot: Path | None, as_json: bool) -> None:
    """Measure the probe in MODEL on the features in FEATURES: how it ranks, its calibration, and what its votes gain.

    Problems that it was trained on are measured by networks that did not see them.
    """
    from prm.probe_evaluation import evaluate as measure

    report = measure(model, features, reduce)
    if plot is not None:
        _plot(report["record"], plot)
    tell(as_json, report, "\n".join(plain_figures(report["figures"])))


def _plot(record: Mapping[str, Any], folder: Path) -> None:
    """Draw what a probe's training record says of layers, and of less data."""
    from search.support.plots import Point, Series, plot_accuracy

    label = "AUC of steps within problems, held out"
    for name, axis in (("layer", "layer"), ("data", "share of the problems trained on")):
        values = sorted((float(key), float(value)) for key, value in record[f"concordance_by_{name}"].items())
        points = tuple(Point(x, y, y, y) for x, y in values)
        plot_accuracy([Series("probe", points)], axis, folder / f"by-{name}.png", y_label=label)
