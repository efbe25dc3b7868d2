"""The contract of every engine: the same tests for all. A new engine joins by a line in CASES.

A case opens an engine whose vocabulary can be listed, whose context holds 96 tokens, and whose texts end or reach the
stop string within some ten tokens, so that a few dozen samples show every way of ending.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from contract_model import CONTEXT, SGLANG_POSITIONS, build
from fake_engine import FakeEngine
from fake_server import Script, serving
from markov import EOS, STEP_END, story_model

from search.errors import ContextOverflowError, EngineError
from search.protocols import Engine, Tokenizer
from search.support.streams import closing
from search.types import Child, FinishReason, Generation, Prefix, Sampling, Segment, Usage


@dataclass(frozen=True)
class Case:
    """How to open an engine, given a folder with a tiny checkpoint, and what to ask of it.

    `recomputed_tokens`: of a prefix that it holds, for each step and each reading; servers want the last one's logits.
    `counts`: it says what it computes. `reads_hidden`: it gives hidden states. `tempered_logprobs`: its
    log-probabilities are those of the distribution that it drew from.
    """

    open: Callable[[Path], AbstractAsyncContextManager[Engine]]
    prompt: str = "How many?\n\n"
    eos_text: str = EOS
    folder: Path = Path()
    recomputed_tokens: int = 0
    counts: bool = True
    reads_hidden: bool = True
    tempered_logprobs: bool = False


@asynccontextmanager
async def open_fake(folder: Path) -> AsyncIterator[Engine]:
    engine = FakeEngine(story_model(stray_eos=0.3), context_tokens=CONTEXT)
    yield engine
    await engine.aclose()


def open_local(attention: str) -> Callable[[Path], AbstractAsyncContextManager[Engine]]:
    """The in-process engine; its attention."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Engine]:
        from search.engines.local import LocalEngine

        engine = LocalEngine.load(str(folder), attention=attention)
        yield engine
        await engine.aclose()

    return opened


def open_remote(kind: str, **script: object) -> Callable[[Path], AbstractAsyncContextManager[Engine]]:
    """An engine over a fake server of its own, over real HTTP."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Engine]:
        from search.engines.remote import OpenAIEngine, SglangEngine

        with serving(Script(**script)) as server:
            engine = {"sglang": SglangEngine, "openai": OpenAIEngine}[kind].connect(str(folder), server.url)
            yield engine
            await engine.aclose()

    return opened


CASES = {
    "fake": Case(open_fake),
    "local": Case(open_local("cascade")),
    "local-paged": Case(open_local("paged")),
    "sglang": Case(open_remote("sglang"), recomputed_tokens=1),
    "sglang-seeded": Case(open_remote("sglang", seeds=True), recomputed_tokens=1),
    "openai": Case(open_remote("openai"), counts=False, reads_hidden=False),
    "openai-seeded": Case(open_remote("openai", seeds=True), counts=False, reads_hidden=False),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def served_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the positions that SGLang wants for a context of `CONTEXT` tokens."""
    folder = tmp_path_factory.mktemp("served")
    build(folder, SGLANG_POSITIONS)
    return folder


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "fake":
        return CASES["fake"]
    name = "checkpoint" if request.param.startswith("local") else "served_checkpoint"
    return replace(CASES[request.param], folder=request.getfixturevalue(name))


def run(case: Case, body) -> None:
    async def main() -> None:
        async with case.open(case.folder) as engine:
            await body(engine, Prompt(case, engine))

    asyncio.run(main())


class Prompt:
    """Prefixes of the case's prompt."""

    def __init__(self, case: Case, engine: Engine) -> None:
        self.ids = engine.tokenizer.encode(case.prompt)

    def __call__(self, tree: str = "t", *more: Generation) -> Prefix:
        return Prefix(tree, (Segment(0, self.ids), *(Segment(step.key, step.ids) for step in more)))

    def long(self, num_tokens: int) -> Prefix:
        ids = (self.ids * num_tokens)[:num_tokens]
        return Prefix("long", (Segment(0, ids),))


SAMPLING = Sampling(1.0, 1.0, 12, (STEP_END,))
FREE = Sampling(1.0, 1.0, 30, ())


def children(n: int, first: int = 1, seed: int = 1000) -> list[Child]:
    return [Child(first + i, seed + i) for i in range(n)]


async def write(engine: Engine, prefix: Prefix, wanted: list[Child], sampling: Sampling = SAMPLING):
    """All steps, by key; each child must be answered exactly once."""
    steps: dict[int, Generation] = {}
    async with closing(engine.generate(prefix, wanted, sampling)) as made:
        async for step in made:
            assert step.key not in steps
            steps[step.key] = step
    assert set(steps) == {child.key for child in wanted}
    return steps


