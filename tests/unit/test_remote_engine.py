"""Engines on servers against a fake one over real HTTP: sharing, faults, cancelling, many servers, wrong input."""

import asyncio
import itertools
import json

import pytest
from contract_model import SGLANG_POSITIONS, build
from fake_server import Script, label_model, serving
from markov import STEP_END, hashed_hidden

from search.config import EvalSettings, SearchSettings
from search.config import build as settings_of
from search.engines.remote import OpenAIEngine, SglangEngine
from search.engines.remote.http import RequestLimits
from search.errors import ConfigError, ContextOverflowError, EngineError
from search.runs.evaluation import Evaluation
from search.runs.provenance import command_line
from search.setup.registry import make_engine
from search.setup.run_key import config_hash
from search.support.streams import closing
from search.types import Child, FinishReason, Prefix, Sampling, Segment

PROMPT = (2, 3, 4, 1)
SAMPLING = Sampling(1.0, 1.0, 12, (STEP_END,))
FAST = RequestLimits(timeout_seconds=2.0, attempts=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("served")
    build(where, SGLANG_POSITIONS)
    return str(where)


def prefix(tree="t", *more):
    return Prefix(tree, (Segment(0, PROMPT), *more))


def children(number, first=1):
    return [Child(first + i, 1000 + i) for i in range(number)]


async def write(engine, at, wanted, sampling=SAMPLING):
    async with closing(engine.generate(at, wanted, sampling)) as made:
        return [step async for step in made]


def with_engine(engine, body):
    async def main():
        try:
            return await body(engine)
        finally:
            await engine.aclose()

    return asyncio.run(main())


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


# What a server is


def test_seeds_are_found_out_by_asking(folder):
    for script, seeds in ((Script(), "none"), (Script(seeds=True), "server")):
        for kind in (SglangEngine, OpenAIEngine):
            with serving(script) as server:
                engine = kind.connect(folder, server.url)
                assert engine.info.seeds == seeds
                asyncio.run(engine.aclose())


def test_children_have_seeds_of_their_own_where_seeds_count(folder):
    with serving(Script(seeds=True)) as server:

        async def body(engine):
            first = await write(engine, prefix(), children(6))
            again = await write(engine, prefix("u"), children(6)[::-1])
            assert {step.key: step.ids for step in first} == {step.key: step.ids for step in again}
            assert len({step.ids for step in first}) > 1

        with_engine(SglangEngine.connect(folder, server.url), body)


@pytest.mark.parametrize("tag", [None, PROMPT[-1]], ids=["every token", "step tags"])
def test_a_reward_head_is_read_from_a_pooling_server_at_the_prompts_end(folder, tag):
    with serving(Script(head=lambda ids: (len(ids) / 10, 0.5), step_tag=tag)) as server:

        async def body(engine):
            assert engine.info.details["head"] == "as served" and engine.info.seeds == "none"
            assert await engine.read(prefix(), "head") == (0.4, 0.5)
            with pytest.raises(EngineError, match="has no hidden states"):
                await engine.read(prefix(), "hidden")
            server.script.step_tag = 5
            with pytest.raises(EngineError, match="gives outputs at its own step tag alone"):
                await engine.read(prefix(), "head")

        with_engine(OpenAIEngine.connect(folder, server.url), body)


def test_a_server_that_neither_writes_nor_pools_is_refused_with_what_it_said_first(folder):
    with (
        serving(Script(head=lambda ids: (0.5,), statuses=iter([404, 404, 404]))) as server,
        pytest.raises(ConfigError, match="scripted 404"),
    ):
        OpenAIEngine.connect(folder, server.url)


def test_a_reward_head_is_read_from_an_embedding_server(folder):
    with serving(Script(head=lambda ids: (len(ids) / 10, 0.5))) as server:

        async def body(engine):
            assert await engine.read(prefix(), "head") == (0.4, 0.5)
            with pytest.raises(EngineError, match="--is-embedding"):
                await write(engine, prefix(), children(1))
            with pytest.raises(EngineError, match="no probabilities"):
                await engine.label_logprobs(prefix(), [0])

        with_engine(SglangEngine.connect(folder, server.url), body)


def test_what_is_wrong_with_a_server_is_said_in_plain_words(folder):
    with serving(Script(radix=False, capacity=200, hidden=False)) as server:
        engine = SglangEngine.connect(folder, server.url)
        other, first, second = engine.problems
        assert "it serves fake" in other
        assert "radix cache is off" in first and "room for 200 KV tokens" in second
        assert engine.info.details["radix cache"] == "off" and engine.info.details["token capacity"] == "200"

        async def body(engine):
            with pytest.raises(EngineError, match="--enable-return-hidden-states"):
                await engine.read(prefix(), "hidden")

        with_engine(engine, body)


# Wrong input


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sglang:localhost:30000", "is no address of a server; accepted: sglang:http://HOST:PORT"),
        ("sglang:", "is no address"),
        ("openai:", "is no address"),
        ("sglang:http://", "is no address"),
        ("sglang:http://a:1,http://a:1/", "stands there twice"),
        ("sglang:http://127.0.0.1:1", "cannot be reached"),
        ("openai:http://127.0.0.1:1", "cannot be reached"),
        ("local:http://127.0.0.1:1", "takes no address"),
        ("sgland:http://127.0.0.1:1", "unknown engine 'sgland' \\(did you mean sglang"),
    ],
)
def test_a_wrong_address_is_one_clear_line(spec, message):
    with pytest.raises(ConfigError, match=message) as failed:
        make_engine(spec, "mini:target", SearchSettings(), None)
    assert "\n" not in str(failed.value)


