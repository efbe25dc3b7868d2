"""The engine that remembers: the same answers as without it, each asked for once, under whichever tree and key."""

import asyncio
from dataclasses import replace

import pytest
from fake_engine import FakeEngine, Fault
from markov import story_model

from search.engines.remembering import RememberingEngine
from search.errors import ConfigError, EngineError
from search.support.streams import closing
from search.types import Child, Prefix, Sampling, Segment


async def write(engine, tree, key, children, sampling=Sampling(1.0)):  # noqa: B008
    prefix = Prefix(tree, (Segment(key, engine.tokenizer.encode("Add 3.\n\n")),))
    async with closing(engine.generate(prefix, children, sampling)) as steps:
        return {step.key: step.ids async for step in steps}


def test_what_is_known_is_given_under_the_new_key_and_the_rest_is_asked_for():
    behind = FakeEngine()
    engine = RememberingEngine(behind)
    first = asyncio.run(write(engine, "one", 1, [Child(2, 7), Child(3, 8)]))
    again = asyncio.run(write(engine, "two", 5, [Child(6, 8), Child(7, 9), Child(8, 7)]))
    assert (again[6], again[8]) == (first[3], first[2])
    assert [call.keys for call in behind.calls] == [(2, 3), (7,)]
    assert again == asyncio.run(write(FakeEngine(), "two", 5, [Child(6, 8), Child(7, 9), Child(8, 7)]))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_seed_tells_steps_apart_above_temperature_0_alone(temperature):
    behind = FakeEngine(story_model())
    engine = RememberingEngine(behind)
    for seed in (7, 8):
        asyncio.run(write(engine, "t", 1, [Child(seed, seed)], Sampling(temperature)))
    assert len(behind.calls) == (1 if temperature == 0 else 2)
    asyncio.run(write(engine, "t", 1, [Child(9, 8)], replace(Sampling(temperature), max_new_tokens=1)))
    assert len(behind.calls) == (2 if temperature == 0 else 3), "other sampling is another step"


def test_readings_are_remembered_by_ids_and_forgotten_when_told():
    behind = FakeEngine()
    engine = RememberingEngine(behind)
    ids = behind.tokenizer.encode("Add 3.")

    async def read(tree):
        prefix = Prefix(tree, (Segment(1, ids[:1]), Segment(2, ids[1:])))
        return await engine.read(prefix, "hidden"), await engine.label_logprobs(prefix, ids)

    assert asyncio.run(read("a")) == asyncio.run(read("b"))
    assert len(behind.calls) == 2
    engine.forget()
    asyncio.run(read("c"))
    assert len(behind.calls) == 4


def test_an_error_is_not_remembered():
    engine = RememberingEngine(FakeEngine(faults=[Fault("generate", 1)]))
    with pytest.raises(EngineError):
        asyncio.run(write(engine, "t", 1, [Child(2, 7)]))
    assert asyncio.run(write(engine, "t", 1, [Child(2, 7)])).keys() == {2}


def test_an_engine_that_draws_as_it_likes_is_refused():
    behind = FakeEngine()
    behind._info = replace(behind.info, seeds="none")
    with pytest.raises(ConfigError, match="needs exact seeds, its are none"):
        RememberingEngine(behind)


def test_with_a_file_nothing_is_written_again_in_another_process_and_a_cut_line_is_dropped(tmp_path):
    file = tmp_path / "memory" / "draft.jsonl"
    first = asyncio.run(write(RememberingEngine(FakeEngine(), file, "w"), "one", 1, [Child(2, 7), Child(3, 8)]))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    behind = FakeEngine()
    engine = RememberingEngine(behind, file, "w")
    again = asyncio.run(write(engine, "two", 1, [Child(5, 7), Child(6, 8)]))
    assert sorted(again.values()) == sorted(first.values())
    assert len(behind.calls) == 1 and len(behind.calls[0].keys) == 1
    assert file.read_bytes().splitlines(keepends=True)[:-1] == lines[:-1]


def test_whoever_reads_log_probabilities_is_given_the_same_step(tmp_path):
    behind = FakeEngine()
    engine = RememberingEngine(behind, tmp_path / "steps.jsonl")

    async def both():
        prefix = Prefix("t", (Segment(1, behind.tokenizer.encode("Add 3.")),))
        found = []
        for sampling in (Sampling(), replace(Sampling(), logprobs=True)):
            async with closing(engine.generate(prefix, [Child(2, 7)], sampling)) as steps:
                found += [step async for step in steps]
        return found

    plain, read = asyncio.run(both())
    assert len(behind.calls) == 1
    assert plain.logprobs is None and len(read.logprobs) == len(read.ids)
    assert replace(read, logprobs=None) == plain


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"weights": "other", "dtype": null}\n', "keeps steps of"), ("no json\n", "cannot be read as kept steps")],
)
def test_a_file_of_another_model_or_a_broken_one_is_refused(tmp_path, content, said):
    file = tmp_path / "steps.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said):
        RememberingEngine(FakeEngine(), file, "w")
    assert file.read_text() == content