def test_it_is_an_engine(case):
    async def body(engine, prompt):
        assert isinstance(engine, Engine)
        assert isinstance(engine.tokenizer, Tokenizer)
        assert engine.info.context_tokens == CONTEXT
        assert engine.info.seeds in ("exact", "server", "none")
        assert all(0 <= token < engine.info.vocab_size for token in engine.tokenizer.eos_ids)

    run(case, body)


def test_steps_are_consistent_and_end_as_they_say(case):
    async def body(engine, prompt):
        decode, eos_ids = engine.tokenizer.decode, engine.tokenizer.eos_ids
        steps = (await write(engine, prompt(), children(64))).values()
        assert {step.finish for step in steps} >= {FinishReason.STOP, FinishReason.EOS}
        for step in steps:
            assert step.ids
            assert all(0 <= token < engine.info.vocab_size for token in step.ids)
            assert step.text == decode(step.ids)
            assert case.eos_text not in step.text
            assert step.seconds >= 0
            assert len(step.ids) <= SAMPLING.max_new_tokens
            assert not eos_ids & set(step.ids[:-1])
            assert STEP_END not in decode(step.ids[:-1]).lstrip("\n"), "nothing is written after the stop string"
            assert (step.finish is FinishReason.EOS) == (step.ids[-1] in eos_ids)
            assert (step.finish is FinishReason.STOP) == (STEP_END in step.text.lstrip("\n"))
            if step.finish is FinishReason.LENGTH:
                assert len(step.ids) == SAMPLING.max_new_tokens

    run(case, body)


def test_a_step_of_one_token(case):
    async def body(engine, prompt):
        sampling = Sampling(1.0, 1.0, 1, ())
        for step in (await write(engine, prompt(), children(8), sampling)).values():
            assert len(step.ids) == 1
            assert step.finish is (FinishReason.EOS if step.ids[0] in engine.tokenizer.eos_ids else FinishReason.LENGTH)

    run(case, body)


def test_the_last_token_may_be_the_stop(case):
    """A step that is complete at its limit has stopped, not been cut."""

    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(64))
        stopped = next(step for step in steps.values() if step.finish is FinishReason.STOP)
        limited = Sampling(1.0, 1.0, len(stopped.ids), (STEP_END,))
        if engine.info.seeds == "exact":
            again = await write(engine, prompt("u"), [Child(1, 1000 + stopped.key - 1)], limited)
            assert again[1].ids == stopped.ids
            assert again[1].finish is FinishReason.STOP

    run(case, body)


def test_a_step_depends_on_its_seed_alone(case):
    """Not on its key, its tree, its siblings, their order, or what runs beside it."""

    async def body(engine, prompt):
        if engine.info.seeds != "exact":
            return  # it promises nothing of the kind, and says so
        alone = [(await write(engine, prompt(f"t{i}"), [Child(50, 1000 + i)]))[50].ids for i in range(12)]
        together = await write(engine, prompt("all"), children(12)[::-1])
        assert [together[1 + i].ids for i in range(12)] == alone
        many = await asyncio.gather(
            *(write(engine, prompt(f"u{i}"), children(4, 1, 1000 + i)) for i in range(9)),
            *(engine.label_logprobs(prompt(f"v{i}"), [0]) for i in range(4)),
        )
        for i, steps in enumerate(many[:9]):
            assert [steps[1 + j].ids for j in range(4)] == alone[i : i + 4]
        assert len({*alone}) > 1

    run(case, body)


def test_greedy_takes_the_likeliest_token(case):
    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(3), Sampling(0.0, 1.0, 6, ()))
        assert len({step.ids for step in steps.values()}) == 1
        ids = list(prompt.ids)
        for number, token in enumerate(steps[1].ids):
            at = Prefix(f"read{number}", (Segment(0, tuple(ids)),))
            logprobs = await engine.label_logprobs(at, range(engine.info.vocab_size))
            assert logprobs[token] >= max(logprobs) - 1e-5
            ids.append(token)

    run(case, body)


