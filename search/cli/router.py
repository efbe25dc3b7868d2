"""`ets router`: the learned router of Arbitrage, from collected steps to its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from arbitrage.training import RouterTraining, TrainPoint
from arbitrage.walks import Walk
from search.cli.kinds import COUNT, FILE, PRECISION, SEED, Number
from search.cli.main import say
from search.cli.show import progress, share_progress, tell
from search.cli.training import (
    Flags,
    field_options,
    probe_progress,
    read_layers,
    take_settings,
    training_options,
)
from search.errors import ConfigError

Pairs = Sequence[Walk]
_TRAINING: Flags = {
    "classes": ("--classes", click.Choice(("2", "4", "4-ordinal")), "", "what the head tells apart"),
    "label": (
        "--label",
        click.Choice(("reward", "checker")),
        "",
        "who says that escalation helps: the rewards, or the data's exact checker",
    ),
    "margin": ("--margin", Number(0, 1), "X", "a gain is above it"),
    "balance": ("--balance/--no-balance", None, "", "downsample the larger class"),
    "batch_size": ("--batch-size", COUNT, "N", "steps in one update"),
    "rows": ("--rows", COUNT, "N", "texts in one forward"),
    "evals_per_epoch": ("--evals", COUNT, "N", "dev points in an epoch"),
    "patience": ("--patience", COUNT, "N", "dev points without a gain"),
}


@click.group("router")
def router() -> None:
    """Arbitrage's learned router: collect steps of draft and target, train on them, measure."""


@router.command()
@click.option("--out", required=True, type=FILE, metavar="DIR", help="folder of the shards; finished ones are kept")
@click.option("--data", default="mini:train", metavar="NAME", help="as for ets eval")
@click.option("--field", metavar="NAME", help="which columns are what, as for ets eval")
@click.option("--reference/--no-reference", default=True, help="read reference answers")
@click.option("--limit", type=COUNT, metavar="N", help="problems to take; default: all")
@click.option("--skip", type=SEED, default=0, metavar="N", help="problems to leave out before them")
@click.option("--draft", default="mini:draft", metavar="NAME", help="the draft model")
@click.option("--target", default="mini:target", metavar="NAME", help="the target model")
@click.option("--prm", default="mini:prm", metavar="NAME", help="the reward model that scores both")
@click.option("--draft-engine", default="local", metavar="NAME", help="where the draft runs")
@click.option("--engine", default="local", metavar="NAME", help="where the target runs")
@click.option("--prm-engine", default="local", metavar="NAME", help="where the reward model runs")
@click.option("--temperature", type=Number(0, 100), default=0.0, metavar="X")
@click.option("--samples", type=COUNT, default=1, metavar="K", help="target steps whose rewards are averaged")
@click.option("--max-step-tokens", type=COUNT, default=256, metavar="N", help="tokens of one step")
@click.option("--max-tokens", type=COUNT, default=1024, metavar="N", help="tokens of one path")
@click.option("--max-depth", type=COUNT, default=25, metavar="N", help="steps of one path")
@click.option("--seed", type=SEED, default=0, metavar="N", help="seed of everything")
@click.option("--shard-size", type=COUNT, default=100, metavar="N", help="problems in one file")
@click.option("--concurrency", type=COUNT, default=64, metavar="C", help="problems side by side")
@click.option(
    "--layers",
    callback=read_layers,
    metavar="N,N",
    help="whose hidden states of the draft are kept, for --probe; default: five from the middle on",
)
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N")
@click.option("--dtype", type=PRECISION, default="float32")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with a checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def collect(out: Path, as_json: bool, **options: Any) -> None:
    """Write both models' steps and their rewards to shards. Run again, it goes on where it stopped.

    A path goes on with the better-scored step. A run under another seed or temperature takes a folder of its own.
    """
    from search.learning.collection import Collection, collect_walks

    _complete(options)
    engines = (options.pop("draft_engine"), options.pop("engine"), options.pop("prm_engine"))
    wanted = Collection(engines=engines, num_samples=options.pop("samples"), **options)
    total = wanted.limit or 0
    with progress("collect", total) as bar:
        walks = collect_walks(wanted, out, bar, lambda line: click.echo(line, err=True))
    pairs = [pair for walk in walks for pair in walk.pairs]
    graded = [walk.correct for walk in walks if walk.correct is not None]
    summary = {
        "folder": str(out),
        "num_problems": len(walks),
        "num_pairs": len(pairs),
        "share_target_better": sum(pair.advantage > 0 for pair in pairs) / max(1, len(pairs)),
        "mean_advantage": sum(pair.advantage for pair in pairs) / max(1, len(pairs)),
        "accuracy": sum(graded) / len(graded) if graded else None,
    }
    better = f"the target's scored better in {summary['share_target_better']:.1%}"
    tell(as_json, summary, f"{out}: {len(pairs)} pairs of steps from {len(walks)} problems, {better}")


