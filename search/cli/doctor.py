"""`ets doctor`: what is installed, whether it runs, and what is wrong, in plain words."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import click

from search.cli.options import read_settings, settings_options
from search.cli.show import print_json
from search.config import SearchSettings
from search.errors import SearchError
from search.extras import install_packages
from search.resolve import settle

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "scipy", "numpy", "pydantic")


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
    settings = settle(read_settings(SearchSettings, ctx, config)).settings
    checks = [*_machine(), *_packages(), *_engines(settings)]
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
    from prm.confidence import is_confidence
    from search.registry import make_engine, prm_config

    checks: list[Check] = []
    roles = [("policy", settings.engine, settings.policy, settings.max_kv_tokens)]
    if is_confidence(settings.prm):
        checks.append(_try("prm", lambda: f"{settings.prm}: {prm_config(settings.prm, settings.prm_codec).reason}"))
    elif settings.prm != "none":
        roles.append(("prm", settings.prm_engine, settings.prm, settings.prm_max_kv_tokens))
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
                f"{model}{parameters}, context {info.context_tokens}, vocabulary {info.vocab_size},"
                f" seeds {info.seeds}{details}",
            )
        )
        checks += [Check(f"{role} server", False, problem) for problem in getattr(engine, "problems", ())]
        if role == "prm":
            checks.append(_try("prm codec", lambda engine=engine: _reading(settings, engine)))  # type: ignore[misc]
        checks.append(_try(f"{role} runs", lambda engine=engine: asyncio.run(_probe(engine))))  # type: ignore[misc]
    return checks


def _reading(settings: SearchSettings, engine: Any) -> str:
    """Which family the reward model was taken for, and why."""
    from search.registry import make_scorer, prm_config

    config = prm_config(settings.prm, settings.prm_codec, settings.prm_engine)
    make_scorer(settings, engine, engine.tokenizer)
    return f"{config.codec}: {config.reason}"


def _try(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except SearchError as error:
        return Check(name, False, str(error))


async def _probe(engine: Any) -> str:
    from search.types import Prefix, Segment

    ids = engine.tokenizer.encode("1 + 1 = 2")
    try:
        prefix = Prefix("doctor", (Segment(0, ids),))
        if "head" in engine.info.details:
            outputs = ", ".join(f"{output:.3f}" for output in await engine.read(prefix, "head"))
            return f"one forward pass over {len(ids)} tokens, reward head {outputs}"
        (logprob,) = await engine.label_logprobs(prefix, ids[:1])
    finally:
        await engine.release("doctor", None)
        await engine.aclose()
    return f"one forward pass over {len(ids)} tokens, log-probability {logprob:.3f}"