def test_log_probabilities_are_the_models_own_and_given_where_asked_for(case):
    """At temperature 1 and without a nucleus, however the tokens were drawn."""

    async def body(engine, prompt):
        drawn = {"temperature": 1.0} if case.tempered_logprobs else {"temperature": 0.5, "top_p": 0.9}
        sampling = replace(SAMPLING, **drawn)
        assert all(step.logprobs is None for step in (await write(engine, prompt(), children(2), sampling)).values())
        for step in (await write(engine, prompt("u"), children(4), replace(sampling, logprobs=True))).values():
            assert step.logprobs is not None
            ids = list(prompt.ids)
            for number, token in enumerate(step.ids):
                at = Prefix(f"read{step.key}-{number}", (Segment(0, tuple(ids)),))
                (wanted,) = await engine.label_logprobs(at, [token])
                assert step.logprobs[number] == pytest.approx(wanted, abs=2e-5)
                ids.append(token)
            assert len(step.logprobs) == len(step.ids)

    run(case, body)


def test_label_logprobs_are_normalised_over_the_vocabulary(case):
    async def body(engine, prompt):
        everything = range(engine.info.vocab_size)
        logprobs = await engine.label_logprobs(prompt(), everything)
        assert len(logprobs) == engine.info.vocab_size
        assert all(logprob <= 0 for logprob in logprobs)
        assert math.fsum(map(math.exp, logprobs)) == pytest.approx(1, abs=1e-4)
        some = [5, 2, 5, 1]
        assert await engine.label_logprobs(prompt(), some) == pytest.approx(
            [logprobs[label] for label in some], abs=1e-5
        )

    run(case, body)


def test_segments_do_not_change_what_is_read(case):
    """One segment or many, computed now or taken from the cache: the same prefix, the same probabilities."""

    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(4))
        for step in steps.values():
            at = prompt("t", step)
            cached = await engine.label_logprobs(at, [0, 1, 2, 3])
            fresh = await engine.label_logprobs(Prefix(f"f{step.key}", (Segment(7, at.ids),)), [0, 1, 2, 3])
            assert cached == pytest.approx(fresh, abs=1e-4)

    run(case, body)


def test_children_continue_a_child(case):
    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(64))
        parents = [step for step in steps.values() if step.finish is FinishReason.STOP][:3]
        assert parents
        below = await asyncio.gather(
            *(write(engine, prompt("t", step), children(3, 100 * step.key)) for step in parents)
        )
        if engine.info.seeds == "exact":
            for step, grown in zip(parents, below, strict=True):
                at = Prefix(f"flat{step.key}", (Segment(3, (*prompt.ids, *step.ids)),))
                flat = await write(engine, at, children(3, 100 * step.key))
                assert {key: one.ids for key, one in flat.items()} == {key: one.ids for key, one in grown.items()}

    run(case, body)


def test_what_no_model_wrote_may_stand_behind_a_step(case):
    """As the end of a thought that is closed: a segment of its own, computed once, gone with the step."""

    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(64))
        parent = next(step for step in steps.values() if step.finish is FinishReason.STOP)
        before, forced = engine.usage("t"), prompt.ids[:2]
        at = Prefix("t", (*prompt("t", parent).segments, Segment(~parent.key, forced)))
        below = await write(engine, at, children(3, 100))
        if engine.info.seeds == "exact":
            flat = await write(engine, Prefix("flat", (Segment(3, at.ids),)), children(3, 100))
            assert {key: step.ids for key, step in flat.items()} == {key: step.ids for key, step in below.items()}
        usage = engine.usage("t")
        if usage.computed_tokens is not None:
            least = 1 + len(forced) + sum(len(step.ids) - 1 for step in below.values())
            most = least + case.recomputed_tokens * (1 + 3 + 3)  # a request, its samples, and those that had to go on
            assert least <= usage.computed_tokens - before.computed_tokens <= most
        await engine.release("t", {parent.key})
        if usage.kv_tokens_held is not None:
            assert engine.usage("t").kv_tokens_held == before.kv_tokens_held - len(parent.ids) + 1

    run(case, body)


def test_other_ids_under_a_key_replace_the_old_ones(case):
    async def body(engine, prompt):
        first = await engine.label_logprobs(prompt(), [0, 1, 2])
        other_ids = (prompt.ids[-1], *prompt.ids[:-1])
        other = await engine.label_logprobs(Prefix("t", (Segment(0, other_ids),)), [0, 1, 2])
        clean = await engine.label_logprobs(Prefix("clean", (Segment(0, other_ids),)), [0, 1, 2])
        assert other == pytest.approx(clean, abs=1e-4)
        assert await engine.label_logprobs(prompt(), [0, 1, 2]) == pytest.approx(first, abs=1e-4)

    run(case, body)