def test_another_model_on_the_server_is_refused(folder):
    with serving(Script(model_type="qwen2")) as server, pytest.raises(ConfigError, match="of type qwen2"):
        SglangEngine.connect(folder, server.url)
    script = Script(tokenize=lambda text: [1, 2, 3])
    for kind in (SglangEngine, OpenAIEngine):
        with serving(script) as server, pytest.raises(ConfigError, match="gives other ids"):
            kind.connect(folder, server.url)


def test_a_server_that_gives_no_token_ids_is_refused(folder):
    with serving(Script(openai_ids=False)) as server, pytest.raises(ConfigError, match="gives no token ids"):
        OpenAIEngine.connect(folder, server.url)


def test_where_servers_are_does_not_make_another_run():
    def hashed(**values):
        return config_hash(settings_of(SearchSettings, values))

    assert hashed(engine="sglang:http://a:1") == hashed(engine="sglang:http://b:2,http://c:3", request_timeout=7)
    assert hashed(engine="sglang:http://a:1") != hashed(engine="openai:http://a:1") != hashed()
    assert json.dumps(hashed())


# Keys, caches of earlier runs, and what a server says of its hidden states

ENGINES = {"sglang": SglangEngine, "openai": OpenAIEngine}


@pytest.mark.parametrize("kind", ENGINES)
def test_a_server_behind_a_key_is_asked_with_it_and_without_it_says_how_to_give_one(folder, kind):
    # The fake server lowers the case of what it is sent.
    with serving(Script(api_key="sk-secret-1")) as server:
        settings = settings_of(SearchSettings, {"engine_api_key": "sk-secret-1"})
        engine = make_engine(f"{kind}:{server.url}", folder, settings, None)
        steps = with_engine(engine, lambda engine: write(engine, prefix(), children(2)))
        assert len(steps) == 2
        for wrong in (None, "sk-other"):
            with pytest.raises(
                ConfigError, match=r"answered 401: Unauthorized\. \(give its key as ETS_ENGINE_API_KEY or"
            ) as error:
                make_engine(
                    f"{kind}:{server.url}", folder, settings_of(SearchSettings, {"engine_api_key": wrong}), None
                )
            assert "sk-" not in str(error.value)


