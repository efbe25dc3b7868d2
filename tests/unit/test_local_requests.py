"""How requests of the local engine end otherwise than by being answered: cancelled, released, refused, failed."""

import asyncio
import threading

import local_models
import pytest
import torch
from local_models import (
    CONTEXT,
    GREEDY,
    PROMPT,
    byte_tokenizer,
    engine,
    network,
    prompt,
    reference_greedy,
    run,
    write,
)

from search.engines.local import LocalEngine
from search.engines.local.loading import prepare
from search.engines.local.turns import shared_thread
from search.errors import ConfigError, ContextOverflowError, EngineError
from search.types import Child, FinishReason, Prefix, Sampling, Segment, Usage

pytestmark = pytest.mark.usefixtures("attention")


def test_cancelled_steps_leave_nothing_and_harm_no_one():
    sampling = Sampling(temperature=0.0, max_new_tokens=100, stop=())

    async def main() -> None:
        local = engine()
        kept = asyncio.create_task(write(local, prompt(), [Child(1, 1)], sampling))
        dropped = [
            asyncio.create_task(write(local, prompt(), [Child(10 * i, 1), Child(10 * i + 1, 1)], sampling))
            for i in range(1, 6)
        ]
        while local.usage("t").sampled_tokens < 33:
            await asyncio.sleep(0)
        for task in dropped:
            task.cancel()
        whole = reference_greedy("qwen2", PROMPT, 100)
        assert (await kept)[1].ids == whole
        await asyncio.gather(*dropped, return_exceptions=True)
        stream = local.generate(prompt(), [Child(90, 1), Child(91, 1)], GREEDY)
        first = await anext(stream)
        await stream.aclose()
        waiting = asyncio.create_task(local.label_logprobs(prompt("v"), [0]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await local.release("t", [])
        # What ended before its cancellation came stays; nothing half-written does.
        nodes = local._scheduler.trees["t"].nodes
        assert {0, 1, first.key} <= set(nodes)
        assert all(node.ids in (PROMPT, whole, first.ids) for node in nodes.values())
        assert local.usage("t").kv_tokens_held == sum(len(n.ids) - (n.key > 0) for n in nodes.values())
        assert not local._scheduler.lanes.rows
        assert not local._scheduler.requests
        await local.aclose()
        assert local.pool().held == 0

    run(main())


def test_releasing_a_node_aborts_what_is_written_below():
    sampling = Sampling(temperature=0.0, max_new_tokens=120, stop=())

    async def main() -> None:
        local = engine()
        step = (await write(local, prompt(), [Child(1, 1)], GREEDY))[1]
        below = asyncio.create_task(write(local, prompt("t", step), [Child(2, 2), Child(3, 3)], sampling))
        before = local.usage("t").sampled_tokens
        while local.usage("t").sampled_tokens < before + 4:
            await asyncio.sleep(0)
        # However busy the machine is, no more than a turn lies between this and the release.
        held = threading.Event()
        shared_thread().submit(held.wait)
        released = asyncio.create_task(local.release("t", [1]))
        await asyncio.sleep(0)
        held.set()
        await released
        steps = await below
        assert {s.finish for s in steps.values()} == {FinishReason.ABORT}
        whole = reference_greedy("qwen2", (*PROMPT, *step.ids), 120)
        assert all(s.ids == whole[: len(s.ids)] for s in steps.values())
        assert local.usage("t").kv_tokens_held == len(PROMPT)
        await local.release("t")
        assert local.usage("t") == Usage()
        await local.aclose()

    run(main())


def test_a_failing_model_is_an_error_for_everyone_and_the_engine_goes_on():
    async def main() -> None:
        local = engine()
        working = local._scheduler._forward
        local._scheduler._forward = lambda batch: 1 / 0  # type: ignore[assignment, return-value]
        results = await asyncio.gather(
            write(local, prompt(), [Child(1, 1)], GREEDY),
            local.label_logprobs(prompt("u"), [0]),
            return_exceptions=True,
        )
        assert all(isinstance(r, EngineError) and "division" in str(r) for r in results)
        local._scheduler._forward = working
        assert (await write(local, prompt(), [Child(1, 1)], GREEDY))[1].ids == reference_greedy("qwen2", PROMPT, 9)
        await local.aclose()

    run(main())


def test_a_model_that_gives_nan_is_an_error():
    model = network("llama")
    loaded = prepare(
        model, byte_tokenizer(), name="broken", attention=local_models.ATTENTION.replace("recorded", "paged")
    )
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")

    async def main() -> None:
        local = LocalEngine(loaded)
        with pytest.raises(EngineError, match="not finite"):
            await write(local, prompt(), [Child(1, 1)], GREEDY)
        await local.aclose()

    run(main())


def test_closing_ends_what_is_in_flight_with_an_error():
    async def main() -> None:
        local = engine()
        sampling = Sampling(temperature=0.0, max_new_tokens=130, stop=())
        tasks = [asyncio.create_task(write(local, prompt(), [Child(i, i)], sampling)) for i in range(1, 4)]
        await asyncio.sleep(0.02)
        await local.aclose()
        assert all(isinstance(r, EngineError) for r in await asyncio.gather(*tasks, return_exceptions=True))
        with pytest.raises(EngineError, match="closed"):
            await local.label_logprobs(prompt(), [0])
        await local.aclose()

    run(main())


def test_the_context_is_the_limit():
    async def main() -> None:
        local = engine()
        full = Prefix("x", (Segment(0, (1,) * CONTEXT),))
        with pytest.raises(ContextOverflowError):
            await write(local, full, [Child(1, 1)], GREEDY)
        assert len(await local.label_logprobs(full, [0])) == 1
        near = Prefix("y", (Segment(0, (1,) * (CONTEXT - 4)),))
        step = (await write(local, near, [Child(1, 1)], GREEDY))[1]
        assert (step.finish, len(step.ids)) == (FinishReason.CONTEXT, 4)
        await local.aclose()

    run(main())


@pytest.mark.parametrize(
    ("keys", "taken"), [((3, 4, 3), 3), ((0,), 0), ((2, 1), 1)], ids=["twice", "the root's", "the parent's"]
)
def test_a_child_key_that_is_taken_is_refused_and_nothing_is_done(keys, taken):
    async def main() -> None:
        local = engine()
        step = (await write(local, prompt(), [Child(1, 1)], GREEDY))[1]
        before = local.usage("t")
        with pytest.raises(EngineError, match=rf"^child key {taken} is taken: [^\n]+$"):
            await write(local, prompt("t", step), [Child(key, i) for i, key in enumerate(keys)], GREEDY)
        assert local.usage("t") == before
        # The step under the refused key is still there, and the same children under keys of their own are written.
        again = await write(local, prompt("t", step), [Child(8, 1), Child(9, 1)], GREEDY)
        assert {s.ids for s in again.values()} == {reference_greedy("qwen2", (*PROMPT, *step.ids), 9)}
        assert local.usage("t").recomputed_tokens == 0
        await local.aclose()

    run(main())


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="max_kv_tokens"):
        engine(max_kv_tokens=0)


def test_a_release_that_nobody_waits_for_any_more_harms_no_other_search():
    async def main():
        local = engine()
        await write(local, prompt("left"), [Child(1, 1)], GREEDY)
        held = threading.Event()
        shared_thread().submit(held.wait)
        kept = asyncio.create_task(write(local, prompt("kept"), [Child(1, 1)], GREEDY))
        left = asyncio.create_task(local.release("left", None))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        held.set()
        assert (await kept)[1].ids
        assert "left" not in local._scheduler.trees, "it is given back all the same"
        await local.aclose()

    asyncio.run(main())
