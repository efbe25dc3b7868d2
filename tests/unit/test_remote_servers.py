"""What an engine finds out about the servers it is given, and which of them it refuses, by a fake one over HTTP."""

import asyncio
import json

import pytest
from contract_model import SGLANG_POSITIONS, build
from fake_server import Script, serving
from markov import hashed_hidden
from remote_calls import PROMPT, children, prefix, with_engine, write

from search.config import EvalSettings, SearchSettings
from search.config import build as settings_of
from search.engines.remote import OpenAIEngine, SglangEngine
from search.errors import ConfigError, EngineError
from search.runs.evaluation import Evaluation
from search.runs.provenance import command_line
from search.setup.registry import make_engine
from search.setup.run_key import config_hash


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("served")
    build(where, SGLANG_POSITIONS)
    return str(where)


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
