"""`ets bench NAME`: a measurement, as a table or as one JSON object with flat `figures`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from search.catalogue import load, pick
from search.cli.kinds import COUNT, FILE, PRECISION, SEED
from search.cli.show import tell
from search.config import flag
from search.errors import ConfigError
from search.setup.registry import BENCHES
from search.support.plots import check_plots


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--limit", type=COUNT, metavar="N", help="problems or trees to measure on; default: the bench's own")
@click.option("--repeats", type=COUNT, metavar="N", help="interleaved repeats; default: the bench's own")
@click.option("--seed", type=SEED, metavar="N", help="seed of the whole measurement; default: 0")
@click.option("--embedder", metavar="NAME", help="coverage, methods: what compares steps; default: tfidf")
@click.option("--widths", metavar="N,N", help="widths of searches; default: the bench's own")
@click.option("--methods", metavar="NAME,NAME", help="methods of searches; default: the bench's own")
@click.option(
    "--data",
    metavar="DATA",
    help="coverage: recorded solutions, or a run's folder; latency, stopping: mini:SPLIT or recorded solutions, "
    "latency of a model any problems; others: problems",
)
@click.option("--policy", metavar="NAME", help="engine, latency: a model by path or hub id")
@click.option("--dtype", type=PRECISION, help="engine, latency: of that model; default: float32")
@click.option("--rows", metavar="N,N", help="engine: rows of that model's flat runs; default: 8,16,64")
@click.option("--engine", metavar="NAME", help="latency, sglang, pipeline: the policy's or target's servers")
@click.option("--prm-engine", metavar="NAME", help="sglang: the reward model's servers; default: as for --engine")
@click.option("--draft-engine", metavar="NAME", help="pipeline: the draft's server; default: in this process")
@click.option("--router", metavar="NAME", help="pipeline: who judges the draft's steps; default: rsd:0.7")
@click.option("--router-engine", metavar="NAME", help="pipeline: the server of the router's model; default: as above")
@click.option("--concurrency", type=COUNT, metavar="C", help="pipeline: problems side by side; default: 1")
@click.option("--plots", type=FILE, metavar="DIR", help="coverage, routers: folder for two plots")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def bench(name: str, plots: Path | None, as_json: bool, **others: Any) -> None:
    """Measure a part.

    NAME is coverage, embedders, engine, latency, methods, pipeline, prune, routers, sampling, sglang,
    stopping or widths.
    """
    given = {**others, "plots": plots}
    for key in ("widths", "rows"):
        given[key] = _numbers(f"--{key}", given[key])
    if given["methods"] is not None:
        given["methods"] = tuple(given["methods"].split(","))
    run = load(pick("bench", name, BENCHES))
    options = {key: value for key, value in given.items() if value is not None}
    for key in options.keys() - inspect.signature(run).parameters.keys():
        raise ConfigError(f"bench {name} takes no {flag(key)}")
    if plots is not None:
        check_plots()
    report = {"bench": name, **run(**options)}
    tell(as_json, report, "\n".join(figure_lines(report["figures"])))


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """One line a figure; the bounds of its interval, figures of their own by `_lo` and `_hi`, stand beside it."""
    bounds: dict[str, tuple[str, str]] = {}
    for key in figures:
        high = re.sub(r"_lo(?=_|$)", "_hi", key, count=1)
        if high != key and high in figures:
            bounds[re.sub(r"_lo(?=_|$)", "", key, count=1)] = (key, high)
    beside = {bound for name, pair in bounds.items() if name in figures for bound in pair}
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in figures.items()}
    lines = []
    for key in (key for key in figures if key not in beside):
        low, high = bounds.get(key, ("", ""))
        lines.append(f"{key:40} {shown[key]}" + (f" ({shown[low]} to {shown[high]})" if low else ""))
    return lines


def _numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"{name} {text!r}: must be whole numbers from 1, with commas between them")
    return tuple(int(part) for part in parts)