def test_every_unique_token_is_computed_once(case):
    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(64))
        parents = [step for step in steps.values() if step.finish is FinishReason.STOP][:4]
        assert parents
        grown = await asyncio.gather(
            *(write(engine, prompt("t", step), children(2, 100 * step.key)) for step in parents),
            *(engine.label_logprobs(prompt("t", step), [0]) for step in parents),
        )
        last = [step for result in grown[: len(parents)] for step in result.values()]
        usage = engine.usage("t")
        written = sum(len(step.ids) for step in [*steps.values(), *last])
        assert usage.sampled_tokens == written
        assert usage.num_calls == 1 + 2 * len(parents)
        assert (usage.computed_tokens is not None) is case.counts
        if usage.computed_tokens is None:
            return
        # A step's last token is computed when the step is continued: those of `last` and of the other steps are not.
        pending = len(last) + len(steps) - len(parents)
        least = len(prompt.ids) + written - pending
        # Each sample and each call of a server computes the last token of its prefix for itself.
        again = case.recomputed_tokens * (len(steps) + len(last) + usage.num_calls)
        assert least <= usage.computed_tokens <= least + again
        assert not usage.recomputed_tokens
        if usage.kv_tokens_held is not None:
            assert usage.kv_tokens_held == usage.computed_tokens
            assert usage.kv_tokens_peak is not None
            assert usage.kv_tokens_peak >= usage.kv_tokens_held

    run(case, body)


def test_release_gives_back_a_branch_and_is_idempotent(case):
    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(64))
        parent = next(step for step in steps.values() if step.finish is FinishReason.STOP)
        below = await write(engine, prompt("t", parent), children(2, 100))
        held = engine.usage("t").kv_tokens_held
        await engine.release("t", [])
        await engine.release("t", [9999])
        await engine.release("nobody", [0])
        await engine.release("nobody")
        assert engine.usage("t").kv_tokens_held == held
        for _ in range(2):
            await engine.release("t", {parent.key})
            if held is not None:
                gone = len(parent.ids) + sum(len(step.ids) - 1 for step in below.values())
                assert engine.usage("t").kv_tokens_held == held - gone
        # What was given back can be asked for again.
        again = await write(engine, prompt("t", parent), children(2, 100))
        if engine.info.seeds == "exact":
            assert [step.ids for step in again.values()] == [below[key].ids for key in again]
        for _ in range(2):
            await engine.release("t")
            assert engine.usage("t") in (Usage(), unknowns(Usage()))

    run(case, body)


def unknowns(usage: Usage) -> Usage:
    """The usage of an engine that cannot know its cache."""
    return Usage(None, usage.sampled_tokens, usage.num_calls, None, None, None)


def test_steps_released_while_they_are_written_end_as_aborted(case):
    async def body(engine, prompt):
        for keys in (None, {0}, {1, 2, 3, 4}):
            steps = []
            async with closing(engine.generate(prompt(), children(24, 1), Sampling(1.0, 1.0, 60, ()))) as made:
                async for step in made:
                    if not steps:
                        await engine.release("t", keys)
                    steps.append(step)
            assert sorted(step.key for step in steps) == list(range(1, 25)), "each child is answered once"
            for step in steps:
                assert step.text == engine.tokenizer.decode(step.ids)
            aborted = {step.key for step in steps if step.finish is FinishReason.ABORT}
            assert keys is None or keys == {0} or aborted <= keys
            if keys is None:
                assert engine.usage("t") in (Usage(), unknowns(Usage()))
        await engine.release("t")

    run(case, body)


def test_usage_of_an_unknown_tree_is_zero(case):
    async def body(engine, prompt):
        assert engine.usage("never seen") in (Usage(), unknowns(Usage()))
        await write(engine, prompt("one"), children(2))
        assert engine.usage("other") in (Usage(), unknowns(Usage()))

    run(case, body)


def test_the_context_is_a_limit(case):
    async def body(engine, prompt):
        for num_tokens in (CONTEXT, CONTEXT + 1, 5 * CONTEXT):
            with pytest.raises(ContextOverflowError):
                await write(engine, prompt.long(num_tokens), children(2))
        with pytest.raises(ContextOverflowError):
            await engine.label_logprobs(prompt.long(CONTEXT + 1), [0])
        assert len(await engine.label_logprobs(prompt.long(CONTEXT), [0])) == 1
        # Room for three tokens: whoever does not end by itself is ended by the context.
        steps = (await write(engine, prompt.long(CONTEXT - 3), children(16), FREE)).values()
        assert any(step.finish is FinishReason.CONTEXT for step in steps)
        for step in steps:
            assert len(step.ids) <= 3
            assert step.finish in (FinishReason.CONTEXT, FinishReason.EOS)
            assert (step.finish is FinishReason.CONTEXT) == (step.ids[-1] not in engine.tokenizer.eos_ids)
        await write(engine, prompt(), children(1))

    run(case, body)