def test_a_key_is_in_no_record_no_hash_no_message_and_survives_a_rebuild_of_the_settings():
    settings = settings_of(SearchSettings, {"engine_api_key": "sk-secret-1", "method": "rebase"})
    again = settings_of(SearchSettings, settings.model_dump())
    assert again.engine_api_key is not None and again.engine_api_key.get_secret_value() == "sk-secret-1"
    assert config_hash(settings) == config_hash(settings_of(SearchSettings, {"method": "rebase"}))
    written = json.dumps(settings.model_dump(mode="json")) + settings.model_dump_json() + repr(settings)
    assert "secret-1" not in written and "engine_api_key" not in settings.model_dump(mode="json")
    for wrong in ("", "two words", "sk-secret-1\n", "schlüssel"):
        with pytest.raises(ConfigError, match="engine_api_key: must be printable ASCII without spaces") as error:
            settings_of(SearchSettings, {"engine_api_key": wrong})
        assert not wrong or wrong not in str(error.value)


def test_the_end_of_the_prompt_before_a_step_is_no_part_of_it(folder):
    with serving(Script(prompt_tail=True, seeds=True)) as server, serving(Script(seeds=True)) as usual:
        found = []
        for one in (server, usual):
            engine = SglangEngine.connect(folder, one.url)
            steps = with_engine(engine, lambda engine: write(engine, prefix(), children(4)))
            found.append(sorted((step.key, step.ids, step.text) for step in steps))
        assert found[0] == found[1]


def test_an_emptied_cache_gives_no_run_the_prompts_of_another(folder):
    with serving() as server:
        computed = []
        for flush in (False, False, True):
            engine = SglangEngine.connect(folder, server.url)

            async def body(engine, flush=flush):
                if flush:
                    await engine.flush_cache()
                await write(engine, prefix(), children(1))
                usage = engine.usage("t")
                return usage.computed_tokens - usage.sampled_tokens + 1

            computed.append(with_engine(engine, body))
        assert computed == [len(PROMPT) + 1, 2, len(PROMPT) + 1], "the second run found the first one's prompt"


@pytest.mark.parametrize(("mode", "says"), [(None, "full"), ("full", "full"), ("last", "last")])
def test_hidden_states_are_asked_for_as_the_server_gives_them(folder, mode, says):
    with serving(Script(hidden_mode=mode)) as server:
        engine = SglangEngine.connect(folder, server.url)
        assert engine.facts.hidden_states == says == engine.info.details["hidden states"]
        state = with_engine(engine, lambda engine: engine.read(prefix(), "hidden"))
        assert state == pytest.approx(hashed_hidden(PROMPT))


def test_a_server_without_hidden_states_is_known_before_it_is_asked(folder):
    with serving(Script(hidden=False, hidden_mode="none")) as server:
        engine = SglangEngine.connect(folder, server.url)
        asked = server.calls["/generate"]

        async def body(engine):
            with pytest.raises(EngineError, match="start it with --enable-return-hidden-states"):
                await engine.read(prefix(), "hidden")

        with_engine(engine, body)
        assert not engine.facts.hidden_states and server.calls["/generate"] == asked


def test_a_run_keeps_its_command_line_without_the_key():
    argv = ["ets", "eval", "--api-key", "sk-1", "--width", "4", "--engine-api-key=sk-2", "--out", "x"]
    kept = command_line(argv)
    assert kept == ["ets", "eval", "--api-key", "***", "--width", "4", "--engine-api-key=***", "--out", "x"]


def test_a_run_that_is_to_pay_for_its_own_prompts_empties_the_servers_caches_first(folder, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text('{"problem": "How many? w1 w2 w3", "answer": "1"}\n')
    with serving() as server:
        values = {"policy": folder, "engine": f"sglang:{server.url}", "prm": "none", "data": str(data), "width": 1}
        values |= {"method": "best-of-n", "max_depth": 1, "grader": "plain", "prompt": "plain", "vote": "majority"}
        for flush, times in ((False, 0), (True, 1)):
            settings = settings_of(EvalSettings, {**values, "flush_cache": flush})
            asyncio.run(Evaluation(settings).run(1))
            assert server.calls["/flush_cache"] == times
