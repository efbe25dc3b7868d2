"""`ets bench engine --policy PATH`: a checkpoint in the local engine against `transformers.generate`, by the clock.

Flat: rows that write several steps one after the other, none waiting for another; `generate` writes the same number of
tokens in one padded batch, to the longest row's end. Trees: level-wise schedules of width 16 as REBASE keeps them (half
of the leaves) and as ETS does (a quarter); `generate` has one padded batch a level. Both run in turns in one process on
the same number of threads, lengths are drawn, and texts mean nothing.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from search.engines.local import LocalEngine
from search.setup.registry import model_path
from search.studies.engine import Baseline, Clock, Schedule, Work, endless_engine, make_prompt, search_all, step
from search.studies.measured import spread
from search.tree import derive_seed
from search.types import Child, Prefix, Segment

if TYPE_CHECKING:
    from search.engines.local.selfcheck import Attention

_STEP_TOKENS = (20, 60)
_NUM_STEPS = 3
_NUM_LEVELS = 4
_WIDTH = 16
_FANOUTS = {"rebase": 2, "ets": 4}
_PROBLEMS = (1, 4)

Paths = Sequence[Sequence[int]]
"""Tokens of each step of each row."""


def measure(
    model: str,
    dtype: str,
    rows: Sequence[int],
    repeats: int,
    seed: int,
    *,
    num_problems: Sequence[int] | None = None,
    device: str = "cpu",
    attention: Attention = "auto",
    graphs: bool = True,
) -> dict[str, Any]:
    """Measure a checkpoint.

    Args:
        model: by path or hub id.
        dtype: of its weights on both sides.
        rows: of the flat runs, shared by their problems.
        repeats: interleaved repeats.
        seed: of the schedules.
        num_problems: how many problems side by side; None: 1 and 4.
        device: where both sides run.
        attention: the engine's.
        graphs: whether it launches turns as a whole, on a GPU.

    Returns:
        `figures`: ratios of tokens a second, ours over those of `generate`, medians of the repeats with `_min` and
        `_max`: `flat_R_P` (R rows for each of P problems), `tree_rebase_P`, `tree_ets_P`; `work_ratio`, the greatest
        of computed over unique tokens; and our tokens a second in each case, `rate_...`.
    """
    path = model_path(model)
    engine, num_threads = endless_engine(path, dtype, device, attention, graphs)
    baseline = Baseline(path, dtype, num_threads=num_threads, device=device)
    prompt = make_prompt(baseline.vocab_size, seed)
    cases = _cases(engine, baseline, prompt, rows, num_problems or _PROBLEMS)
    asyncio.run(_flat(engine, prompt, [[[4, 4]] * 2]))
    baseline.generate([prompt] * 2, 4, seed)
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    work = 0.0
    # The first run of a shape pays for what a device builds once for it, on both sides; on an H200 it took `generate`
    # up to ten times as long as the next. So there it is not counted.
    for repeat in range(0 if device == "cpu" else -1, repeats):
        for name, case in cases.items():
            # The uncounted run is the first counted one, whose lengths it has seen.
            mine, other = case(derive_seed(seed, max(0, repeat), name))
            assert mine.written == other.written
            if repeat < 0:
                continue
            rates[name].append(mine.written / mine.seconds)
            ratios[name].append(other.seconds / mine.seconds)
            work = max(work, mine.computed / mine.unique)
            sys.stderr.write(f"repeat {repeat + 1}/{repeats} {name}: {ratios[name][-1]:.2f} of generate\n")
    asyncio.run(engine.aclose())
    figures: dict[str, float] = {"work_ratio": work}
    for name, seen in ratios.items():
        figures |= spread(name, seen)
        figures[f"rate_{name}"] = statistics.median(rates[name])
    return {
        "model": model,
        "dtype": dtype,
        "num_threads": num_threads,
        "repeats": repeats,
        "seed": seed,
        "figures": figures,
    }


def _cases(
    engine: LocalEngine, baseline: Baseline, prompt: tuple[int, ...], rows: Sequence[int], problems: Sequence[int]
) -> dict[str, Callable[[int], tuple[Work, Work]]]:
    """By name, what has both write by a seed: our work, and that of `generate`."""

    def flat(num_rows: int, num_problems: int, seed: int) -> tuple[Work, Work]:
        rng = random.Random(seed)
        paths = [[[rng.randint(*_STEP_TOKENS) for _ in range(_NUM_STEPS)] for _ in range(num_rows)]
                 for _ in range(num_problems)]  # fmt: skip
        return asyncio.run(_flat(engine, prompt, paths)), _flat_generate(baseline, prompt, paths, seed)

    def tree(name: str, num_problems: int, seed: int) -> tuple[Work, Work]:
        seeds = [derive_seed(seed, at) for at in range(num_problems)]
        schedules = [Schedule(_WIDTH, _NUM_LEVELS, own, _FANOUTS[name], _STEP_TOKENS) for own in seeds]
        return asyncio.run(search_all(engine, prompt, schedules, together=True)), baseline.search(prompt, *schedules)

    cases: dict[str, Callable[[int], tuple[Work, Work]]] = {}
    for num in problems:
        cases |= {f"flat_{num_rows}_{num}": partial(flat, num_rows, num) for num_rows in rows}
        cases |= {f"tree_{name}_{num}": partial(tree, name, num) for name in _FANOUTS}
    return cases


async def _flat(engine: LocalEngine, prompt: tuple[int, ...], problems: Sequence[Paths]) -> Work:
    clock = Clock()

    async def path(tree: str, at: int, lengths: Sequence[int]) -> None:
        prefix = Prefix(tree, (Segment(0, prompt),))
        for number, length in enumerate(lengths):
            key = 1 + at * len(lengths) + number
            prefix = await step(engine, prefix, Child(key, derive_seed(tree, key)), length)

    names = [f"p{number}" for number in range(len(problems))]
    await asyncio.gather(
        *(path(name, at, row) for name, rows in zip(names, problems, strict=True) for at, row in enumerate(rows))
    )
    spent = clock.read()
    computed = 0
    for name in names:
        computed += engine.usage(name).computed_tokens or 0
        await engine.release(name)
    written = sum(sum(row) for rows in problems for row in rows)
    return Work(written, len(problems) * len(prompt) + written, computed, *spent)


def _flat_generate(baseline: Baseline, prompt: tuple[int, ...], problems: Sequence[Paths], seed: int) -> Work:
    clock = Clock()
    totals = [sum(row) for rows in problems for row in rows]
    _, computed = baseline.generate([prompt] * len(totals), max(totals), seed)
    return Work(sum(totals), len(problems) * len(prompt) + sum(totals), computed, *clock.read())
