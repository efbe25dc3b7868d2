"""The local engine against transformers itself: exact steps, exact scores, exact counts."""

import asyncio
import random

import pytest
import torch
from local_models import (
    GREEDY,
    PROMPT,
    engine,
    network,
    prompt,
    reference_greedy,
    reference_logprobs,
    run,
    write,
)

from search.engines.local import LocalEngine
from search.errors import EngineError
from search.types import Child, Generation, Prefix, Sampling, Segment, Usage

pytestmark = pytest.mark.usefixtures("attention")

FAMILIES = ["llama", "llama-gqa", "qwen2", "mistral", "neox", "opt"]


async def grow(
    local: LocalEngine, tree: str, rng: random.Random, sampling: Sampling, levels: int = 4, width: int = 6
) -> list[tuple[tuple[int, ...], Generation]]:
    """A random search with pruning and duplicates; every step with the ids before it."""
    ids = tuple(rng.randrange(256) for _ in range(rng.randint(3, 20)))
    leaves = [prompt(tree, ids=ids)]
    found = []
    key = 0
    for _ in range(levels):
        jobs = []
        for _ in range(rng.randint(1, width)):
            number = rng.randint(1, 3)
            jobs.append((rng.choice(leaves), [Child(key + i + 1, rng.getrandbits(64)) for i in range(number)]))
            key += number
        chosen = {prefix.segments[-1].key for prefix, _ in jobs}
        dropped = [leaf.segments[-1].key for leaf in leaves if leaf.segments[-1].key not in chosen]
        await local.release(tree, dropped)
        results = await asyncio.gather(*(write(local, prefix, children, sampling) for prefix, children in jobs))
        leaves = []
        for (prefix, _), steps in zip(jobs, results, strict=True):
            # In the order of their keys: the order in which they end is the engine's business.
            for _, step in sorted(steps.items()):
                found.append((prefix.ids, step))
                leaves.append(Prefix(tree, (*prefix.segments, Segment(step.key, step.ids))))
    return found


@pytest.mark.parametrize("kind", FAMILIES)
def test_greedy_equals_generate_under_pruning_and_duplicates(kind, attention):
    async def main() -> None:
        local = engine(kind)
        assert local.info.details["attention"] == attention.replace("recorded", "paged")
        done = await asyncio.gather(*(grow(local, f"t{i}", random.Random(i), GREEDY) for i in range(3)))
        await local.aclose()
        for before, step in {(before, step.ids): (before, step) for steps in done for before, step in steps}.values():
            assert step.ids == reference_greedy(kind, before, GREEDY.max_new_tokens)

    run(main())


def test_a_long_step_beside_rows_that_join_in_its_middle_stays_exact():
    """More tokens than a lane has room for at first; over arenas they move there."""
    sampling = Sampling(temperature=0.0, max_new_tokens=130, stop=())

    async def main() -> None:
        local = engine("llama-gqa")
        long = asyncio.create_task(write(local, prompt(), [Child(1, 1)], sampling))
        others = []
        for i in range(12):
            await asyncio.sleep(0.005)
            at = prompt(f"u{i}", ids=PROMPT[: 3 + i])
            others.append((at, await write(local, at, [Child(1, i), Child(2, i)], GREEDY)))
        step = (await long)[1]
        assert step.ids == reference_greedy("llama-gqa", PROMPT, 130)
        assert local.usage("t").kv_tokens_held == len(PROMPT) + 129
        for at, steps in others:
            assert steps[1].ids == steps[2].ids == reference_greedy("llama-gqa", at.ids, 9)
        await local.aclose()

    run(main())


def test_seeded_steps_do_not_depend_on_batch_order_or_neighbours():
    sampling = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=24, stop=("\n",))
    draw = random.Random(1)
    seeds = [draw.getrandbits(64) for _ in range(32)]

    async def main() -> None:
        local = engine("qwen2")
        wanted = {s: (await write(local, prompt(f"a{s}"), [Child(1, s)], sampling))[1].ids for s in seeds}
        for size in (2, 7, 32):
            for at in range(0, 32, size):
                some = seeds[at : at + size][::-1]
                tree = f"b{size}-{at}"
                steps = await write(local, prompt(tree), [Child(i + 1, s) for i, s in enumerate(some)], sampling)
                assert [steps[i + 1].ids for i in range(len(some))] == [wanted[s] for s in some]
        many = await asyncio.gather(
            *(
                write(local, prompt(f"c{i}"), [Child(j + 1, s) for j, s in enumerate(seeds[i::4])], sampling)
                for i in range(4)
            ),
            *(grow(local, f"d{i}", random.Random(i), sampling) for i in range(4)),
        )
        for i in range(4):
            assert [many[i][j + 1].ids for j in range(8)] == [wanted[s] for s in seeds[i::4]]
        await local.aclose()

    run(main())


def test_a_whole_search_gives_the_same_steps_alone_and_beside_others():
    sampling = Sampling(temperature=1.0, max_new_tokens=12, stop=())

    async def main() -> None:
        local = engine("llama")
        alone = [await grow(local, f"a{i}", random.Random(i), sampling) for i in range(5)]
        together = await asyncio.gather(*(grow(local, f"b{i}", random.Random(i), sampling) for i in range(5)))
        narrow = engine("llama", max_rows=3, max_batch_tokens=5)
        squeezed = await asyncio.gather(*(grow(narrow, f"b{i}", random.Random(i), sampling) for i in range(5)))
        for one, two, three in zip(alone, together, squeezed, strict=True):
            assert [(b, s.key, s.ids) for b, s in one] == [(b, s.key, s.ids) for b, s in two]
            assert [(b, s.key, s.ids) for b, s in one] == [(b, s.key, s.ids) for b, s in three]
        await local.aclose()
        await narrow.aclose()

    run(main())


