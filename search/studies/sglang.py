"""`ets bench sglang`: what an ETS search computes on real SGLang servers, and what the client itself can drive.

The servers must run: one with the policy, one with the reward model. Work is counted by what the servers say of each
request. The client's own speed is measured against a server that answers at once, so that it alone is left.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from search.api import Search
from search.config import SearchSettings, build
from search.engines.remote import SglangEngine
from search.engines.remote.facts import ServerFacts
from search.engines.remote.http import HttpClient, RequestLimits
from search.engines.remote.model import read_model
from search.engines.remote.transport import HttpServer
from search.problems.data import load_problems
from search.results.result import Result
from search.runs.session import garbage_frozen
from search.setup.registry import make_engine, make_scorer, model_path
from search.studies.instant import STEPS, Script
from search.studies.measured import Measured, spread
from search.types import Problem

ENGINE, PRM_ENGINE = "sglang:http://127.0.0.1:30000", "sglang:http://127.0.0.1:30001"
"""Where `make sglang-cpu` serves the mini family's target and reward model."""


def run(
    limit: int = 20,
    repeats: int = 3,
    seed: int = 0,
    engine: str = ENGINE,
    prm_engine: str = PRM_ENGINE,
    policy: str = "mini:target",
    prm: str = "mini:prm",
    width: int = 16,
) -> dict[str, Any]:
    """Measure.

    Args:
        limit: problems of `mini:test` to search.
        repeats: of the measurement of the client.
        seed: of the searches.
        engine: the policy's servers, as in the settings.
        prm_engine: the reward model's.
        policy: the model that the first serve.
        prm: the model that the others serve.
        width: of the ETS search.

    Returns:
        `figures`:
        `policy_work_ratio`, `prm_work_ratio`: positions that the servers computed, decoded tokens included, over unique
        tokens of the trees; each sample's own pass over its parent's last token is left out of the policy's.
        `policy_work_ratio_all`: the same with these passes.
        `client_steps_per_second`: steps written and scored by one client, beam search at width 64.
        `client_steps_per_cpu_second`: the same by processor time, of the fastest repeat: what else runs on the machine
        can only slow it.
        `reward_max_abs_diff`: rewards from the servers against the local engine's, on the same ids.

    Raises:
        ConfigError: a server cannot be reached, or serves another model.
    """
    settings = {"engine": engine, "prm_engine": prm_engine, "policy": policy, "prm": prm}
    values = {**settings, "method": "ets", "width": width, "seed": seed}
    search = Search(settings=build(SearchSettings, values))
    problems = load_problems("mini:test", limit)
    measured = asyncio.run(_searched(search, problems))
    results = measured.results
    computed = _total(results, "computed_tokens")
    samples = sum(result.stats.num_nodes - 1 for result in results)
    unique, prm_unique = _total(results, "unique_tokens"), _total(results, "prm_unique_tokens")
    rates = []
    for repeat in range(repeats):
        with _instant_server() as url:
            rates.append(asyncio.run(_client_speed(url, seed + repeat)))
    row = measured.row()
    figures = {
        "policy_work_ratio": (computed - samples) / unique,
        "policy_work_ratio_all": computed / unique,
        "prm_work_ratio": _total(results, "prm_tokens") / prm_unique,
        **spread("client_steps_per_second", [rate.steps_per_second for rate in rates]),
        "client_steps_per_cpu_second": max(rate.steps_per_cpu_second for rate in rates),
        "reward_max_abs_diff": asyncio.run(_reward_difference(results, build(SearchSettings, {"prm": prm}), policy)),
        "accuracy": row["accuracy"],
        "accuracy_lo": row["accuracy_lo"],
        "accuracy_hi": row["accuracy_hi"],
        "seconds": measured.seconds,
    }
    return {**values, "limit": limit, "repeats": repeats, "figures": figures}


async def _searched(search: Search, problems: Sequence[Problem]) -> Measured:
    measured = Measured()
    async with search:
        await measured.add(search, problems)
    return measured


def _total(results: Sequence[Result], name: str) -> int:
    return sum(int(getattr(result.stats, name)) for result in results)


async def _reward_difference(results: Sequence[Result], settings: SearchSettings, policy: str) -> float:
    """The largest difference between the rewards in these trees and those of the same reward model in this process."""
    engine = make_engine("local", settings.prm, settings, None)
    tokenizer = read_model(model_path(policy), "sglang").tokenizer
    scorer = make_scorer(settings, engine, tokenizer)
    worst = 0.0
    for result in results:
        scored = [node for node in result.tree if node.reward is not None]
        async with scorer.open(result.tree) as session:
            rewards = await session.score(result.tree, [node.id for node in scored])
        worst = max([worst, *(abs(node.reward - reward) for node, reward in zip(scored, rewards, strict=True))])  # type: ignore[operator]
    await engine.aclose()
    return worst


class ClientSpeed(NamedTuple):
    """Steps that one client had written and scored, by the clock and by the processor time of its process."""

    steps_per_second: float
    steps_per_cpu_second: float


async def _client_speed(url: str, seed: int) -> ClientSpeed:
    """How fast one client is against a server that answers at once."""
    method, width, num_problems = "beam", 64, 8
    limits = RequestLimits()
    engines = []
    for name in ("mini:target", "mini:prm"):
        model = read_model(model_path(name), "sglang")
        engines.append(SglangEngine(model, [HttpServer(HttpClient(limits), url)], ServerFacts(), limits))
    policy, prm = engines
    settings = build(
        SearchSettings, {"method": method, "prm": "mini:prm", "width": width, "seed": seed, "max_depth": STEPS}
    )
    search = Search(policy, make_scorer(settings, prm, policy.tokenizer), method, width, seed=seed, max_depth=STEPS)
    problems = load_problems("mini:test", num_problems + 1)
    async with search:
        await search.asolve(problems[-1])  # connections, caches of the tokenizer
        measured = Measured()
        with garbage_frozen():  # as `ets eval` does
            start = time.process_time()
            await measured.add(search, problems[:-1])
            cpu_seconds = time.process_time() - start
    steps = sum(result.stats.num_nodes - 1 for result in measured.results)
    failed = sum(result.stats.num_failed for result in measured.results)
    assert not failed and steps >= num_problems * width, f"{failed} of {steps} steps failed"
    return ClientSpeed(steps / measured.seconds, steps / cpu_seconds)


@contextmanager
def _instant_server() -> Iterator[str]:
    """A server of `search.studies.instant` in a process of its own."""
    tokenizer = read_model(model_path("mini:target"), "sglang").tokenizer
    script = Script(
        mark=tokenizer.encode("#")[0],
        letters=tuple(
            {tokenizer.encode(letter)[0] for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"}
        ),
        step=tokenizer.encode(" has 13 - 4 = 9.\n\n"),
        last=(*tokenizer.encode("The answer is \\boxed{9}."), min(tokenizer.eos_ids)),
        labels=(tokenizer.encode("+")[0], tokenizer.encode("-")[0]),
    )
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "port"
        command = [sys.executable, "-m", "search.studies.instant", str(file), json.dumps(script)]
        with subprocess.Popen(command) as process:
            try:
                deadline = time.monotonic() + 30
                while not file.exists() and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                yield f"http://127.0.0.1:{file.read_text(encoding='utf-8')}"
            finally:
                process.kill()
