"""Engines on servers against a fake one over real HTTP: sharing, faults, cancelling, many servers."""

import asyncio
import itertools

import pytest
from contract_model import SGLANG_POSITIONS, build
from fake_server import Script, label_model, serving
from markov import STEP_END
from remote_calls import FAST, PROMPT, children, prefix, with_engine, write

from search.engines.remote import OpenAIEngine, SglangEngine
from search.engines.remote.http import RequestLimits
from search.errors import ConfigError, ContextOverflowError, EngineError
from search.types import FinishReason, Prefix, Sampling, Segment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("served")
    build(where, SGLANG_POSITIONS)
    return str(where)


@pytest.mark.parametrize("kind", [SglangEngine, OpenAIEngine])
def test_log_probabilities_that_a_server_does_not_give_are_missed_by_its_name(folder, kind):
    with serving(Script(logprobs=False)) as server:
        engine = kind.connect(folder, server.url)
        asked = Sampling(1.0, 1.0, 12, (STEP_END,), logprobs=True)
        with pytest.raises(EngineError, match=rf"{server.url} gives none of the \d+ log-probabilities"):
            with_engine(engine, lambda one: write(one, prefix(), children(1), asked))


# Sharing


def test_a_cold_prefix_is_computed_once_however_many_want_it(folder):
    with serving(Script(seconds_per_request=0.01)) as server:
        engine = SglangEngine.connect(folder, server.url)
        before, asked = server.prefilled, server.calls["/generate"]

        async def body(engine):
            await asyncio.gather(*(write(engine, prefix(), children(4, 1 + 4 * i)) for i in range(5)))
            return engine.usage("t")

        usage = with_engine(engine, body)
        continued = server.calls["/generate"] - asked - 6  # samples that began with a blank line
        again = 20 + 5 + continued  # each sample, and each request of several, computes the last token for itself
        assert server.prefilled - before == len(PROMPT) + again
        assert usage.computed_tokens == server.prefilled - before + usage.sampled_tokens - 20 - continued


def test_siblings_that_are_scored_together_are_one_request_after_the_first(folder):
    with serving(Script(seconds_per_request=0.01), label_model()) as server:
        engine = SglangEngine.connect(folder, server.url)
        before, asked = server.prefilled, server.calls["/generate"]

        async def body(engine):
            steps = [Segment(i, (5 + i, 7)) for i in range(1, 9)]
            found = await asyncio.gather(*(engine.label_logprobs(prefix("t", step), [20, 21]) for step in steps))
            return found, engine.usage("t")

        found, usage = with_engine(engine, body)
        assert len(set(found)) == 8
        assert server.calls["/generate"] - asked == 2, "one that brings the prompt, one for all others"
        assert usage.computed_tokens == server.prefilled - before == len(PROMPT) + 8 * 2
        assert usage.num_calls == 8 and usage.sampled_tokens == 0


def test_what_a_server_holds_is_asked_while_it_works(folder):
    with serving(Script(seconds_per_request=0.3)) as server:
        engine = SglangEngine.connect(folder, server.url)

        async def body(engine):
            await write(engine, prefix(), children(2))
            return engine.usage("t")

        assert with_engine(engine, body).kv_tokens_peak == 7
        assert server.calls["/v1/loads"] > 0


# Faults


@pytest.mark.parametrize("fault", [429, 500, 503, "nonsense", "cut", "stall"])
@pytest.mark.parametrize("kind", [SglangEngine, OpenAIEngine])
def test_a_failure_that_may_pass_is_tried_again(folder, fault, kind):
    script = Script()
    with serving(script) as server:
        engine = kind.connect(folder, server.url, limits=FAST)
        script.statuses = iter([fault, "", fault])

        async def body(engine):
            return await write(engine, prefix(), children(4)), await engine.label_logprobs(prefix("u"), [1, 2])

        steps, logprobs = with_engine(engine, body)
        assert sorted(step.key for step in steps) == [1, 2, 3, 4] and len(logprobs) == 2


def test_what_stays_broken_is_an_error_with_its_reason_after_as_many_attempts_as_allowed(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url, limits=FAST)
        script.statuses = itertools.repeat(503)
        asked = server.calls["/generate"]

        async def body(engine):
            with pytest.raises(EngineError, match="answered 503: scripted 503") as failed:
                await write(engine, prefix(), children(4))
            assert failed.value.retryable and failed.value.status == 503 and server.url in failed.value.endpoint

        with_engine(engine, body)
        assert server.calls["/generate"] - asked == FAST.attempts