def test_closing_the_iterator_stops_the_rest(case):
    async def body(engine, prompt):
        async with closing(engine.generate(prompt(), children(16), FREE)) as steps:
            first = await anext(steps)
        usage = engine.usage("t")
        if usage.kv_tokens_held is not None:
            assert usage.kv_tokens_held <= len(prompt.ids) + 16 * len(first.ids)
        # The finished step can be continued, and the others can be asked for again.
        await write(engine, prompt("t", first), children(2, 100))
        await write(engine, prompt(), children(16, 200), FREE)

    run(case, body)


def test_cancelling_the_reader_leaves_the_engine_usable(case):
    async def body(engine, prompt):
        for pause in (0.0, 0.001, 0.01):
            calls = [asyncio.create_task(write(engine, prompt("t"), children(8, 1 + 8 * i), FREE)) for i in range(3)]
            calls.append(asyncio.create_task(engine.label_logprobs(prompt("t"), [0])))
            await asyncio.sleep(pause)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await engine.release("t")
        assert engine.usage("t").kv_tokens_held in (0, None)
        steps = await write(engine, prompt("t"), children(4))
        if engine.info.seeds == "exact":
            assert {key: step.ids for key, step in steps.items()} == {
                key: step.ids for key, step in (await write(engine, prompt("u"), children(4))).items()
            }

    run(case, body)


def test_many_calls_at_once(case):
    async def body(engine, prompt):
        results = await asyncio.gather(
            *(write(engine, prompt(f"t{i % 5}"), children(3, 1 + 10 * i), FREE) for i in range(30)),
        )
        assert len(results) == 30
        for i in range(5):
            usage = engine.usage(f"t{i}")
            assert usage.num_calls == 6
            await engine.release(f"t{i}")
            assert engine.usage(f"t{i}").kv_tokens_held in (0, None)

    run(case, body)


def test_what_it_does_not_know_it_refuses(case):
    async def body(engine, prompt):
        vocab = engine.info.vocab_size
        for ids in ((), (vocab,), (-1,)):
            at = Prefix("bad", (Segment(0, ids),))
            with pytest.raises(EngineError):
                await write(engine, at, children(1))
            with pytest.raises(EngineError):
                await engine.label_logprobs(at, [0])
        with pytest.raises(EngineError):
            await engine.label_logprobs(prompt(), [vocab])
        for wanted in ([Child(1, 0), Child(1, 1)], [Child(0, 0)]):
            with pytest.raises(EngineError):
                async for _ in engine.generate(prompt(), wanted, SAMPLING):
                    pass
        await write(engine, prompt(), children(1))

    run(case, body)


def test_after_closing_nothing_answers(case):
    async def body(engine, prompt):
        call = asyncio.create_task(write(engine, prompt(), children(8), FREE))
        await asyncio.sleep(0)
        await engine.aclose()
        await engine.aclose()
        with pytest.raises(EngineError):
            await call
        with pytest.raises(EngineError):
            await write(engine, prompt(), children(1))
        with pytest.raises(EngineError):
            await engine.label_logprobs(prompt(), [0])

    run(case, body)


def test_hidden_states_depend_on_the_ids_alone_and_are_computed_once(case):
    async def body(engine, prompt):
        steps = await write(engine, prompt(), children(2))
        at = prompt("t", steps[1])
        if not case.reads_hidden:
            with pytest.raises(EngineError, match="no hidden states"):
                await engine.read(at, "hidden")
            return
        cached = await engine.read(at, "hidden")
        computed = engine.usage("t").computed_tokens
        assert await engine.read(at, "hidden") == pytest.approx(cached, abs=1e-6)
        assert len(await engine.label_logprobs(at, [0])) == 1
        assert engine.usage("t").computed_tokens == computed + 2 * case.recomputed_tokens
        assert engine.usage("t").num_calls == 4
        fresh = await engine.read(Prefix("flat", (Segment(7, at.ids),)), "hidden")
        assert cached == pytest.approx(fresh, abs=1e-4)
        assert cached and all(math.isfinite(value) for value in cached)
        other = await engine.read(prompt("t", steps[2]), "hidden")
        assert len(other) == len(cached) and (other != cached) is (steps[1].ids != steps[2].ids)

    run(case, body)


def test_a_model_without_a_reward_head_says_so(case):
    async def body(engine, prompt):
        with pytest.raises(EngineError, match="no reward head"):
            await engine.read(prompt(), "head")
        with pytest.raises(ContextOverflowError):
            await engine.read(prompt.long(CONTEXT + 1), "hidden")

    run(case, body)
