"""`ets plan`: what memory and time a search will take, from the models' shapes and measured work; nothing is loaded."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from search.catalogue import SCORERS
from search.cli.show import print_json
from search.errors import ConfigError

PROMPT_TOKENS, SOLUTION_TOKENS = 200.0, 300.0
"""Of a school problem under a chat template, and of its solution by a model of 1.5 billion parameters."""


@click.command()
@click.option("--policy", required=True, metavar="MODEL", help="a folder, a .gguf file, a hub id, or mini:ROLE")
@click.option(
    "--prm",
    default="none",
    show_default=True,
    metavar="MODEL",
    help="a reward model beside it, on the same device; or what needs none, as for ets eval",
)
@click.option("--method", default="ets", show_default=True, metavar="NAME", help="search method")
@click.option("--width", type=click.IntRange(min=1), default=16, show_default=True, metavar="N", help="of the search")
@click.option("--gpu", metavar="GB", help="its memory, e.g. 80GB, or a name: t4, l4, rtx4090, l40s, a100, h100, h200")
@click.option("--bandwidth", type=click.FloatRange(0, min_open=True), metavar="X", help="of its memory, in GB/s")
@click.option("--tflops", type=click.FloatRange(0, min_open=True), metavar="X", help="of its arithmetic")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True, help="of the weights"
)
@click.option(
    "--prompt-tokens", type=click.FloatRange(min=1), metavar="N", help=f"of a problem's prompt; {PROMPT_TOKENS:.0f}"
)
@click.option(
    "--solution-tokens", type=click.FloatRange(min=1), metavar="N", help=f"of one solution; {SOLUTION_TOKENS:.0f}"
)
@click.option("--problems", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="in all")
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="problems side by side"
)
@click.option(
    "--from",
    "run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="a run of your own, whose lengths and work are taken in place of the mini family's; its method counts",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def plan(
    policy: str,
    prm: str,
    method: str,
    width: int,
    gpu: str | None,
    bandwidth: float | None,
    tflops: float | None,
    dtype: str,
    prompt_tokens: float | None,
    solution_tokens: float | None,
    problems: int,
    concurrency: int,
    run: Path | None,
    as_json: bool,
) -> None:
    """Say what memory and time searches will take, without loading a model.

    KV tokens are what the engine holds for one problem at its peak; a method that prunes or shares holds fewer than
    width times a solution's length, by a ratio that was measured.
    """
    from search.planning.model_shape import read_shape
    from search.planning.plan import Plan, read_device
    from search.planning.work_ratios import Lengths, at_width, carried, measured, read_run_ratios, tells_apart

    device = None if gpu is None else read_device(gpu)
    if device is None and (bandwidth or tflops):
        raise ConfigError("--bandwidth and --tflops are of a --gpu; name its memory")
    if device is not None:
        device = replace(device, bandwidth=bandwidth or device.bandwidth, teraflops=tflops or device.teraflops)
    lengths = Lengths(PROMPT_TOKENS, SOLUTION_TOKENS)
    if run is None:
        scored = tells_apart(prm)
        ratios = at_width(measured(method, scored), width)
        source = f"{method}, measured on the mini family, scored by {'its reward model' if scored else 'confidence'}"
    else:
        method, of, scored, ratios, lengths = read_run_ratios(run)
        source = f"{run}, {method} at width {of}"
        if width != of:
            ratios = carried(ratios, method, of, width, scored)
            source += f", carried to {width} as the mini family's change"
    planned = Plan(
        policy=read_shape(policy),
        prm=None if (model := _loaded(prm)) is None else read_shape(model),
        dtype=dtype,
        method=method,
        width=width,
        lengths=Lengths(prompt_tokens or lengths.prompt, solution_tokens or lengths.solution),
        ratios=ratios,
        device=device,
        num_problems=problems,
        concurrency=concurrency,
    )
    if as_json:
        print_json({**planned.to_dict(), "source": source})
    else:
        sys.stdout.write(planned.table(source).text() + "\n")


def _loaded(prm: str) -> str | None:
    """The checkpoint that a scorer loads, if it does."""
    kind, _, rest = prm.partition(":")
    if kind == "none" or kind in SCORERS:
        return rest if kind in SCORERS and SCORERS[kind].loads else None
    return prm
