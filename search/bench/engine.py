"""`ets bench engine`: tokens per CPU second of the local engine against `transformers.generate` on one schedule.

The schedule is a tree search without a reward model: a quarter of the leaves is kept at each level with four children
each, and every step has a drawn length. The baseline is what one writes with transformers alone: one padded batch a
level, in which every prefix is computed again. Both run in turns in one process, on one thread. Machines drift, so the
figures are medians of the ratios of neighbours; tokens a second compare only within one run.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from search.engines.local import LocalEngine
from search.registry import model_path
from search.streams import closing
from search.tree import derive_seed
from search.types import Child, Prefix, Sampling, Segment

_FANOUT = 4
"""Children of a kept leaf; one of this many leaves is kept."""

_STEP_TOKENS = (10, 30)
_PROMPT_TOKENS = 100


class Schedule(NamedTuple):
    """The shape of one search.

    Attributes:
        num_leaves: leaves of each level.
        num_levels: levels below the prompt.
        seed: of the steps' lengths and of the kept leaves.
    """

    num_leaves: int
    num_levels: int
    seed: int

    def lengths(self, level: int) -> list[int]:
        """Tokens of each step of a level."""
        rng = random.Random(derive_seed("lengths", self.seed, level))
        return [rng.randint(*_STEP_TOKENS) for _ in range(self.num_leaves)]

    def kept(self, level: int) -> list[int]:
        """Which leaves of a level go on."""
        rng = random.Random(derive_seed("kept", self.seed, level))
        return sorted(rng.sample(range(self.num_leaves), max(1, self.num_leaves // _FANOUT)))


class Work(NamedTuple):
    """What a run did.

    Attributes:
        written: tokens of all steps.
        unique: tokens of the tree, the prompt included.
        computed: token positions that went through the model.
        cpu_seconds: of the whole process.
    """

    written: int
    unique: int
    computed: int
    cpu_seconds: float


def run(repeats: int = 5, seed: int = 0, model: str = "mini:target") -> dict[str, Any]:
    """Measure the engine.

    Args:
        repeats: interleaved repeats of each comparison.
        seed: of the schedules.
        model: what to serve: a mini model's name, a path, or a hub id.

    Returns:
        `figures`: `speedup_vs_generate` (tokens per CPU second, 64 leaves, 8 levels), `speedup_many_problems` (16
        problems of width 8 together against one by one), `work_ratio` (computed over unique tokens), the least and
        greatest ratio seen (`_min`, `_max`), and both sides' tokens per CPU second.
    """
    return run_engine_bench(repeats=repeats, seed=seed, model=model)


def run_engine_bench(
    repeats: int = 5,
    seed: int = 0,
    model: str = "mini:target",
    num_leaves: int = 64,
    num_levels: int = 8,
    num_problems: int = 16,
    width: int = 8,
) -> dict[str, Any]:
    """As `run`, with the sizes of both comparisons."""
    path = model_path(model)
    engine, baseline = _endless_engine(path), _Baseline(path)
    prompt = _prompt(baseline.vocab_size, seed)
    single, many, work_ratios, rates = [], [], [], []
    warm = Schedule(8, 2, seed)
    asyncio.run(_search_all(engine, prompt, [warm], together=True))
    baseline.search(prompt, warm)
    for repeat in range(repeats):
        schedule = Schedule(num_leaves, num_levels, derive_seed(seed, repeat))
        ours = asyncio.run(_search_all(engine, prompt, [schedule], together=True))
        theirs = baseline.search(prompt, schedule)
        assert ours.written == theirs.written
        rates.append((ours.written / ours.cpu_seconds, theirs.written / theirs.cpu_seconds))
        single.append(rates[-1][0] / rates[-1][1])
        work_ratios.append(ours.computed / ours.unique)
        problems = [Schedule(width, num_levels, derive_seed(seed, repeat, i)) for i in range(num_problems)]
        together = asyncio.run(_search_all(engine, prompt, problems, together=True))
        alone = asyncio.run(_search_all(engine, prompt, problems, together=False))
        assert together.written == alone.written
        many.append(alone.cpu_seconds / together.cpu_seconds)
    asyncio.run(engine.aclose())
    figures = {
        "speedup_vs_generate": statistics.median(single),
        "speedup_vs_generate_min": min(single),
        "speedup_vs_generate_max": max(single),
        "speedup_many_problems": statistics.median(many),
        "speedup_many_problems_min": min(many),
        "speedup_many_problems_max": max(many),
        "work_ratio": max(work_ratios),
        "tokens_per_cpu_second": statistics.median(ours for ours, _ in rates),
        "tokens_per_cpu_second_generate": statistics.median(theirs for _, theirs in rates),
    }
    return {
        "bench": "engine",
        "model": model,
        "repeats": repeats,
        "seed": seed,
        "num_leaves": num_leaves,
        "num_levels": num_levels,
        "num_problems": num_problems,
        "width": width,
        "figures": figures,
    }


def _prompt(vocab_size: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(derive_seed("prompt", seed))
    return tuple(rng.randrange(vocab_size) for _ in range(_PROMPT_TOKENS))


def _endless_engine(path: str) -> LocalEngine:
    """An engine that no end token stops: the schedule alone says how long a step is."""
    from search.engines.local.loading import load_model

    loaded = load_model(path, device="cpu", dtype="float32", trust_remote_code=False)
    loaded.eos_ids = frozenset()
    return LocalEngine(loaded)


async def _search_all(
    engine: LocalEngine, prompt: tuple[int, ...], schedules: Sequence[Schedule], together: bool
) -> Work:
    start = time.process_time()
    if together:
        done = await asyncio.gather(*(_search(engine, prompt, f"p{i}", s) for i, s in enumerate(schedules)))
    else:
        done = [await _search(engine, prompt, f"p{i}", s) for i, s in enumerate(schedules)]
    seconds = time.process_time() - start
    written, unique, computed = (sum(column) for column in zip(*done, strict=True))
    return Work(written, unique, computed, seconds)


async def _search(engine: LocalEngine, prompt: tuple[int, ...], name: str, schedule: Schedule) -> tuple[int, int, int]:
    """One tree through the engine: (written, unique, computed) tokens."""
    leaves = [Prefix(name, (Segment(0, prompt),))] * schedule.num_leaves
    key = written = 0
    for level in range(schedule.num_levels):
        if level:
            kept = schedule.kept(level)
            gone = [p.segments[-1].key for i, p in enumerate(leaves) if i not in set(kept)]
            leaves = [leaves[kept[i % len(kept)]] for i in range(schedule.num_leaves)]
            await engine.release(name, gone)
        calls = []
        for prefix, length in zip(leaves, schedule.lengths(level), strict=True):
            key += 1
            calls.append(_step(engine, prefix, Child(key, derive_seed(schedule.seed, key)), length))
        leaves = list(await asyncio.gather(*calls))
        written += sum(len(prefix.segments[-1].ids) for prefix in leaves)
    usage = engine.usage(name)
    await engine.release(name)
    assert usage.computed_tokens is not None
    return written, len(prompt) + written, usage.computed_tokens


async def _step(engine: LocalEngine, prefix: Prefix, child: Child, length: int) -> Prefix:
    sampling = Sampling(temperature=1.0, max_new_tokens=length, stop=())
    async with closing(engine.generate(prefix, [child], sampling)) as made:
        async for step in made:
            return Prefix(prefix.tree, (*prefix.segments, Segment(step.key, step.ids)))
    raise AssertionError("a step must come")


class _Baseline:
    """The same schedule by `transformers.generate` alone."""

    def __init__(self, path: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from search.hub import find_model

        # Both sides on one thread: the engine takes one for a model of this size, and several cost more CPU time.
        torch.set_num_threads(1)
        loader: Any = AutoModelForCausalLM
        self._model = loader.from_pretrained(find_model(path), dtype=torch.float32).eval()
        # No end token: the schedule alone says how long a step is.
        self._model.generation_config.eos_token_id = None
        self.vocab_size = int(self._model.get_input_embeddings().weight.shape[0])

    def search(self, prompt: tuple[int, ...], schedule: Schedule) -> Work:
        """One tree, level by level."""
        import torch

        start = time.process_time()
        torch.manual_seed(schedule.seed % 2**63)
        leaves = [prompt] * schedule.num_leaves
        written = computed = 0
        for level in range(schedule.num_levels):
            if level:
                kept = schedule.kept(level)
                leaves = [leaves[kept[i % len(kept)]] for i in range(schedule.num_leaves)]
            lengths = schedule.lengths(level)
            longest = max(map(len, leaves))
            ids = torch.tensor([(0,) * (longest - len(leaf)) + leaf for leaf in leaves])
            mask = torch.tensor([[0] * (longest - len(leaf)) + [1] * len(leaf) for leaf in leaves])
            made = self._model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_new_tokens=max(lengths),
                pad_token_id=0,
            )[:, longest:].tolist()
            leaves = [leaf + tuple(new[:n]) for leaf, new, n in zip(leaves, made, lengths, strict=True)]
            written += sum(lengths)
            computed += ids.numel() + len(leaves) * (max(lengths) - 1)
        return Work(written, len(prompt) + written, computed, time.process_time() - start)
