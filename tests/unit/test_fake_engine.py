"""The fake engine: its distributions against known probabilities, its books against brute force, its faults."""

import asyncio
import math
import random
from collections import Counter

import pytest
from fake_engine import FakeEngine, Fault
from markov import EOS, FakeTokenizer, LabelModel, MarkovModel, hashed_reward, story_model

from search.errors import ConfigError, ContextOverflowError, EngineError
from search.protocols import Engine, Tokenizer
from search.support.streams import closing
from search.types import Child, FinishReason, Prefix, Sampling, Segment, Usage

ABC = MarkovModel.from_probabilities(
    [EOS, "a", "b", "c"],
    {"a": {"a": 0.5, "b": 0.3, "c": 0.2}, "b": {"c": 0.9, EOS: 0.1}},
    default={"a": 0.25, "b": 0.25, "c": 0.25, EOS: 0.25},
)
A, B, C = 1, 2, 3


def prefix(*segments, tree="t"):
    return Prefix(tree, tuple(Segment(key, tuple(ids)) for key, ids in segments))


async def write(engine, where, seeds, sampling, first_key=100):
    children = [Child(first_key + i, seed) for i, seed in enumerate(seeds)]
    async with closing(engine.generate(where, children, sampling)) as steps:
        return [step async for step in steps]


def chi_square(counts, probabilities, total):
    return sum((counts.get(t, 0) - total * p) ** 2 / (total * p) for t, p in probabilities.items() if p > 0)


@pytest.mark.parametrize(
    ("last", "sampling", "expected"),
    [
        (A, Sampling(1.0, 1.0, 1, ()), {A: 0.5, B: 0.3, C: 0.2}),
        (B, Sampling(1.0, 1.0, 1, ()), {C: 0.9, 0: 0.1}),
        (C, Sampling(1.0, 1.0, 1, ()), {0: 0.25, A: 0.25, B: 0.25, C: 0.25}),
        # Squares at temperature 0.5: 25, 9 and 4 of 38.
        (A, Sampling(0.5, 1.0, 1, ()), {A: 25 / 38, B: 9 / 38, C: 4 / 38}),
        # The smallest set of mass 0.7 is {a, b}.
        (A, Sampling(1.0, 0.7, 1, ()), {A: 5 / 8, B: 3 / 8}),
        (A, Sampling(0.0, 1.0, 1, ()), {A: 1.0}),
        # Equal logits: the lowest id.
        (C, Sampling(0.0, 1.0, 1, ()), {0: 1.0}),
    ],
)
def test_first_tokens_follow_the_known_distribution(last, sampling, expected):
    total = 4000
    steps = asyncio.run(write(FakeEngine(ABC), prefix((0, [last])), range(total), sampling))
    counts = Counter(step.ids[0] for step in steps)
    assert set(counts) == set(expected)
    # At most 3 degrees of freedom: passed by chance once in 1,000; the seeds are fixed.
    assert chi_square(counts, expected, total) < 16.3


def test_whole_steps_follow_the_chain():
    """Probability of every step of up to three tokens, by hand from the table."""
    total = 6000
    steps = asyncio.run(write(FakeEngine(ABC), prefix((0, [B])), range(total), Sampling(1.0, 1.0, 2, ())))
    expected = {(0,): 0.1, (C, 0): 0.225, (C, A): 0.225, (C, B): 0.225, (C, C): 0.225}
    counts = Counter(step.ids for step in steps)
    assert set(counts) == set(expected)
    assert chi_square(counts, expected, total) < 18.5
    assert {step.finish for step in steps if step.ids[-1] == 0} == {FinishReason.EOS}
    assert {step.finish for step in steps if step.ids[-1] != 0} == {FinishReason.LENGTH}


def test_label_logprobs_are_the_models_own():
    async def main():
        engine = FakeEngine(ABC)
        assert await engine.label_logprobs(prefix((0, [C, A])), [A, B, C, 0]) == pytest.approx(
            [math.log(0.5), math.log(0.3), math.log(0.2), -math.inf]
        )
        scorer = FakeEngine(LabelModel(reward=lambda ids: len(ids) / 10))
        good, bad = scorer.tokenizer.encode("+-")
        logprobs = await scorer.label_logprobs(prefix((0, [7, 8]), (1, [9])), [good, bad])
        assert logprobs == pytest.approx([math.log(0.3), math.log(0.7)])

    asyncio.run(main())
    assert 0 <= hashed_reward((1, 2)) < 1
    assert hashed_reward((1, 2)) != hashed_reward((1, 3))


