"""A full pool: waiting, eviction, preemption, and never a hang; results stay what they are with room for all."""

import asyncio
import random

import pytest
from local_models import GREEDY, PROMPT, engine, prompt, reference_greedy, reference_logprobs, run, write
from test_local_engine import grow

from search.errors import EngineError
from search.types import Child, Prefix, Sampling, Segment

HOT = Sampling(temperature=1.0, max_new_tokens=12, stop=())

pytestmark = pytest.mark.usefixtures("attention")


@pytest.mark.parametrize("max_kv_tokens", [90, 150, 300])
def test_searches_under_a_small_pool_give_the_same_steps(max_kv_tokens):
    async def search(local, tree, seed):
        found = await grow(local, tree, random.Random(100 + seed), HOT, levels=3, width=4)
        usage = local.usage(tree)
        assert usage.computed_tokens - usage.recomputed_tokens <= usage.sampled_tokens + 20
        await local.release(tree)
        return {(before, step.key, step.ids) for before, step in found}

    async def main() -> None:
        free = engine("llama")
        wanted = await asyncio.gather(*(search(free, f"t{i}", i) for i in range(6)))
        tight = engine("llama", max_kv_tokens=max_kv_tokens)
        assert await asyncio.gather(*(search(tight, f"t{i}", i) for i in range(6))) == wanted
        pool = tight.pool()
        assert pool.held == 0
        assert 0 < pool.peak <= max_kv_tokens
        assert free.pool().peak > max_kv_tokens
        await free.aclose()
        await tight.aclose()

    run(main())


def test_rows_that_outgrow_the_pool_are_put_back_and_finish():
    sampling = Sampling(temperature=0.0, max_new_tokens=60, stop=(), logprobs=True)

    async def main() -> None:
        local = engine("qwen2", max_kv_tokens=150)
        steps = await write(local, prompt(), [Child(i, i) for i in range(1, 9)], sampling)
        greedy = reference_greedy("qwen2", PROMPT, 60)
        assert {step.ids for step in steps.values()} == {greedy}
        wanted = [reference_logprobs("qwen2", (*PROMPT, *greedy[:n]))[token].item() for n, token in enumerate(greedy)]
        for step in steps.values():
            assert step.logprobs == pytest.approx(wanted, abs=1e-5)
        assert local.pool().peak <= 150
        assert local.usage("t").recomputed_tokens > 0
        await local.aclose()

    run(main())


def test_idle_trees_are_evicted_and_computed_again():
    async def main() -> None:
        local = engine("qwen2", max_kv_tokens=64)
        first = await local.label_logprobs(prompt("a"), [5])
        for tree in "bcdef":
            await local.label_logprobs(prompt(tree), [5])
        assert local.usage("a").kv_tokens_held == 0
        step = Segment(1, (9, 8, 7))
        found = await local.label_logprobs(prompt("a", step), [5])
        assert found == pytest.approx(reference_logprobs("qwen2", (*PROMPT, 9, 8, 7))[[5]].tolist(), abs=1e-5)
        assert local.usage("a").recomputed_tokens == len(PROMPT)
        assert await local.label_logprobs(prompt("a"), [5]) == pytest.approx(first, abs=1e-5)
        assert local.pool().peak <= 64
        await local.aclose()

    run(main())


def test_what_can_never_fit_fails_at_once_and_others_go_on():
    async def main() -> None:
        local = engine("qwen2", max_kv_tokens=30)
        large = Prefix("large", (Segment(0, (1,) * 40),))
        results = await asyncio.gather(
            write(local, large, [Child(1, 1)], GREEDY),
            local.label_logprobs(large, [0]),
            write(local, prompt(), [Child(1, 1)], GREEDY),
            return_exceptions=True,
        )
        for result in results[:2]:
            assert isinstance(result, EngineError)
            assert "max_kv_tokens" in str(result)
        assert results[2][1].ids == reference_greedy("qwen2", PROMPT, 9)
        with pytest.raises(EngineError, match="max_kv_tokens"):
            await write(local, prompt("u"), [Child(1, 1)], Sampling(0.0, 1.0, 30, ()))
        await local.aclose()

    run(main())


def test_one_tree_wider_than_the_pool_still_ends():
    """Nothing is released: finished siblings must give way to each other's successors."""

    async def main() -> None:
        local = engine("llama", max_kv_tokens=70)
        steps = await write(local, prompt(), [Child(i, i) for i in range(1, 17)], GREEDY)
        below = await asyncio.gather(
            *(write(local, prompt("t", step), [Child(100 + step.key, 1)], GREEDY) for step in steps.values())
        )
        whole = reference_greedy("llama", PROMPT, 18)
        assert {step.ids for step in steps.values()} == {whole[:9]}
        assert {result[100 + key].ids for key, result in zip(steps, below, strict=True)} == {whole[9:]}
        assert local.pool().peak <= 70
        await local.aclose()

    run(main())


def test_an_older_tree_that_never_comes_back_does_not_block_for_ever():
    async def main() -> None:
        local = engine("llama", max_kv_tokens=40)
        await write(local, prompt("old"), [Child(1, 1)], GREEDY)
        step = (await write(local, prompt("new"), [Child(1, 1)], GREEDY))[1]
        assert step.ids == reference_greedy("llama", PROMPT, 9)
        assert local.usage("old").kv_tokens_held == 0
        await local.aclose()

    run(main())


def test_older_trees_are_served_first():
    async def main() -> None:
        local = engine("llama", max_kv_tokens=60)
        order: list[str] = []

        async def one(tree: str) -> None:
            step = (await write(local, prompt(tree), [Child(1, 1)], GREEDY))[1]
            await write(local, prompt(tree, step), [Child(2, 2), Child(3, 3)], GREEDY)
            order.append(tree)
            await local.release(tree)

        await asyncio.gather(*(one(tree) for tree in "abcdef"))
        assert order == sorted(order)
        await local.aclose()

    run(main())


@pytest.mark.parametrize("limits", [{"max_rows": 2}, {"max_kv_tokens": 24}])
def test_steps_of_one_token_make_room_for_those_that_wait(limits):
    """Rows that start and end in one turn once left the queue waiting for ever."""

    async def main() -> None:
        local = engine("qwen2", **limits)
        one = Sampling(temperature=1.0, max_new_tokens=1, stop=())
        steps = await write(local, prompt(), [Child(i, i) for i in range(1, 8)], one)
        assert len(steps) == 7
        await local.aclose()

    run(main())