def test_what_the_server_refuses_is_not_tried_again(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url, limits=FAST)
        script.statuses = iter([400])
        asked = server.calls["/generate"]

        async def body(engine):
            with pytest.raises(EngineError, match="scripted 400"):
                await write(engine, prefix(), children(4))

        with_engine(engine, body)
        assert server.calls["/generate"] - asked == 1


def test_a_server_that_stalls_costs_the_timeout(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url, limits=RequestLimits(0.3, 1))
        script.statuses = iter(["stall"])

        async def body(engine):
            with pytest.raises(EngineError, match="did not answer in time"):
                await write(engine, prefix(), children(2))
            return await write(engine, prefix(), children(2))

        assert len(with_engine(engine, body)) == 2


def test_an_overflow_that_only_the_server_sees_is_one_all_the_same(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url)
        script.context = 30

        async def body(engine):
            with pytest.raises(ContextOverflowError):
                await write(engine, Prefix("t", (Segment(0, PROMPT * 10),)), children(2))

        with_engine(engine, body)


# Many servers


def test_a_tree_stays_on_one_server_and_leaves_it_only_when_it_fails(folder):
    script = Script()
    with serving(script) as one, serving() as other:
        engine = SglangEngine.connect(folder, f"{one.url},{other.url}", limits=FAST)
        one.keys.clear(), other.keys.clear()

        async def body(engine):
            for tree in ("a", "b", "c", "d"):
                await write(engine, prefix(tree), children(2))
                await write(engine, prefix(tree), children(2, 10))
            homes = {key: name for name, server in (("one", one), ("other", other)) for key in server.keys if key}
            assert not set(filter(None, one.keys)) & set(filter(None, other.keys))
            assert sorted(homes) == ["a", "b", "c", "d"] and sorted(homes.values()) == ["one", "one", "other", "other"]
            script.statuses = itertools.repeat(503)
            moved = next(tree for tree, home in homes.items() if home == "one")
            assert len(await write(engine, prefix(moved), children(3, 20))) == 3
            assert moved in other.keys

        with_engine(engine, body)


def test_servers_of_one_engine_must_serve_one_model(folder):
    with (
        serving() as one,
        serving(Script(head=lambda ids: (0.5,))) as other,
        pytest.raises(ConfigError, match="must serve one model"),
    ):
        SglangEngine.connect(folder, f"{one.url},{other.url}")


# Limits and cancelling


def test_no_more_requests_are_in_flight_than_allowed(folder):
    with serving(Script(seconds_per_request=0.005)) as server:
        engine = SglangEngine.connect(folder, server.url, limits=RequestLimits(max_in_flight=5))

        async def body(engine):
            await asyncio.gather(*(write(engine, prefix(f"t{i}"), children(2)) for i in range(40)))

        with_engine(engine, body)
        assert server.most_in_flight == 5


async def until(condition):
    """Wait until something holds; the test's own limit ends it if it never does."""
    while not condition():
        await asyncio.sleep(0.01)


def first_signs(engine, tree="t"):
    """How many of a tree's steps the client knows to have been begun."""
    books = engine._trees.get(tree)
    return 0 if books is None else sum(len(job.requests) for job in books.jobs)


def test_cancelling_leaves_the_server_idle(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url)
        script.held = True

        async def body(engine):
            calls = [asyncio.create_task(write(engine, prefix(f"t{i}"), children(4))) for i in range(6)]
            await until(lambda: all(first_signs(engine, f"t{i}") == 4 for i in range(6)))
            assert server.in_flight == 6 and server.aborted == 0
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: server.in_flight == 0)
            assert server.aborted == 6

        with_engine(engine, body)


def test_a_released_child_is_stopped_on_the_server_and_its_siblings_go_on(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url)
        script.held = True

        async def body(engine):
            call = asyncio.create_task(write(engine, prefix(), children(4), Sampling(1.0, 1.0, 5, ())))
            await until(lambda: first_signs(engine) == 4)
            await engine.release("t", {2, 3})
            script.held = False
            return await call

        steps = {step.key: step.finish for step in with_engine(engine, body)}
        assert steps[2] is steps[3] is FinishReason.ABORT
        assert FinishReason.ABORT not in (steps[1], steps[4])
        assert server.calls["/abort_request"] == 2


def test_tokens_of_a_step_that_was_stopped_are_counted(folder):
    script = Script()
    with serving(script) as server:
        engine = SglangEngine.connect(folder, server.url)
        script.held = True

        async def body(engine):
            call = asyncio.create_task(write(engine, prefix(), children(1), Sampling(1.0, 1.0, 200, ())))
            await until(lambda: first_signs(engine) == 1)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await until(lambda: engine.usage("t").sampled_tokens)
            return engine.usage("t").sampled_tokens

        assert 0 < with_engine(engine, body) < 200
