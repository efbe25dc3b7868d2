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
from typing import TYPE_CHECKING, Any, NamedTuple

from search.engines.local import LocalEngine
from search.setup.registry import model_path
from search.studies.measured import spread
from search.support.streams import closing
from search.tree import derive_seed
from search.types import Child, Prefix, Sampling, Segment

if TYPE_CHECKING:
    from search.engines.local.selfcheck import Attention

_PROMPT_TOKENS = 100


class Schedule(NamedTuple):
    """The shape of one search.

    Attributes:
        num_leaves: leaves of each level.
        num_levels: levels below the prompt.
        seed: of the steps' lengths and of the kept leaves.
        fanout: children of a kept leaf; one of this many leaves is kept.
        step_tokens: least and most tokens of a step.
    """

    num_leaves: int
    num_levels: int
    seed: int
    fanout: int = 4
    step_tokens: tuple[int, int] = (10, 30)

    def lengths(self, level: int) -> list[int]:
        """Tokens of each step of a level."""
        rng = random.Random(derive_seed("lengths", self.seed, level))
        return [rng.randint(*self.step_tokens) for _ in range(self.num_leaves)]

    def kept(self, level: int) -> list[int]:
        """Which leaves of a level go on."""
        rng = random.Random(derive_seed("kept", self.seed, level))
        return sorted(rng.sample(range(self.num_leaves), max(1, self.num_leaves // self.fanout)))


class Work(NamedTuple):
    """What a run did.

    Attributes:
        written: tokens of all steps.
        unique: tokens of the tree, the prompt included.
        computed: token positions that went through the model.
        cpu_seconds: of the whole process.
        seconds: by the clock.
    """

    written: int
    unique: int
    computed: int
    cpu_seconds: float
    seconds: float


def run(
    repeats: int = 5,
    seed: int = 0,
    policy: str | None = None,
    dtype: str = "float32",
    rows: tuple[int, ...] = (8, 16, 64),
) -> dict[str, Any]:
    """Measure the engine.

    Args:
        repeats: interleaved repeats of each comparison.
        seed: of the schedules.
        policy: a model by path or hub id, by the clock as `search.studies.model_engine` says; None: mini:target
            by CPU seconds.
        dtype: of that model.
        rows: of that model's flat runs.

    Returns:
        `figures`: `speedup_vs_generate` (tokens per CPU second, 64 leaves, 8 levels), `speedup_many_problems` (16
        problems of width 8 together against one by one), `work_ratio` (computed over unique tokens), the least and
        greatest ratio seen (`_min`, `_max`), both sides' tokens per CPU second, and `ops_per_turn_N` for N trees, as
        `search.studies.turns` counts them.
    """
    if policy is not None:
        from search.studies.model_engine import measure

        return measure(policy, dtype, rows, repeats, seed)
    from search.studies.turns import ops_per_turn

    measured = run_engine_bench(repeats=repeats, seed=seed)
    measured["figures"] |= ops_per_turn(model_path(measured["model"]), seed)
    return measured


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
    engine, num_threads = endless_engine(path)
    baseline = Baseline(path, num_threads=num_threads)
    prompt = make_prompt(baseline.vocab_size, seed)
    single, many, work_ratios, rates = [], [], [], []
    warm = Schedule(8, 2, seed)
    asyncio.run(search_all(engine, prompt, [warm], together=True))
    baseline.search(prompt, warm)
    for repeat in range(repeats):
        schedule = Schedule(num_leaves, num_levels, derive_seed(seed, repeat))
        ours = asyncio.run(search_all(engine, prompt, [schedule], together=True))
        theirs = baseline.search(prompt, schedule)
        assert ours.written == theirs.written
        rates.append((ours.written / ours.cpu_seconds, theirs.written / theirs.cpu_seconds))
        single.append(rates[-1][0] / rates[-1][1])
        work_ratios.append(ours.computed / ours.unique)
        problems = [Schedule(width, num_levels, derive_seed(seed, repeat, i)) for i in range(num_problems)]
        together = asyncio.run(search_all(engine, prompt, problems, together=True))
        alone = asyncio.run(search_all(engine, prompt, problems, together=False))
        assert together.written == alone.written
        many.append(alone.cpu_seconds / together.cpu_seconds)
    asyncio.run(engine.aclose())
    figures = {
        **spread("speedup_vs_generate", single),
        **spread("speedup_many_problems", many),
        "work_ratio": max(work_ratios),
        "tokens_per_cpu_second": statistics.median(ours for ours, _ in rates),
        "tokens_per_cpu_second_generate": statistics.median(theirs for _, theirs in rates),
    }
    return {
        "model": model,
        "repeats": repeats,
        "seed": seed,
        "num_leaves": num_leaves,
        "num_levels": num_levels,
        "num_problems": num_problems,
        "width": width,
        "figures": figures,
    }


def make_prompt(vocab_size: int, seed: int) -> tuple[int, ...]:
    """Drawn ids."""
    rng = random.Random(derive_seed("prompt", seed))
    return tuple(rng.randrange(vocab_size) for _ in range(_PROMPT_TOKENS))


def endless_engine(
    path: str, dtype: str = "float32", device: str = "cpu", attention: Attention = "auto", graphs: bool = True
) -> tuple[LocalEngine, int]:
    """An engine that no end token stops, the schedule alone says how long a step is; and its torch threads."""
    import torch

    from search.engines.local.loading import load_model

    loaded = load_model(path, device=device, dtype=dtype, trust_remote_code=False, attention=attention, graphs=graphs)
    loaded.tokenizer.eos_ids = frozenset()
    return LocalEngine(loaded), loaded.num_threads or torch.get_num_threads()


async def search_all(
    engine: LocalEngine, prompt: tuple[int, ...], schedules: Sequence[Schedule], together: bool
) -> Work:
    """The trees of these schedules through the engine, side by side or one by one."""
    clock = Clock()
    if together:
        done = await asyncio.gather(*(_search(engine, prompt, f"p{i}", s) for i, s in enumerate(schedules)))
    else:
        done = [await _search(engine, prompt, f"p{i}", s) for i, s in enumerate(schedules)]
    spent = clock.read()
    written, unique, computed = (sum(column) for column in zip(*done, strict=True))
    return Work(written, unique, computed, *spent)


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
            calls.append(step(engine, prefix, Child(key, derive_seed(schedule.seed, key)), length))
        leaves = list(await asyncio.gather(*calls))
        written += sum(len(prefix.segments[-1].ids) for prefix in leaves)
    usage = engine.usage(name)
    await engine.release(name)
    assert usage.computed_tokens is not None
    return written, len(prompt) + written, usage.computed_tokens


async def step(engine: LocalEngine, prefix: Prefix, child: Child, length: int) -> Prefix:
    """Write a child of exactly `length` tokens."""
    sampling = Sampling(temperature=1.0, max_new_tokens=length, stop=())
    async with closing(engine.generate(prefix, [child], sampling)) as generations:
        async for written in generations:
            return Prefix(prefix.tree, (*prefix.segments, Segment(written.key, written.ids)))
    raise AssertionError("a step must come")


class Baseline:
    """The same schedules by `transformers.generate` alone."""

    def __init__(self, path: str, dtype: str = "float32", *, num_threads: int, device: str = "cpu") -> None:
        """Load the model once more, untouched by the engine's attention.

        Args:
            path: of the model.
            dtype: of its weights.
            num_threads: torch threads, the engine's own number: on a small model several cost more CPU time.
            device: where it runs.
        """
        import torch
        import transformers

        from search.engines.huggingface.checkpoint import plain_model

        self.num_threads = num_threads
        self._model: Any = plain_model(path, dtype).to(device)
        self._device = device
        config_class: Any = transformers.GenerationConfig
        # No end token and no penalties of the checkpoint's own: the schedule alone says how long a step is.
        self._model.generation_config = config_class()
        self._torch = torch
        self.vocab_size = int(self._model.get_input_embeddings().weight.shape[0])

    def search(self, prompt: tuple[int, ...], *schedules: Schedule) -> Work:
        """Trees of one shape side by side, level by level, in one padded batch."""
        clock = Clock()
        leaves = [prompt] * sum(schedule.num_leaves for schedule in schedules)
        written = computed = 0
        for level in range(schedules[0].num_levels):
            if level:
                leaves = [
                    leaf for at, schedule in enumerate(schedules) for leaf in _chosen(leaves, at, schedule, level)
                ]
            lengths = [length for schedule in schedules for length in schedule.lengths(level)]
            added, num = self.generate(leaves, max(lengths), schedules[0].seed)
            leaves = [leaf + new[:n] for leaf, new, n in zip(leaves, added, lengths, strict=True)]
            written += sum(lengths)
            computed += num
        return Work(written, len(schedules) * len(prompt) + written, computed, *clock.read())

    def generate(
        self, prefixes: Sequence[tuple[int, ...]], num_tokens: int, seed: int
    ) -> tuple[list[tuple[int, ...]], int]:
        """Go on with each prefix in one padded batch.

        Returns:
            The new tokens, `num_tokens` each, and the token positions that went through the model.
        """
        torch = self._torch
        torch.set_num_threads(self.num_threads)
        torch.manual_seed(seed % 2**63)
        longest = max(map(len, prefixes))
        ids = torch.tensor([(0,) * (longest - len(prefix)) + prefix for prefix in prefixes], device=self._device)
        mask = torch.tensor(
            [[0] * (longest - len(prefix)) + [1] * len(prefix) for prefix in prefixes], device=self._device
        )
        written = self._model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=num_tokens,
            pad_token_id=0,
        )[:, longest:].tolist()
        return list(map(tuple, written)), ids.numel() + len(prefixes) * (num_tokens - 1)


def _chosen(leaves: Sequence[tuple[int, ...]], at: int, schedule: Schedule, level: int) -> list[tuple[int, ...]]:
    """The leaves that a level of the tree number `at` starts from."""
    own = leaves[at * schedule.num_leaves : (at + 1) * schedule.num_leaves]
    kept = schedule.kept(level)
    return [own[kept[i % len(kept)]] for i in range(schedule.num_leaves)]


class Clock:
    """From its making on."""

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        """CPU seconds of the process, and seconds."""
        return time.process_time() - self._start[0], time.perf_counter() - self._start[1]