@pytest.mark.parametrize("kind", FAMILIES)
def test_label_logprobs_equal_the_models_own_from_nothing_and_step_by_step(kind):
    rng = random.Random(2)
    steps = [Segment(key, tuple(rng.randrange(256) for _ in range(rng.randint(1, 30)))) for key in range(1, 9)]
    labels = (3, 77, 255)

    async def main() -> None:
        local = engine(kind)
        fresh = await asyncio.gather(*(local.label_logprobs(prompt("f", step), labels) for step in steps))
        for step, found in zip(steps, fresh, strict=True):
            wanted = reference_logprobs(kind, (*PROMPT, *step.ids))[list(labels)].tolist()
            assert found == pytest.approx(wanted, abs=1e-5)
        deep: tuple[Segment, ...] = ()
        for step in steps[:4]:
            deep = (*deep, step)
            found = await local.label_logprobs(prompt("g", *deep), labels)
            ids = PROMPT + tuple(token for segment in deep for token in segment.ids)
            assert found == pytest.approx(reference_logprobs(kind, ids)[list(labels)].tolist(), abs=1e-5)
        usage = local.usage("g")
        assert usage.computed_tokens == len(PROMPT) + sum(len(step.ids) for step in steps[:4])
        assert usage.kv_tokens_held == usage.computed_tokens
        await local.aclose()

    run(main())


def test_the_same_prefix_asked_again_costs_nothing_while_its_logits_are_kept():
    async def main() -> None:
        local = engine()
        first = await local.label_logprobs(prompt(), [1, 2])
        assert await local.label_logprobs(prompt(), [1, 2]) == first
        assert local.usage("t") == Usage(20, 0, 2, 20, 20, 0)
        for node in local._scheduler.trees["t"].nodes.values():
            node.logits = None
        assert await local.label_logprobs(prompt(), [1, 2]) == pytest.approx(first, abs=1e-6)
        assert local.usage("t") == Usage(21, 0, 3, 20, 20, 1), "the last token alone is read again"
        step = (await write(local, prompt(), [Child(1, 3)], GREEDY))[1]
        assert step.ids == reference_greedy("qwen2", PROMPT, 9)
        await local.aclose()

    run(main())


def test_a_prompt_is_computed_once_however_many_wait_for_it():
    async def main() -> None:
        local = engine(max_batch_tokens=7)
        await asyncio.gather(
            *(write(local, prompt(), [Child(10 + i, i)], GREEDY) for i in range(8)),
            *(local.label_logprobs(prompt("t", Segment(50 + i, (i, i, i))), [0]) for i in range(8)),
        )
        assert local.usage("t").computed_tokens == len(PROMPT) + 8 * 8 + 8 * 3
        await local.aclose()

    run(main())


def test_two_engines_share_the_worker():
    async def main() -> None:
        one, two = engine("llama"), engine("neox")
        results = await asyncio.gather(
            *(write(one, prompt(f"t{i}"), [Child(1, 1)], GREEDY) for i in range(5)),
            *(write(two, prompt(f"t{i}"), [Child(1, 1)], GREEDY) for i in range(5)),
        )
        assert {r[1].ids for r in results[:5]} == {reference_greedy("llama", PROMPT, 9)}
        assert {r[1].ids for r in results[5:]} == {reference_greedy("neox", PROMPT, 9)}
        await one.aclose()
        await two.aclose()

    run(main())


@pytest.mark.parametrize("kind", ["qwen2", "neox", "opt", "llama-gqa"])
def test_hidden_states_of_any_layer_are_those_of_the_models_own_forward(kind):
    ids = tuple(range(40, 60))
    local = engine(kind)

    async def read():
        at = Prefix("a", (Segment(0, ids[:9]), Segment(1, ids[9:])))
        last = await local.read(at, "hidden")
        both = await local.read(at, "hidden", (1, 2))
        again = local.usage("a").recomputed_tokens
        assert await local.read(at, "hidden", (1,)) == both[: len(both) // 2]
        # A layer that nobody asked for before is read once more, from then on it is kept with all.
        assert again == 1 == local.usage("a").recomputed_tokens
        for wrong in ((3,), (0,), (1, -1)):
            with pytest.raises(EngineError, match="this model has 2"):
                await local.read(at, "hidden", wrong)
        await local.aclose()
        return last, both

    last, both = run(read())
    with torch.inference_mode():
        states = network(kind)(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert both == pytest.approx(torch.cat([states[1][0, -1], states[2][0, -1]]).tolist(), abs=1e-4)
    assert last == pytest.approx(both[len(both) // 2 :], abs=1e-4)


def test_a_read_at_a_steps_end_computes_what_its_children_start_from():
    local = engine("qwen2")

    async def body():
        prompt = Prefix("t", (Segment(0, tuple(range(40, 50))),))
        (step,) = (await write(local, prompt, [Child(1, 5)], Sampling(max_new_tokens=6))).values()
        at = Prefix("t", (*prompt.segments, Segment(1, step.ids)))
        await local.read(at, "hidden", (1,))
        before = local.usage("t")
        # Ten of the prompt, five of the step as it was written, and its last one for the read.
        assert before.computed_tokens == 10 + len(step.ids) and before.recomputed_tokens == 0
        (child,) = (await write(local, at, [Child(2, 6)], Sampling(max_new_tokens=4))).values()
        assert local.usage("t").computed_tokens == before.computed_tokens + len(child.ids) - 1
        await local.aclose()

    run(body())