def _complete(options: Mapping[str, Any]) -> None:
    """The mini family's models and problems stand for each other only: beside another model, all are to be named."""
    own = [role for role in ("draft", "target", "prm") if not options[role].startswith("mini:")]
    context = click.get_current_context()
    missing = [
        f"--{name}"
        for name in ("draft", "target", "prm", "data")
        if context.get_parameter_source(name) is ParameterSource.DEFAULT
    ]
    if own and missing:
        raise ConfigError(
            f"{', '.join(missing)} not given: beside --{own[0]} {options[own[0]]} the mini family's would be used; "
            "name --draft, --target, --prm and --data (mini:... where the mini family is meant)"
        )


@router.command()
@click.argument("data", nargs=-1, required=True, type=FILE)
@click.option("--dev", required=True, type=FILE, metavar="DIR", help="held-out shards, for the early stop")
@click.option("--out", required=True, type=FILE, metavar="DIR", help="folder for the router")
@click.option("--base", metavar="NAME", help="reward model to start from; default: the one that scored the data")
@field_options(RouterTraining(), _TRAINING)
@click.option("--annotate/--no-annotate", default=True, help="mark each step by its writer")
@click.option("--draft-tag", default="Model 0: ", metavar="TEXT", help="mark of a draft's step")
@click.option("--target-tag", default="Model 1: ", metavar="TEXT", help="mark of a target's step")
@click.option("--lora", type=COUNT, metavar="RANK", help="train low-rank additions alone; needs peft")
@click.option("--probe", is_flag=True, help="train a probe on what the draft itself computes instead: no model to ask")
@click.option(
    "--layers", callback=read_layers, metavar="N,N", help="--probe: layers to try; default: all that were kept"
)
@training_options(RouterTraining())
def train(data: tuple[Path, ...], dev: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train a router on the shards in DATA, starting from the reward model's weights, or with --probe a probe."""
    from arbitrage.reading import CONFIG_FILE, as_classes
    from arbitrage.walks import read_walks
    from prm.probe import CONFIG_FILE as PROBE_FILE
    from search.learning.router import add_lora, new_router, save_router, train_router

    _check_kind(is_probe=options["probe"])
    if any((out / name).exists() for name in (CONFIG_FILE, PROBE_FILE)):
        raise ConfigError(f"{out} holds a router already; give another folder")
    origin, walks = read_walks(data)
    dev_origin, held_out = read_walks([dev])
    if any(origin[name] != dev_origin[name] for name in ("draft", "target", "prm")):
        raise ConfigError(f"{dev} is of another pair or reward model than {data[0]}")
    if options["probe"]:
        _train_probe(walks, held_out, origin, out, as_json, **options)
        return
    classes = as_classes(options["classes"])
    config = {
        **{name: origin[name] for name in ("draft", "target", "prm")},
        **{name: options[name] for name in ("annotate", "draft_tag", "target_tag", "margin", "label")},
        "classes": classes,
    }
    parts = new_router(
        options["base"] or origin["prm"],
        config,
        device=options["device"],
        tree_model=origin["target"],
        trust=options["trust_remote_code"],
    )
    if options["lora"] is not None:
        add_lora(parts, options["lora"])
    settings = take_settings(RouterTraining, {**options, "classes": classes})
    with share_progress("train router") as bar:

        def report(point: TrainPoint) -> None:
            measured = "" if point.dev_auc is None else f", dev AUC {point.dev_auc:.4f}"
            note = f"step {point.step}/{point.num_steps}, loss {point.loss:.4f}{measured}"
            bar(point.step, point.num_steps, note)

        outcome, record = train_router(parts, walks, held_out, settings, report)
    save_router(parts, out, record, bfloat16=options["dtype"] == "bfloat16")
    best = next(point.dev_auc for point in outcome.curve if point.step == outcome.best_step)
    used = f"{out}: {outcome.num_used} of {outcome.num_pairs} pairs, best at step {outcome.best_step}"
    auc = f"dev AUC {outcome.curve[0].dev_auc or 0:.4f} at first, {best or 0:.4f} at best"
    tell(as_json, {"folder": str(out), **record}, f"{used}, {auc}")


_PROBE_TAKES = frozenset({"probe", "layers", "data", "dev", "out", "label", "margin", "seed", "as_json"})


def _check_kind(*, is_probe: bool) -> None:
    """Refuse what is given and the kind of router that is trained does not read."""
    context = click.get_current_context()
    read_by_kind = _PROBE_TAKES if is_probe else context.params.keys() - {"layers"}
    unread = [
        option.opts[0]
        for option in context.command.params
        if option.name not in read_by_kind
        and context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT
    ]
    if unread:
        raise ConfigError(
            f"{', '.join(unread)}: {'not for a router that is a probe' if is_probe else 'only with --probe'}"
        )


def _train_probe(walks: Pairs, dev: Pairs, origin: Mapping[str, Any], out: Path, as_json: bool, **options: Any) -> None:
    from prm.probe_training import ProbeTraining
    from search.learning.router_probe import train_router_probe

    label = RouterTraining(label=options["label"], margin=options["margin"])
    with probe_progress() as report:
        settings = ProbeTraining(seed=options["seed"])
        probe, measured = train_router_probe(walks, dev, origin, label, settings, options["layers"], report)
    probe.save(out)
    config = probe.config
    lines = [
        f"{out}: layer {config.layer} of {config.num_layers}; on {measured['num_pairs']} held-out pairs AUC "
        f"{measured['auc'] or 0:.4f} (1 - s_d: {measured['auc_prm'] or 0:.4f})"
    ]
    for share, threshold in config.record["thresholds"].items():
        rsd = config.record["rsd_thresholds"][share]
        escalates = f"escalates {float(share):.0%} of the drafted steps, rsd:{rsd:g} as many"
        lines.append(f"--router probe:{out}:{threshold:<8g} {escalates}")
    values = {"folder": str(out), "layer": config.layer, "figures": measured, "record": config.record}
    tell(as_json, values, "\n".join(lines))


@router.command()
@click.argument("model")
@click.option("--out", required=True, type=FILE, metavar="DIR", help="folder for the copy")
@click.option("--bits", type=click.IntRange(1, 8), default=4, metavar="B", help="of a weight")
@click.option("--group", type=COUNT, default=64, metavar="N", help="weights that share their steps")
@click.option("--dtype", type=PRECISION, default="bfloat16")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with the checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def draft(model: str, out: Path, as_json: bool, **options: Any) -> None:
    """Make a draft of MODEL: a copy whose linear weights are rounded to few bits, to be routed to MODEL itself."""
    from search.learning.low_bit import LowBit, make_draft

    record = make_draft(model, out, LowBit(**options))
    told = (
        f"{out}: {record['num_rounded']:,} of {record['num_parameters']:,} weights rounded to {record['bits']} bits, "
        f"relative error {record['relative_error']:.3f}; packed they would take {record['bytes_per_parameter']:.3f} "
        "bytes a parameter"
    )
    tell(as_json, {"folder": str(out), **record}, told)


@router.command("eval")
@click.argument("model")
@click.argument("data", nargs=-1, required=True, type=FILE)
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:N")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with the checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def evaluate(model: str, data: tuple[Path, ...], device: str, trust_remote_code: bool, as_json: bool) -> None:
    """Measure MODEL (a folder, mini:router or mini:probe) on the held-out shards in DATA."""
    from arbitrage.walks import read_walks
    from prm.probe import CONFIG_FILE as PROBE_FILE
    from search.setup.registry import model_path

    origin, walks = read_walks(data)
    folder = Path(model_path(model)).expanduser()
    if (folder / PROBE_FILE).is_file():
        from search.learning.router_probe import evaluate_router_probe

        measured = evaluate_router_probe(folder, walks, origin)
    else:
        measured = _evaluate_model(model, walks, origin, device, trust_remote_code)
    values = {"model": model, "data": [str(folder) for folder in data], "origin": origin, "figures": measured}
    tell(as_json, values, _figures_text(measured))


def _evaluate_model(
    model: str, walks: Pairs, origin: Mapping[str, Any], device: str, trust: bool
) -> dict[str, float | int | None]:
    from arbitrage.evaluation import figures
    from arbitrage.training import texts_of
    from search.learning.router import load_router

    parts = load_router(model, device=device, tree_model=origin["target"], trust=trust)
    for role in ("draft", "target", "prm"):
        if getattr(parts.config, role) != origin[role]:
            trained = getattr(parts.config, role)
            say(f"warning: {model} was trained for {role} {trained!r}, the data is of {origin[role]!r}")
    num_pairs = sum(len(walk.pairs) for walk in walks)
    limit = int(parts.network.config.max_position_embeddings)
    estimates = parts.model.estimates(texts_of(walks, parts.reader, limit), num_pairs)
    return figures(walks, estimates, parts.config.margin)


_RANKINGS = {
    "rank correlation with the advantage, -1 to 1": "spearman",
    "AUC for: the target's step is better": "auc",
    "AUC for: its advantage is above the margin": "auc_advantage",
    "AUC for: it has any advantage": "auc_any_advantage",
}
_DECISIONS = {
    "share decided right where the target does not help": "accuracy_0",
    "share decided right where it helps": "accuracy_1",
    "calibration error of the estimate": "calibration_error",
}


def _figures_text(figures: Mapping[str, float | int | None]) -> str:
    """The figures of `arbitrage.evaluation.figures` with what they mean, beside the reward model's own verdict."""

    def shown(name: str) -> str:
        value = figures[name]
        return "unknown" if value is None else f"{value:.4f}"

    shares = sorted(name.removeprefix("gain_oracle_") for name in figures if name.startswith("gain_oracle_"))
    better = figures["share_better"] or 0.0
    lines = [
        f"{figures['num_pairs']} pairs of steps from {figures['num_problems']} problems, {figures['num_left_out']} "
        f"left out as too long; the target's step is better in {better:.1%}",
        "",
        f"{'ranking (an AUC of 0.5 is chance)':52} {'router':>8} {'1 - s_d':>8}",
        *(f"{label:52} {shown(name):>8} {shown(f'{name}_prm'):>8}" for label, name in _RANKINGS.items()),
        "",
        f"{'deciding at 0.5':52} {'router':>8}",
        *(f"{label:52} {shown(name):>8}" for label, name in _DECISIONS.items()),
        "",
        f"{'share of all steps righted by escalating the first':52} {'router':>8} {'1 - s_d':>8} {'oracle':>8}  "
        "router less 1 - s_d, 95% interval",
    ]
    for share in shares:
        gained = [shown(f"gain{kind}_{share}") for kind in ("", "_prm", "_oracle")]
        less, low, high = (shown(f"gain_vs_prm_{share}{end}") for end in ("", "_lo", "_hi"))
        cells = " ".join(f"{cell:>8}" for cell in gained)
        lines.append(f"{f'{int(share)}% of the pairs':52} {cells}  {less} ({low} to {high})")
    lines += ["", "1 - s_d: the reward model's own verdict on the draft's step"]
    return "\n".join(lines)