def test_stops_end_a_step_and_stay_in_it():
    model = MarkovModel.from_probabilities(
        [EOS, "x", "\n", "y\nz"], {"x": {"\n": 0.5, "y\nz": 0.5}}, {"x": 0.5, "\n": 0.5}
    )
    steps = asyncio.run(write(FakeEngine(model), prefix((0, [1])), range(200), Sampling(1.0, 1.0, 20, ("\n\n", "\nz"))))
    for step in steps:
        if step.finish is FinishReason.STOP:
            # A stop string made of two tokens, or inside a single one.
            assert step.text.endswith(("\n\n", "y\nz"))
        else:
            assert "\n\n" not in step.text
            assert "\nz" not in step.text
    assert {step.text[-2:] for step in steps if step.finish is FinishReason.STOP} == {"\n\n", "\nz"}


def test_the_books_equal_brute_force():
    """Random growing, reading and pruning: held, peak and computed tokens against sets of computed paths."""

    async def main(seed):
        rng = random.Random(seed)
        engine = FakeEngine(story_model())
        root = engine.tokenizer.encode("2 + 2?\n\n")
        segments = {0: (None, root)}
        held = {}  # key -> tokens held
        computed = peak = sampled = 0

        def path(key):
            keys = []
            while key is not None:
                keys.append(key)
                key = segments[key][0]
            return keys[::-1]

        for calls in range(1, 31):
            where = rng.choice(list(segments))
            for key in path(where):
                computed += len(segments[key][1]) - held.get(key, 0)
                held[key] = len(segments[key][1])
            at = prefix(*((key, segments[key][1]) for key in path(where)))
            if rng.random() < 0.3:
                await engine.label_logprobs(at, [1])
            elif at.num_tokens < 200:
                first = max(segments) + 1
                seeds = [rng.getrandbits(64) for _ in range(rng.randint(1, 4))]
                for step in await write(engine, at, seeds, Sampling(1.0, 1.0, rng.randint(1, 9)), first):
                    segments[step.key] = (where, step.ids)
                    held[step.key] = len(step.ids) - 1
                    computed += len(step.ids) - 1
                    sampled += len(step.ids)
            peak = max(peak, sum(held.values()))
            usage = engine.usage("t")
            assert usage == Usage(computed, sampled, calls, sum(held.values()), peak, 0)
            if rng.random() < 0.3:
                gone = {key for key in segments if rng.random() < 0.1}
                await engine.release("t", gone | {10_000})
                held = {key: n for key, n in held.items() if not gone & set(path(key))}
                assert engine.usage("t").kv_tokens_held == sum(held.values())
        await engine.release("t")
        assert engine.usage("t") == Usage()

    for seed in range(20):
        asyncio.run(main(seed))


def test_other_ids_under_a_key_replace_what_was_held():
    async def main():
        engine = FakeEngine(ABC)
        await engine.label_logprobs(prefix((0, [A, B]), (1, [C, C, C])), [A])
        assert engine.usage("t").kv_tokens_held == 5
        await engine.label_logprobs(prefix((0, [A, C])), [A])
        assert engine.usage("t").kv_tokens_held == 2
        await engine.label_logprobs(prefix((0, [A, C]), (1, [C, C, C])), [A])
        assert engine.usage("t").kv_tokens_held == 5
        assert engine.usage("t").computed_tokens == 10

    asyncio.run(main())


def test_scripted_faults():
    async def main():
        faults = [
            Fault("label_logprobs", 2, "nan"),
            Fault("label_logprobs", 3, retryable=True),
            Fault("generate", 1),
            Fault("generate", 2, "hang"),
        ]
        engine = FakeEngine(ABC, faults=faults, name="sick")
        at = prefix((0, [A]))
        assert not math.isnan((await engine.label_logprobs(at, [A]))[0])
        assert all(math.isnan(x) for x in await engine.label_logprobs(at, [A, B]))
        with pytest.raises(EngineError, match="scripted error") as error:
            await engine.label_logprobs(at, [A])
        assert (error.value.retryable, error.value.endpoint) == (True, "sick")
        with pytest.raises(EngineError, match="scripted error") as error:
            await write(engine, at, [1], Sampling())
        assert not error.value.retryable
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await write(engine, at, [1], Sampling())
        assert len(await write(engine, at, [1], Sampling())) == 1
        assert engine.num_calls("generate") == 3
        assert engine.num_calls("label_logprobs") == 3
        assert engine.calls[-1].keys == (100,)
        assert engine.usage("t").num_calls == 6

    asyncio.run(main())


