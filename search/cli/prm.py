"""`ets prm`: a process reward model trained from any base model, and measured on step-labelled data."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prm import codec_of, family
from search.catalogue import PRM_FAMILIES
from search.cli.show import print_json, progress
from search.config import SearchSettings, build
from search.errors import ConfigError

if TYPE_CHECKING:
    from prm.checkpoint import PrmConfig
    from prm.labels import LabelledSolution
    from prm.train import TrainEvent, TrainSettings
    from search.protocols import Engine, Scorer

_LABEL_CODECS = [name for name in PRM_FAMILIES if not family(name).outputs]
_DTYPES = click.Choice(("float32", "bfloat16"))
_FILE = click.Path(path_type=Path)
_SMALL_PARAMETERS = 20_000_000
"""Below this one thread is faster than several, as in the local engine."""
_COUNT = click.IntRange(min=1)


@click.group("prm")
def prm() -> None:
    """Process reward models: train one from any base model, and measure one."""


@prm.command()
@click.argument("base")
@click.argument("data", nargs=-1, required=True, type=_FILE)
@click.option("--out", required=True, type=_FILE, metavar="DIR", help="folder for the checkpoint")
@click.option("--dev", type=_FILE, metavar="FILE", help="step-labelled data to measure the result on")
@click.option(
    "--codec",
    type=click.Choice(_LABEL_CODECS),
    default="label-tokens",
    show_default=True,
    help="what the model is to read; label-tokens ends each step with a blank line",
)
@click.option("--good-token", default="+", show_default=True, metavar="TEXT", help="the label of a right step")
@click.option("--bad-token", default="-", show_default=True, metavar="TEXT", help="the label of a wrong step")
@click.option(
    "--reduce",
    type=click.Choice(("last", "min", "mean", "prod")),
    default="min",
    show_default=True,
    help="how step rewards become a path's in a search: last for labels that judge the whole path",
)
@click.option("--epochs", type=_COUNT, default=1, show_default=True, metavar="N", help="passes over the data")
@click.option("--batch-size", type=_COUNT, default=8, show_default=True, metavar="N", help="solutions in one forward")
@click.option("--accumulate", type=_COUNT, default=1, show_default=True, metavar="N", help="forwards in one step")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-5,
    show_default=True,
    metavar="X",
    help="peak of AdamW's rate",
)
@click.option(
    "--warmup", type=click.FloatRange(0, 1), default=0.05, show_default=True, metavar="X", help="share of warm-up"
)
@click.option("--weight-decay", type=click.FloatRange(min=0), default=0.0, show_default=True, metavar="X")
@click.option("--max-tokens", type=_COUNT, metavar="N", help="longest solution; default: 2048 or the model's context")
@click.option("--max-steps", type=_COUNT, metavar="N", help="stop after so many steps of the optimiser")
@click.option("--limit", type=_COUNT, metavar="N", help="lines to take of each file")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="seed of everything"
)
@click.option("--dtype", type=_DTYPES, default="float32", show_default=True, help="precision of the computation")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda, cuda:N")
@click.option("--save-every", type=_COUNT, default=200, show_default=True, metavar="N", help="steps between two saves")
@click.option("--resume", is_flag=True, help="go on from an interrupted training in --out")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with the base checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def train(base: str, data: tuple[Path, ...], out: Path, dev: Path | None, as_json: bool, **options: Any) -> None:
    """Train a reward model from BASE (a path, a hub id, or mini:ROLE) on step-labelled .jsonl files.

    DATA may be in the layout of Math-Shepherd, of PRM800K or of ProcessBench.
    """
    from prm.checkpoint import CONFIG_FILE
    from prm.export import save_prm
    from prm.labels import load_labelled
    from prm.train import STATE_FILE
    from prm.train import train as fit

    if (out / CONFIG_FILE).exists() or (not options["resume"] and (out / STATE_FILE).exists()):
        raise ConfigError(f"{out} holds a training already; give another folder, or --resume for an interrupted one")
    solutions = [one for file in data for one in load_labelled(file, options["limit"])]
    held_out = load_labelled(dev, options["limit"]) if dev is not None else []
    parts = _Base(base, options)
    config, codec = parts.config, parts.codec
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}") from None
    contents = hashlib.sha256(b"".join(file.read_bytes() for file in data)).hexdigest()[:16]
    key = f"{base} {contents} {config.good_token!r} {config.bad_token!r}"
    with progress("train prm", 1000) as bar:

        def report(event: TrainEvent) -> None:
            done = round(1000 * event.step / event.num_steps)
            bar.update(done, f"step {event.step}/{event.num_steps}, loss {event.loss:.4f}")

        result = fit(
            parts.network, codec, solutions, parts.settings, out, key=key, resume=options["resume"], report=report
        )
    figures = _held_out_figures(parts, held_out) if held_out else None
    names = tuple(str(file) for file in data)
    save_prm(
        parts.network,
        parts.raw_tokenizer,
        out,
        config,
        base=base,
        data=names,
        settings=parts.settings,
        result=result,
        figures=figures,
    )
    (out / STATE_FILE).unlink(missing_ok=True)
    summary = {"folder": str(out), "codec": config.codec, "num_solutions": result.num_solutions,
               "num_left_out": result.num_left_out, "num_steps": len(result.losses), "loss_first": result.losses[0],
               "loss_last": result.losses[-1], "figures": figures}  # fmt: skip
    if as_json:
        print_json(summary)
        return
    sys.stdout.write(f"{out}: {len(result.losses)} steps on {result.num_solutions} solutions, ")
    sys.stdout.write(f"loss {result.losses[0]:.4f} to {result.losses[-1]:.4f}\n")
    if figures is not None:
        _show(figures)


class _Base:
    """A base model with all that its training needs."""

    config: PrmConfig
    settings: TrainSettings

    def __init__(self, base: str, options: dict[str, Any]) -> None:
        from prm.checkpoint import PrmConfig
        from prm.train import TrainSettings
        from search.engines.local import loading
        from search.engines.local.stops import TokenBytes
        from search.engines.local.tokenizer import HFTokenizer
        from search.hub import find_model
        from search.registry import model_path

        torch = loading.import_torch()
        folder = find_model(model_path(base))
        trust = options["trust_remote_code"]
        model_config = loading.read_config(base, folder, trust)
        self.raw_tokenizer = raw = loading.read_tokenizer(base, folder, trust)
        tokenizer = HFTokenizer(raw, TokenBytes(raw, len(raw)), frozenset())
        chat = tokenizer.chat([{"role": "user", "content": "1 + 1"}]) is not None
        plain = raw.encode("1 + 1")
        starts = bool(plain) and plain[0] == raw.bos_token_id and raw.bos_token_id is not None
        labels = options["codec"] == "label-tokens"
        self.config = PrmConfig(
            codec=options["codec"],
            good_token=options["good_token"],
            bad_token=options["bad_token"],
            reduce=options["reduce"],
            shares_ids=False,
            prompt="chat" if labels and chat else "plain",
            step_end="\n\n" if labels else "",
            bos_token=raw.bos_token if starts else "",
        )
        self.codec = codec_of(self.config, tokenizer)
        context = loading.context_tokens(model_config, raw)
        self.settings = TrainSettings(
            num_epochs=options["epochs"],
            batch_size=options["batch_size"],
            num_accumulated=options["accumulate"],
            learning_rate=options["learning_rate"],
            warmup_share=options["warmup"],
            weight_decay=options["weight_decay"],
            max_tokens=min(context, options["max_tokens"] or 2048),
            max_steps=options["max_steps"],
            seed=options["seed"],
            dtype=options["dtype"],
            save_every=options["save_every"],
        )
        try:
            device = torch.device(options["device"])
        except RuntimeError:
            raise ConfigError(f"device {options['device']!r} is not one of cpu, cuda, cuda:N") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda: no CUDA device can be used here")
        self.network = loading.read_weights(base, folder, model_config, torch.float32, trust).to(device)
        if device.type == "cpu" and self.network.num_parameters() < _SMALL_PARAMETERS:
            torch.set_num_threads(1)


def _held_out_figures(parts: _Base, solutions: list[LabelledSolution]) -> dict[str, Any]:
    """Figures by the network as it is in memory; solutions longer than the limit are left out."""
    import torch

    from prm.codec import label_reward
    from prm.metrics import figures
    from prm.train import encode_solution, label_logits

    kept, rewards = [], []
    with torch.inference_mode():
        for solution in solutions:
            encoded = encode_solution(parts.codec, solution, parts.settings.max_tokens)
            if len(encoded.reads) == len(solution.steps):
                kept.append(solution)
                logits = label_logits(parts.network, parts.codec, [encoded]).double().tolist()
                rewards.append([label_reward(pair) for pair in logits])
    return dict(figures(kept, rewards))


@prm.command("eval")
@click.argument("model")
@click.argument("data", type=_FILE)
@click.option("--codec", default="auto", show_default=True, metavar="NAME", help="how the model is read")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="X",
    help="a reward below it says that a step is wrong",
)
@click.option("--limit", type=_COUNT, metavar="N", help="lines to take of the file")
@click.option("--concurrency", type=_COUNT, default=8, show_default=True, metavar="C", help="solutions side by side")
@click.option("--dtype", type=_DTYPES, default="float32", show_default=True, help="precision of the model")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda, cuda:N")
@click.option("--rewards", type=_FILE, metavar="FILE", help="also write each solution's rewards, a line of JSON each")
@click.option("--trust-remote-code", is_flag=True, help="run code that comes with the checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def evaluate(model: str, data: Path, rewards: Path | None, as_json: bool, **options: Any) -> None:
    """Measure MODEL (a path, a hub id, or mini:ROLE) on a step-labelled .jsonl file.

    Step AUC, calibration, and the first-error F1 as ProcessBench defines it.
    """
    from prm.labels import load_labelled
    from prm.metrics import figures
    from search.files import write_atomic
    from search.registry import make_engine, make_scorer, prm_config

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
        given = asyncio.run(
            _score(engine, scorer, solutions, options["concurrency"], lambda done: bar.update(done, ""))
        )
    kept = [(solution, found) for solution, found in zip(solutions, given, strict=True) if found is not None]
    if not kept:
        raise ConfigError(f"every solution of {data} is longer than the model's {engine.info.context_tokens} tokens")
    measured = figures([solution for solution, _ in kept], [found for _, found in kept], options["threshold"])
    measured["num_left_out"] = len(solutions) - len(kept)
    if rewards is not None:
        lines = (json.dumps({"labels": one.labels, "rewards": found}) for one, found in kept)
        write_atomic(rewards, "\n".join(lines) + "\n")
    if as_json:
        print_json({"model": model, "data": str(data), "codec": config.codec, "reason": config.reason,
                    "figures": measured})  # fmt: skip
        return
    sys.stdout.write(f"{model}: {config.codec}, since {config.reason}\n")
    _show(measured)


async def _score(
    engine: Engine, scorer: Scorer, solutions: list[LabelledSolution], concurrency: int, report: Any
) -> list[tuple[float, ...] | None]:
    from prm.evaluate import score_solutions
    from search.prompts import PromptRenderer

    tokenizer = engine.tokenizer
    prompts = PromptRenderer(SearchSettings(), tokenizer)
    try:
        return await score_solutions(
            scorer,
            tokenizer,
            solutions,
            prompts.render,
            concurrency=concurrency,
            report=report,
        )
    finally:
        await engine.aclose()


def _show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        shown = "unknown" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        sys.stdout.write(f"{name.replace('_', ' '):24} {shown}\n")
