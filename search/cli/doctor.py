"""`ets doctor`: what is installed, whether it runs, and what is wrong, in plain words."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import click

from search.cli.options import read_settings, settings_options
from search.cli.show import print_json
from search.config import SearchSettings
from search.errors import SearchError
from search.setup.resolve import settle
from search.support.extras import install_packages

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "scipy", "numpy", "pydantic")

_ROWS = 16
"""Rows of the second measurement of speed."""

_LEAST_SECONDS = 0.5
"""What took less says little."""

_MOST_TOKENS = 256
"""Of a row, for what is so fast that it never takes so long."""


class Check(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool
    text: str


@click.command()
@settings_options(SearchSettings)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@click.pass_context
def doctor(ctx: click.Context, /, config: Any, as_json: bool, **_: object) -> int:
    """Check packages, machine and models; exit 1 if something is wrong."""
    settled = settle(read_settings(SearchSettings, ctx, config))
    checks = [*_machine(), *_packages(), *(Check("settings", True, note) for note in settled.notes)]
    checks += _engines(settled.settings)
    if as_json:
        print_json({"ok": all(check.ok for check in checks), "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            sys.stdout.write(f"{'ok ' if check.ok else 'BAD'}  {check.name:18} {check.text}\n")
    return 0 if all(check.ok for check in checks) else 1


def _machine() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        Check("python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.machine()}"),
        Check("cores", True, f"{cores} usable"),
    ]


def _packages() -> list[Check]:
    checks = []
    for name in _PACKAGES:
        try:
            checks.append(Check(name, True, version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, False, f"not installed; {install_packages(name)}"))
    return checks


def _engines(settings: SearchSettings) -> list[Check]:
    """Load each model, and have it do the smallest real piece of work."""
    from search.setup.registry import make_engine, prm_config, runs_on_engine

    checks: list[Check] = []
    roles = [("policy", settings.engine, settings.policy, settings.max_kv_tokens)]
    if runs_on_engine(settings.prm):
        roles.append(("prm", settings.prm_engine, settings.prm, settings.prm_max_kv_tokens))
    elif settings.prm != "none":
        checks.append(_try("prm", lambda: f"{settings.prm}: {prm_config(settings.prm, settings.prm_codec).reason}"))
    for role, spec, model, max_kv_tokens in roles:
        try:
            engine = make_engine(spec, model, settings, max_kv_tokens)
        except SearchError as error:
            checks.append(Check(role, False, str(error)))
            continue
        info = engine.info
        parameters = "" if info.num_parameters is None else f", {info.num_parameters / 1e6:.2f}M parameters"
        details = "".join(f", {key} {value}" for key, value in info.details.items())
        checks.append(
            Check(
                role,
                True,
                f"{model}{details}"
                if info.name == "chat"  # whose ids are no tokens
                else f"{model}{parameters}, context {info.context_tokens}, vocabulary {info.vocab_size},"
                f" seeds {info.seeds}{details}",
            )
        )
        checks += [Check(f"{role} server", False, problem) for problem in getattr(engine, "problems", ())]
        if role == "prm":
            checks.append(_try("prm codec", lambda engine=engine: _reading(settings, engine)))  # type: ignore[misc]
        checks.append(_try(f"{role} runs", lambda engine=engine, role=role: asyncio.run(_probe(engine, role))))  # type: ignore[misc]
    return checks


def _reading(settings: SearchSettings, engine: Any) -> str:
    """Which family the reward model was taken for, and why."""
    from search.setup.registry import make_scorer, prm_config

    config = prm_config(settings.prm, settings.prm_codec, settings.prm_engine)
    make_scorer(settings, engine, engine.tokenizer)
    return f"{config.codec}: {config.reason}"


def _try(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except SearchError as error:
        return Check(name, False, str(error))


async def _probe(engine: Any, role: str) -> str:
    from search.types import Prefix, Segment

    ids = engine.tokenizer.encode("1 + 1 = 2")
    try:
        if engine.info.name == "chat":
            return "it answered the requests by which this was found out"
        prefix = Prefix("doctor", (Segment(0, ids),))
        if "head" in engine.info.details:
            outputs = ", ".join(f"{output:.3f}" for output in await engine.read(prefix, "head"))
            return f"one forward pass over {len(ids)} tokens, reward head {outputs}"
        (logprob,) = await engine.label_logprobs(prefix, ids[:1])
        done = f"one forward pass over {len(ids)} tokens, log-probability {logprob:.3f}"
        return done if role != "policy" else f"{done}; {await _speed(engine, prefix)}"
    finally:
        await engine.release("doctor", None)
        await engine.aclose()


async def _speed(engine: Any, prefix: Any) -> str:
    """How fast it writes, as far as that can be told in some seconds: more rows the faster one is."""
    told = []
    await _written(engine, prefix, _ROWS, 2)  # what is done once is not counted
    for num_rows in (1, _ROWS):
        num_tokens, seconds, limit = 0, 0.0, 4
        while seconds < _LEAST_SECONDS and limit <= _MOST_TOKENS:
            num_tokens, seconds = await _written(engine, prefix, num_rows, limit)
            limit *= 2
        told.append(f"{num_tokens / seconds:.0f} ({num_rows})" if num_tokens else f"none ({num_rows})")
    return f"tokens a second (rows): {', '.join(told)}"


async def _written(engine: Any, prefix: Any, num_rows: int, limit: int) -> tuple[int, float]:
    """Tokens of rows of at most `limit` tokens below a prefix, and the seconds they took."""
    from search.types import Child, Sampling

    children = [Child(row + 1, row) for row in range(num_rows)]
    begun = time.perf_counter()
    num_tokens = 0
    async for written in engine.generate(prefix, children, Sampling(max_new_tokens=limit, stop=())):
        num_tokens += len(written.ids)
    seconds = time.perf_counter() - begun
    await engine.release("doctor", [child.key for child in children])
    return num_tokens, seconds