def test_closing_ends_a_call_that_never_answers():
    async def main():
        engine = FakeEngine(ABC, faults=[Fault("generate", 1, "hang")], seconds_per_call=0.001)
        call = asyncio.create_task(write(engine, prefix((0, [A])), [1], Sampling()))
        await asyncio.sleep(0.02)
        await engine.aclose()
        with pytest.raises(EngineError, match="closed"):
            await call

    asyncio.run(main())


def test_latency_is_slept():
    async def main():
        engine = FakeEngine(ABC, seconds_per_call=0.01, seconds_per_token=0.005)
        start = asyncio.get_running_loop().time()
        (step,) = await write(engine, prefix((0, [C])), [3], Sampling(1.0, 1.0, 1, ()))
        assert asyncio.get_running_loop().time() - start >= 0.014
        assert step.seconds >= 0.014

    asyncio.run(main())


def bad_requests():
    good, children = prefix((0, [A])), [Child(1, 0)]
    yield prefix((0, [])), children, Sampling()
    yield prefix(), children, Sampling()
    yield prefix((0, [A, 4])), children, Sampling()
    yield prefix((0, [-1])), children, Sampling()
    yield prefix((0, [A]), (0, [A])), children, Sampling()
    yield good, [], Sampling()
    yield good, [Child(1, 0), Child(1, 1)], Sampling()
    yield good, [Child(0, 0)], Sampling()
    yield good, [Child(1, -1)], Sampling()
    yield good, [Child(1, 2**64)], Sampling()
    yield good, children, Sampling(temperature=-1.0)
    yield good, children, Sampling(temperature=math.nan)
    yield good, children, Sampling(top_p=0.0)
    yield good, children, Sampling(max_new_tokens=0)
    yield good, children, Sampling(stop=("",))


def test_unknown_requests_raise():
    async def main():
        engine = FakeEngine(ABC)
        for where, children, sampling in bad_requests():
            with pytest.raises(EngineError):
                async for _ in engine.generate(where, children, sampling):
                    pytest.fail(f"answered {where} {children} {sampling}")
        for where, labels in ((prefix((0, [A])), [4]), (prefix((0, [A])), []), (prefix((0, [])), [A])):
            with pytest.raises(EngineError):
                await engine.label_logprobs(where, labels)
        with pytest.raises(ContextOverflowError):
            await FakeEngine(ABC, context_tokens=4).label_logprobs(prefix((0, [A] * 5)), [A])
        assert engine.usage("t") == Usage()

    asyncio.run(main())


def test_the_tokenizer():
    tokenizer = FakeEngine().tokenizer
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(FakeEngine(), Engine)
    text = "Tom has 3 (or 4?) nuts.\n\nAdd 3.\n\nThe answer is \\boxed{7}"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([token]) for token in ids[-2:]] == ["The answer is ", "\\boxed{7}"]
    (end,) = tokenizer.encode(EOS)
    assert tokenizer.eos_ids == {end}
    assert tokenizer.decode([end, *ids]) == text
    assert tokenizer.chat([{"role": "user", "content": "hi"}]) is None
    with pytest.raises(EngineError, match="é"):
        tokenizer.encode("café")
    for vocabulary in (["a"], [EOS, "a", "a"], [EOS, ""]):
        with pytest.raises(ConfigError):
            FakeTokenizer(vocabulary)


def test_a_wrong_table_is_refused():
    for rows, default in (({"z": {"a": 1.0}}, {"a": 1.0}), ({"a": {"z": 1.0}}, {"a": 1.0}), ({}, {"a": 0.0})):
        with pytest.raises(ConfigError, match="fake model"):
            MarkovModel.from_probabilities([EOS, "a"], rows, default)
