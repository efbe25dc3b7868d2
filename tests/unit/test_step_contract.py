"""Every engine cuts the same text into the same steps, and the steps are the whole text."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fake_engine import FakeEngine
from fake_server import Script, serving
from script_model import SCRIPTS, build, script_model, start, vocabulary

from search.support.streams import closing
from search.types import Child, FinishReason, Prefix, Segment


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    build(folder)
    return str(folder)


@asynccontextmanager
async def opened(kind, folder):
    from search.engines.local import LocalEngine
    from search.engines.remote import OpenAIEngine, SglangEngine

    if kind in ("fake", "local"):
        engine = FakeEngine(script_model()) if kind == "fake" else LocalEngine.load(folder)
        yield engine
        await engine.aclose()
        return
    name, _, seeded = kind.partition("-")
    with serving(Script(seeds=bool(seeded), hidden=False), script_model()) as server:
        engine = {"sglang": SglangEngine, "openai": OpenAIEngine}[name].connect(folder, server.url)
        yield engine
        await engine.aclose()


async def write_steps(engine, name, sampling, number=1):
    """The steps of a text; each is written `number` times over, and the first one is gone on with."""
    prompt = Segment(0, (vocabulary().index(start(name)),))
    segments, steps = [prompt], []
    while not steps or steps[-1].finish is not FinishReason.EOS:
        first = 1 + len(steps) * number
        wanted = [Child(first + i, 7 + i) for i in range(number)]
        async with closing(engine.generate(Prefix(name, tuple(segments)), wanted, sampling)) as made:
            found = {step.key: step async for step in made}
        assert sorted(found) == [child.key for child in wanted]
        assert len({(step.ids, step.text, step.finish) for step in found.values()}) == 1
        steps.append(found[first])
        segments.append(Segment(first, steps[-1].ids))
        assert len(steps) < 20
    return steps


KINDS = ("fake", "local", "sglang", "sglang-seeded", "openai", "openai-seeded")


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_same_wherever_they_are_written(kind, checkpoint):
    async def main():
        async with opened(kind, checkpoint) as engine:
            for name, (sampling, tokens, expected) in SCRIPTS.items():
                steps = await write_steps(engine, name, sampling, number=3)
                assert [step.text for step in steps] == expected, name
                ids = [token for step in steps for token in step.ids]
                assert ids[-1] == 0 and [vocabulary()[token] for token in ids[:-1]] == tokens, name
                assert "".join(step.text for step in steps) == b"".join(tokens).decode("utf-8", "replace"), name
                for step in steps:
                    assert len(step.ids) <= sampling.max_new_tokens, name
                    if step.finish is FinishReason.LENGTH and len(step.ids) < sampling.max_new_tokens:
                        assert step.text.endswith("\n") and len(step.ids) >= sampling.line_end_tokens, name

    asyncio.run(main())


@pytest.mark.parametrize("kind", ("sglang", "sglang-seeded"))
def test_what_a_server_writes_in_several_requests_is_computed_once(kind, checkpoint):
    """Each request computes the last token before it again for its logits; it was sampled, so nobody had."""

    async def main():
        async with opened(kind, checkpoint) as engine:
            for name in ("heads", "long lines"):
                sampling, tokens, _ = SCRIPTS[name]
                steps = await write_steps(engine, name, sampling)
                usage = engine.usage(name)
                assert usage.sampled_tokens == len(tokens) + 1
                # The prompt's token, once to fill the cache and once for its logits; the end token is never read.
                assert usage.computed_tokens == len(tokens) + 2
                assert usage.recomputed_tokens == 0
                assert usage.num_calls == len(steps)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_goes_on_after_a_head_ends_with_the_context(kind, checkpoint):
    """Where a step is written in several requests the context is still one."""
    sampling = replace(SCRIPTS["heads"][0], max_new_tokens=200)

    async def main():
        async with opened(kind, checkpoint) as engine:
            room = 3
            ids = (1,) * (engine.info.context_tokens - room - 1)
            prefix = Prefix("t", (Segment(0, (*ids, vocabulary().index(start("heads")))),))
            async with closing(engine.generate(prefix, [Child(1, 1)], sampling)) as made:
                (step,) = [step async for step in made]
            assert step.finish is FinishReason.CONTEXT
            assert step.text == "### Step 1: Add\n\n2 + 3 = 5" and len(step.ids) == room

    asyncio.run(main())
