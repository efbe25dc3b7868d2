"""`ets plan`: what memory and time a search will take, from the models' shapes and measured work; nothing is loaded."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import click

from search.catalogue import SCORERS
from search.cli.kinds import COUNT, FILE, Number
from search.cli.main import say
from search.cli.show import print_json
from search.errors import ConfigError

PROMPT_TOKENS, SOLUTION_TOKENS, SOLUTION_STEPS, SOLUTION_SPREAD = 100.0, 260.0, 4.0, 0.3
"""Of GSM8K's problems under a chat template, and of their solutions by Qwen2.5-Coder-1.5B: 102, 258, 4.0 and 0.30."""

RUNS = Path("runs")
"""Where a run of the model itself is looked for."""

WITHIN = 0.2
"""What is said to be too uncertain beyond."""


@click.command()
@click.option("--policy", required=True, metavar="MODEL", help="a folder, a .gguf file, a hub id, or mini:ROLE")
@click.option(
    "--prm",
    default="none",
    metavar="MODEL",
    help="a reward model beside it, on the same device; or what needs none, as for ets eval",
)
@click.option("--method", default="ets", metavar="NAME", help="search method")
@click.option("--width", type=COUNT, default=16, metavar="N", help="of the search")
@click.option(
    "--gpu", metavar="GB", help="its memory, e.g. 80GB, or a card: t4, l4, rtx4090, a100-40, l40s, a100, h100, h200"
)
@click.option("--bandwidth", type=Number(0, 1e6, min_open=True), metavar="X", help="of its memory, in GB/s")
@click.option("--tflops", type=Number(0, 1e6, min_open=True), metavar="X", help="of its arithmetic")
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", help="of the weights")
@click.option("--prompt-tokens", type=Number(1, 1e9), metavar="N", help=f"of a problem's prompt; {PROMPT_TOKENS:.0f}")
@click.option("--solution-tokens", type=Number(1, 1e9), metavar="N", help=f"of one solution; {SOLUTION_TOKENS:.0f}")
@click.option("--solution-steps", type=Number(1, 1e9), metavar="N", help=f"of one solution; {SOLUTION_STEPS:.0f}")
@click.option(
    "--solution-spread",
    type=Number(0, 10),
    metavar="X",
    help=f"standard deviation of a problem's solution lengths over their mean; {SOLUTION_SPREAD:g}",
)
@click.option("--problems", type=COUNT, default=1, metavar="N", help="in all")
@click.option("--concurrency", type=COUNT, default=8, metavar="N", help="problems side by side")
@click.option(
    "--from",
    "run",
    type=FILE,
    metavar="RUN",
    help="a run of your own, whose lengths and work are taken, and whose method; "
    f"without it one of the same model, method and kind of scorer below {RUNS}/, else the mini family's work",
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
    solution_steps: float | None,
    solution_spread: float | None,
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
    from search.planning.own_run import find_own_run, read_own_run
    from search.planning.plan import Device, Plan, read_device
    from search.planning.work_ratios import Lengths, at_width, carried, measured, tells_apart

    device = None if gpu is None else read_device(gpu)
    if device is None and (bandwidth or tflops):
        if not (bandwidth and tflops):
            raise ConfigError("--bandwidth and --tflops go together, or with a --gpu")
        device = Device("the device", None)
    if device is not None:
        like = "" if bandwidth and tflops else device.like
        device = replace(
            device, bandwidth=bandwidth or device.bandwidth, teraflops=tflops or device.teraflops, like=like
        )
    shape, scored = read_shape(policy), tells_apart(prm)
    own = read_own_run(run) if run is not None else find_own_run(RUNS, policy, method, width, scored)
    if own is None:
        spread = None
        unequal = SOLUTION_SPREAD if solution_spread is None else solution_spread
        ratios = at_width(measured(method, scored), width).at_steps(solution_steps or SOLUTION_STEPS)
        ratios = ratios.at_spread(unequal, width)
        lengths = Lengths(PROMPT_TOKENS, SOLUTION_TOKENS)
        by = "its reward model" if scored else "confidence"
        source = f"{method}, measured on the mini family, scored by {by}; lengths spread by {unequal:g} of their mean"
        say(
            f"no run of {policy} by {method} is in {RUNS}/: the mini family's work stands in, and a school problem's "
            f"lengths; a run of 16 problems there (ets eval --limit 16 --out {RUNS}/NAME) tells both"
        )
    else:
        if solution_spread is not None:
            raise ConfigError(f"--solution-spread: the work of {own.folder} has that of its own solutions in it")
        method, scored, (ratios, lengths, of, spread) = own.method, own.scored, own.measured
        if width != own.width:
            ratios = carried(ratios, method, own.width, width, scored)
        if solution_steps is not None:
            ratios = ratios.at_steps(solution_steps)
        carry = "" if width == own.width else f", carried to {width} as the mini family's change"
        source = f"{own.folder}, {method} at width {own.width}, {of} problem{'s' * (of != 1)}{carry}"
        if spread > WITHIN:
            told = f"within {spread:.0%} only" if of > 1 else "not at all"
            say(
                f"{own.folder}: {of} problem{'s tell' if of != 1 else ' tells'} KV tokens {told}; about 16 tell them "
                "within 20%: that run's own command goes on with --limit 16"
            )
    planned = Plan(
        policy=shape,
        prm=None if (model := _loaded(prm)) is None else read_shape(model),
        dtype=dtype,
        method=method,
        width=width,
        lengths=Lengths(prompt_tokens or lengths.prompt, solution_tokens or lengths.solution),
        ratios=ratios,
        spread=spread if spread is not None and math.isfinite(spread) else None,
        device=device,
        num_problems=problems,
        concurrency=concurrency,
        tokens_per_second=None if own is None else own.tokens_per_second,
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
