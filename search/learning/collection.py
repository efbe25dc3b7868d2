"""`ets router collect`: the parts of arbitrage's collection put together on real models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import SearchSettings, build
from search.learning.probes import middle_layers
from search.mini.assets import place
from search.problems.data import read_data
from search.prompt.prompts import PromptRenderer
from search.setup.registry import make_engine, make_scorer, opened_grader, prm_config, runs_on_engine, weights_of
from search.setup.routing import pair_scorer, prompt_for
from search.steps import line_end_tokens
from search.support.files import write_atomic
from search.types import Problem, Sampling

if TYPE_CHECKING:
    from arbitrage.collect import Collector, Verdict
    from arbitrage.walks import Walk
    from search.answers.graders import Grader
    from search.protocols import Engine


@dataclass(frozen=True, slots=True)
class Collection:
    """What is to be collected, and on what.

    Attributes:
        data: problems, as `ets eval --data`.
        field, reference: how its columns are read, and whether it has reference answers, as there.
        limit, skip: problems taken, and left out before them.
        draft, target, prm: models by path, hub id or `mini:ROLE`.
        engines: where they run, in this order.
        temperature, num_samples: of the steps; see `arbitrage.collect.CollectSettings`.
        max_step_tokens, max_tokens, max_depth: limits, as for a search.
        seed: of the run.
        shard_size: problems in one file.
        concurrency: problems side by side.
        layers: whose hidden states of the draft are kept, counted from 1; empty for five from the middle on. Kept
            where the draft's engine gives any, for routers that are probes.
        device, dtype, trust_remote_code: of local models.
        family: the folder that `mini:ROLE` stands for; None: the shipped one.
    """

    data: str = "mini:train"
    field: str | None = None
    reference: bool = True
    limit: int | None = None
    skip: int = 0
    draft: str = "mini:draft"
    target: str = "mini:target"
    prm: str = "mini:prm"
    engines: tuple[str, str, str] = ("local", "local", "local")
    temperature: float = 0.0
    num_samples: int = 1
    max_step_tokens: int = 256
    max_tokens: int = 1024
    max_depth: int = 25
    seed: int = 0
    shard_size: int = 100
    concurrency: int = 64
    layers: tuple[int, ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    trust_remote_code: bool = False
    family: Path | None = None


def collect_walks(
    wanted: Collection,
    folder: Path,
    report: Callable[[int, str], None] = lambda done, note: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Walk]:
    """Collect walks into a folder; shards that are finished are read back.

    Args:
        wanted: what, and on what.
        folder: of the shards.
        report: told of problems that are done, and a note.
        say: told how the data was read.

    Raises:
        ConfigError: a model or the data is wrong, or the folder holds shards of other settings.
        DataError: a line of the data is broken.
        EngineError, ScoringError: a model could not do its work; finished shards are kept.
    """
    from arbitrage.collect import SETTINGS, collect

    data = read_data(wanted.data, wanted.limit, wanted.skip, wanted.field, wanted.reference)
    if line := data.described(wanted.data):
        say(line)
    origin = {name: getattr(wanted, name) for name in SETTINGS if name != "states"}

    async def run(grader: Grader) -> list[Walk]:
        collector, engines, states = await asyncio.to_thread(_collector, wanted, grader)
        try:
            return await collect(
                collector,
                data.problems,
                folder,
                {**origin, "states": states},
                write_atomic,
                concurrency=wanted.concurrency,
                report=report,
            )
        finally:
            for engine in engines:
                await engine.aclose()

    with opened_grader("plain" if wanted.data.startswith("mini:") else "math") as grader:
        return asyncio.run(run(grader))


def _collector(wanted: Collection, grader: Grader) -> tuple[Collector, list[Engine], dict[str, Any] | None]:
    """What makes walks, its engines, and what is kept of the draft's states."""
    from arbitrage.collect import Collector, CollectSettings
    from arbitrage.models import ModelView

    settings = build(
        SearchSettings,
        {"prm": place(wanted.prm, wanted.family), "device": wanted.device, "dtype": wanted.dtype,
         "trust_remote_code": wanted.trust_remote_code},
    )  # fmt: skip
    prm_config(settings.prm, "auto", wanted.engines[2])
    names = [place(name, wanted.family) for name in (wanted.draft, wanted.target, wanted.prm)]
    draft, target, *prm = engines = [
        make_engine(spec, name, settings, None)
        for spec, name in zip(wanted.engines, names, strict=True)
        if runs_on_engine(name)
    ]
    scorer = (
        make_scorer(settings, prm[0], target.tokenizer)
        if prm
        else pair_scorer(settings.model_copy(update={"target": names[1]}), names[2], target)
    )
    states = _states(wanted, names[0], draft)
    prompts = PromptRenderer(settings, target.tokenizer)
    collector = Collector(
        ModelView(draft, target.tokenizer, prompt_for(settings, draft.tokenizer)),
        ModelView(target, target.tokenizer),
        scorer,
        CollectSettings(
            Sampling(
                wanted.temperature,
                max_new_tokens=wanted.max_step_tokens,
                stop=prompts.style.stop,
                line_end_tokens=line_end_tokens(wanted.max_step_tokens),
                logprobs=True,
            ),
            wanted.num_samples,
            wanted.seed,
            wanted.max_tokens,
            wanted.max_depth,
            None if states is None else tuple(states["layers"]),
        ),
        prompt=lambda problem: prompts.render(problem.text),
        verdict=step_checker(wanted.data, wanted.skip),
        grade=lambda problem, text: (
            None if problem.answer is None else grader.correct(grader.extract(text), problem.answer)
        ),
    )
    return collector, engines, states


def _states(wanted: Collection, draft: str, engine: Engine) -> dict[str, Any] | None:
    """Which of the draft's states are kept, and whose they are; None where its engine gives none."""
    if engine.info.name != "local" and not engine.info.details.get("hidden states"):
        return None
    number = int(engine.info.details["layers"])
    layers = middle_layers(wanted.draft, number, wanted.layers) if engine.info.name == "local" else (number,)
    return {
        "layers": list(layers),
        "num_layers": number,
        "weights": weights_of(draft),
        "tokenizer": engine.tokenizer.fingerprint,
    }


def step_checker(data: str, skip: int = 0) -> Verdict | None:
    """The mini family's exact checker for its own problems after the first `skip`; other data has none."""
    if not data.startswith("mini:"):
        return None
    from search.mini.checker import check_steps
    from search.mini.problems import MiniProblem, problems

    split = data.removeprefix("mini:")
    known: dict[str, MiniProblem] = {}
    made = problems(split, 10**12, skip)

    def verdict(problem: Problem, steps: Sequence[str]) -> bool:
        while problem.id not in known:
            one = next(made)
            known[one.id] = one
        return check_steps(known[problem.id], [step.strip("\n") for step in steps]).steps[-1].right

    return verdict
