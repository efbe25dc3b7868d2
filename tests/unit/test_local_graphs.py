"""Turns that are recorded and replayed: which ones, and that nothing is read where it no longer lies."""

import asyncio
import logging

import pytest
from local_models import byte_tokenizer, engine, network, prompt, rerun, run

from search.engines.local.graphs import MOST_TOKENS, GraphedForward, rounded
from search.engines.local.loading import prepare
from search.engines.local.paged import Sizes
from search.studies.turns import count_ops
from search.support.streams import closing
from search.types import Child, Sampling, Segment


async def write(local, tree, seeds, num_tokens=12):
    async with closing(
        local.generate(
            prompt(tree), [Child(seed, seed) for seed in seeds], Sampling(max_new_tokens=num_tokens, stop=())
        )
    ) as steps:
        return {step.key: step.ids async for step in steps}


def test_nearly_all_turns_of_a_search_are_replayed():
    local = engine(attention="recorded")
    run(write(local, "t", range(1, 9), 100))
    forward = local._model.forward
    assert forward.num_replayed >= 90
    assert not forward.refusal


def test_a_pool_that_grew_is_read_where_it_lies_now():
    async def written(attention):
        local = engine(attention=attention)
        pool = local._scheduler._store._pool if attention == "recorded" else None
        generations = [pool.generation] if pool else []
        found = {}
        for number in range(6):
            # Steps stay held, so that the pool grows under recorded turns.
            found[number] = await write(local, f"t{number}", range(1, 9), 60)
            if pool:
                generations.append(pool.generation)
        assert len(set(generations)) > 2 if pool else True
        await local.aclose()
        return found

    assert run(written("recorded")) == run(written("cascade"))


def test_hidden_states_asked_for_later_are_the_models_own():
    async def read(attention):
        local = engine(attention=attention)
        found = []
        for layers in ((), (1,), (1,), (1,), (2,), (2,)):
            for at in range(3):
                found.append(await local.read(prompt("t", Segment(1 + len(found), (at, 5, 7))), "hidden", layers))
        await local.aclose()
        return found

    for ours, wanted in zip(run(read("recorded")), run(read("cascade")), strict=True):
        assert ours == pytest.approx(wanted, abs=1e-5)


def test_what_cannot_be_recorded_runs_all_the_same_and_says_so(caplog):
    def refuse(run):
        raise RuntimeError("operation not permitted when stream is capturing")

    loaded = prepare(network("qwen2"), byte_tokenizer(), name="tiny", attention="paged")
    loaded.forward = GraphedForward(loaded.forward, lambda: refuse)
    from search.engines.local import LocalEngine

    local = LocalEngine(loaded)
    with caplog.at_level(logging.WARNING):
        found = run(write(local, "t", range(1, 5), 30))
    assert found == run(write(engine(attention="cascade"), "t", range(1, 5), 30))
    assert [record.message for record in caplog.records if "kernel by kernel" in record.message] == [
        "its turns cannot be recorded as CUDA graphs; they run kernel by kernel, which is slower "
        "(operation not permitted when stream is capturing)"
    ]


def test_sizes_are_few_and_never_smaller():
    kinds = {rounded(Sizes(tokens, tokens + 3, 1)) for tokens in range(1, MOST_TOKENS + 1)}
    assert len(kinds) <= 48
    for tokens in range(1, MOST_TOKENS + 1):
        found = rounded(Sizes(tokens, 2 * tokens, 17))
        assert all(ours >= asked for ours, asked in zip(found, (tokens, 2 * tokens, 17), strict=True))
        assert found.num_tokens <= max(8, 1.25 * tokens)
    assert rounded(Sizes(MOST_TOKENS + 1, 1, 1)) is None


def test_operations_do_not_grow_with_the_trees_either():
    loaded = prepare(network("llama-gqa"), byte_tokenizer(), name="tiny", attention="paged")
    loaded.forward = GraphedForward(loaded.forward, lambda: rerun)
    counts = [count_ops(loaded, num_trees, seed=0) for num_trees in (1, 16, 64)]
    assert max(counts) <= 1.15 * min(counts)


def test_engines_side_by_side_do_not_read_each_others_turns():
    async def both():
        first, second = engine(attention="recorded"), engine("llama-gqa", attention="recorded")
        found = await asyncio.gather(write(first, "a", range(1, 7), 40), write(second, "b", range(1, 7), 40))
        return found

    async def alone():
        return [
            await write(engine(attention="cascade"), "a", range(1, 7), 40),
            await write(engine("llama-gqa", attention="cascade"), "b", range(1, 7), 40),
        ]

    assert run(both()) == run(alone())
