"""The server's routes over the fake engine, called in this process: answers, streams, conversations, names."""

import asyncio
from types import MappingProxyType

import pytest
from fake_engine import FakeEngine, Fault
from markov import EOS, FakeTokenizer, MarkovModel
from serve_client import chat
from serving_app import CHAT, TEXT, Running, running, served

from search import Search
from search.config import SearchSettings
from search.errors import ConfigError
from search.serve import searches as searches_module
from search.serve.app import make_app
from search.serve.searches import Extra
from search.serve.service import Service
from search.setup.routing import Engines
from search.types import Problem

# Answers


@served
async def test_an_answer_is_the_search_that_the_same_seed_gives_directly(server):
    got = (await server.ask(seed=5)).json
    engine = FakeEngine()
    search = Search(settings=SearchSettings(prm="none", method="beam", width=4))
    search.use(engine, None)
    result = await search.asolve(Problem("0", TEXT), seed=5)
    (choice,) = got["choices"]
    assert choice["message"] == {"role": "assistant", "content": result.text, "refusal": None}
    assert choice["finish_reason"] == "stop" and choice["search"]["answer"] == result.answer
    assert got["search"]["tally"] == dict(result.tally) and got["search"]["problem"] == TEXT
    assert (got["search"]["seed"], got["search"]["method"], got["search"]["width"]) == (5, "beam", 4)
    usage = got["usage"]
    assert usage["prompt_tokens"] == len(result.tree.root.ids)
    assert usage["completion_tokens"] == next(t.num_tokens for t in result.trajectories if t.text == result.text)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["search"]["models"]["policy"]["sampled_tokens"] == result.stats.policy_tokens
    assert usage["search"]["kv_tokens_peak"] == result.stats.kv_tokens_peak > 0
    assert server.held == 0


@served
async def test_a_request_may_say_how_the_model_is_asked(server):
    search = {"system_prompt": "Be <eos> brief.", "few_shot": [{"question": "1?", "answer": "2."}], "stop": ["."]}
    got = (await server.ask(seed=5, search={**search, "assistant_prefix": "Add "})).json
    (root, *_) = server.engine.calls[0].prefix.segments
    tokenizer = server.engine.tokenizer
    shown = "Problem: 1?\n\nSolution:\n\n2.\n\n"
    prompt = f"Be <eos> brief.\n\n{shown}Problem: {TEXT}\n\nSolution:\n\nAdd "
    assert tokenizer.decode(root.ids) == prompt and not tokenizer.eos_ids & set(root.ids)
    assert got["usage"]["prompt_tokens"] == len(root.ids)


@served
async def test_a_drawn_seed_is_in_the_answer_and_repeats_it(server):
    first = (await server.ask()).json
    again = (await server.ask(seed=first["search"]["seed"])).json
    other = (await server.ask()).json
    assert again["choices"] == first["choices"]
    assert other["search"]["seed"] != first["search"]["seed"]


def test_a_seed_of_the_servers_own_stands_where_a_request_has_none():
    async def whole():
        async with running(seed=9) as server:
            assert [(await server.ask(**seed)).json["search"]["seed"] for seed in ({}, {"seed": 0})] == [9, 0]

    asyncio.run(whole())


@served
async def test_a_stream_says_in_pieces_what_the_whole_answer_says(server):
    for seed in range(6):
        whole = (await server.ask(seed=seed, n=2)).json
        stream = await server.ask(seed=seed, n=2, stream=True, stream_options={"include_usage": True})
        assert stream.answered["content-type"].startswith("text/event-stream")
        *chunks, last = stream.events
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"} and len(
            {c["id"] for c in chunks}
        ) == 1
        texts, ends = ["", ""], [None, None]
        for chunk in chunks:
            (choice,) = chunk["choices"]
            texts[choice["index"]] += choice["delta"].get("content", "")
            ends[choice["index"]] = choice["finish_reason"] or ends[choice["index"]]
            assert chunk["usage"] is None
        told = [choice["message"]["content"] for choice in whole["choices"]]
        assert texts[: len(told)] == told
        assert ends[: len(told)] == [choice["finish_reason"] for choice in whole["choices"]]
        assert last["choices"] == [] and last["usage"] == whole["usage"]
        progress = [chunk["search"] for chunk in chunks if "selection" in chunk.get("search", {})]
        assert [one["selection"] for one in progress] == sorted(one["selection"] for one in progress) and len(
            progress
        ) >= 3
        assert all(one.keys() == {"stage", "selection", "leaves", "nodes", "tokens", "kv_tokens"} for one in progress)
        final = next(chunk["search"] for chunk in chunks if "tally" in chunk.get("search", {}))
        assert final["tally"] == whole["search"]["tally"] and final["answer"] == whole["search"]["answer"]


@pytest.mark.parametrize("thinking", ["keep", "drop"])
def test_thoughts_are_streamed_or_not_as_the_whole_answer_has_them(thinking):
    words = {"<think>\n": "Hm, ", "Hm, ": "\\boxed{5}?\n\n", "\\boxed{5}?\n\n": "</think>\n\n"}
    words |= {"</think>\n\n": "It is 7.\n\n", "It is 7.\n\n": "\\boxed{7}", "\\boxed{7}": EOS}
    vocabulary = (EOS, *words, *map(chr, range(0x20, 0x7F)), "\n")
    rows = {word: {after: 1.0} for word, after in words.items()}

    async def whole():
        engine = FakeEngine(MarkovModel.from_probabilities(vocabulary, rows, {"<think>\n": 1.0}))
        async with running(engine=engine, thinking=thinking) as server:
            message = (await server.ask()).json["choices"][0]["message"]
            thoughts = {"keep": "Hm, \\boxed{5}?\n\n", "drop": None}[thinking]
            assert message["content"] == "It is 7.\n\n\\boxed{7}" and message.get("reasoning_content") == thoughts
            deltas = [chunk["choices"][0]["delta"] for chunk in (await server.ask(stream=True)).events]
            for field in ("content", "reasoning_content"):
                assert "".join(delta.get(field, "") for delta in deltas) == (message.get(field) or "")
            raw = (await server.complete("It:")).json["choices"][0]["text"]
            assert (
                raw == {"keep": "<think>\nHm, \\boxed{5}?\n\n</think>\n\n", "drop": ""}[thinking] + message["content"]
            )

    asyncio.run(whole())


def test_a_step_is_streamed_before_the_search_is_over():
    async def whole():
        engine = FakeEngine(faults=[Fault("generate", 3, kind="hang")])
        async with running(engine=engine, width=1, method="best-of-n") as server:
            exchange = server.exchange("POST", CHAT, chat(TEXT, stream=True, seed=3))
            task = asyncio.create_task(exchange.send())
            await exchange.until('"step":{"depth":1')  # the first step, while the third is never written
            assert server.service.gate.running == 1
            exchange.leave()
            await task

    asyncio.run(whole())


@served
async def test_n_gives_the_best_distinct_trajectories(server):
    got = (await server.ask(n=4, seed=1)).json
    texts = [choice["message"]["content"] for choice in got["choices"]]
    assert len(set(texts)) == len(texts) > 1 and [c["index"] for c in got["choices"]] == list(range(len(texts)))
    assert got["choices"][0]["search"]["answer"] == got["search"]["answer"]
    too_many = await server.ask(n=5)
    assert too_many.status == 422 and too_many.error["param"] == "n"


@served
async def test_a_limit_of_tokens_ends_trajectories_as_length(server):
    got = (await server.ask(max_tokens=2)).json
    assert got["choices"][0]["finish_reason"] == "length" and got["usage"]["completion_tokens"] <= 2


def test_a_limit_of_time_that_left_nothing_is_an_empty_answer_and_no_error():
    async def whole():
        engine = FakeEngine(faults=[Fault("generate", call, kind="hang") for call in (1, 2)])
        async with running(engine=engine, max_seconds=0.02) as server:
            (choice,) = (got := (await server.ask()).json)["choices"]
            assert choice["message"]["content"] == "" and choice["finish_reason"] == "length"
            assert got["search"]["answer"] is None and got["usage"]["completion_tokens"] == 0
            chunks = (await server.ask(stream=True)).events
            assert chunks[-1]["choices"][0]["finish_reason"] == "length" and chunks[-1]["search"]["answer"] is None
            beyond = await server.ask(search={"max_seconds": 1})
            assert beyond.status == 422 and beyond.error["param"] == "search.max_seconds"

    asyncio.run(whole())


# Conversations


CONVERSATION = [
    {"role": "system", "content": "Count in dozens."},
    {"role": "user", "content": "My hen is called Ada. She has 3 eggs."},
    {"role": "assistant", "content": "A quarter."},
    {"role": "user", "content": "She lays 9 more."},
    {"role": "assistant", "content": "One."},
    {"role": "user", "content": "What is my hen called?"},
]


@served
async def test_five_turns_reach_the_engine_before_the_last_one_is_answered(server):
    got = await server.ask(messages=CONVERSATION, seed=1)
    assert got.status == 200
    prompts = {server.engine.tokenizer.decode(call.prefix.segments[0].ids) for call in server.engine.calls}
    (prompt,) = prompts
    places = [prompt.index(turn["content"]) for turn in CONVERSATION]
    assert places == sorted(places) and "step by step" in prompt
    search = got.json["search"]
    assert search["problem"] == "What is my hen called?" and search["num_ignored_messages"] == 0
    alone = (await server.ask(CONVERSATION[-1]["content"], seed=1)).json
    assert alone["usage"]["prompt_tokens"] < got.json["usage"]["prompt_tokens"]
    (seen, _) = (await server.get("/live/searches")).json["problems"][::-1]
    assert seen["problem"].startswith("User: My hen is called Ada.") and seen["problem"].endswith("called?")


def test_turns_that_a_models_template_has_no_place_for_are_counted_and_said():
    class Last(FakeTokenizer):
        def chat(self, messages, options=MappingProxyType({})):
            return messages[-1]["content"]

    class Engine(FakeEngine):
        @property
        def tokenizer(self):
            return Last(self.model.vocabulary)

    async def whole():
        async with running(engine=Engine()) as server:
            search = (await server.ask(messages=CONVERSATION)).json["search"]
            assert search["num_ignored_messages"] == 5
            assert any("no place for 5 of the earlier messages" in note for note in search["notes"])

    asyncio.run(whole())


# More of what clients send


@served
async def test_an_answer_ends_before_a_stop_string_whole_and_streamed(server):
    free = (await server.ask(seed=3, search={"method": "best-of-n"})).json["choices"][0]["message"]["content"]
    for stop in (free[len(free) // 2 :][:3], [free[-2:], "nowhere"]):
        asked = {"seed": 3, "stop": stop, "search": {"method": "best-of-n"}}
        whole = (await server.ask(**asked)).json["choices"][0]
        text = whole["message"]["content"]
        for one in [stop] if isinstance(stop, str) else stop:
            assert one not in text
        chunks = (await server.ask(**asked, stream=True)).events
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    steps = {part for call in server.engine.calls for part in call.prefix.segments[1:]}
    assert steps, "a search of more than one step"


@served
async def test_log_probabilities_come_where_they_are_asked_for(server):
    plain = (await server.ask(seed=2)).json["choices"][0]
    assert plain["logprobs"] is None
    asked = (await server.ask(seed=2, logprobs=True)).json["choices"][0]
    content = asked["logprobs"]["content"]
    assert asked["message"] == plain["message"]  # they change nothing
    assert "".join(entry["token"] for entry in content) == asked["message"]["content"]
    assert all(entry["logprob"] <= 0 and bytes(entry["bytes"]).decode() == entry["token"] for entry in content)
    chunks = (await server.ask(seed=2, logprobs=True, stream=True)).events
    pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [entry for piece in pieces if piece for entry in piece["content"]] == content


@served
async def test_a_completion_continues_the_very_prompt(server):
    got = (await server.complete("Add 3.\n\n", seed=4, logprobs=0)).json
    (choice,) = got["choices"]
    assert (got["object"], got["id"][:5]) == ("text_completion", "cmpl-") and choice["finish_reason"] == "stop"
    assert server.engine.tokenizer.decode(server.engine.calls[0].prefix.segments[0].ids) == "Add 3.\n\n"
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"] and len(logprobs["token_logprobs"]) == len(logprobs["tokens"])
    for token, at in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][at:].startswith(token)
    chunks = (await server.complete("Add 3.\n\n", seed=4, logprobs=0, stream=True)).events
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    pieces = [piece for chunk in chunks if (piece := chunk["choices"][0]["logprobs"])]
    assert [at for piece in pieces for at in piece["text_offset"]] == logprobs["text_offset"]
    empty = await server.complete(" ")
    assert empty.status == 422 and empty.error["param"] == "prompt"
    for wrong in (["a", "b"], [1, 2], [], 3):
        got = await server.complete(wrong)
        assert got.status == 422 and got.error["param"] == "prompt"
        assert got.error["message"].startswith("prompt: must be a string, or a list of one")
    echoed = await server.complete("a", echo=True)
    assert echoed.status == 422 and echoed.error["code"] == "unsupported_parameter"


@served
async def test_a_base_url_says_method_width_and_scorer(server):
    got = (await server.exchange("POST", f"/best-of-n-3/confidence:tail{CHAT}", chat(TEXT)).send()).json["search"]
    assert (got["method"], got["width"], got["prm"]) == ("best-of-n", 3, "confidence:tail")
    named = (await server.ask(model="mini-target@best-of-n-3@confidence:tail", seed=got["seed"])).json["search"]
    assert named["answer"] == got["answer"] and named["prm"] == got["prm"]
    assert (await server.get("/beam/v1/models")).status == 200
    for path in (f"/rebas{CHAT}", "/live/v1/models", "/beam/beam/v1/models"):
        answer = await server.exchange("POST" if CHAT in path else "GET", path, chat(TEXT)).send()
        assert answer.status == 404 and answer.error["code"] == "not_found", path
    twice = await server.exchange("POST", f"/beam-3{CHAT}", chat(TEXT, search={"width": 2})).send()
    assert twice.status == 422 and "said twice" in twice.error["message"]
    metrics = await server.metrics()
    assert metrics['ets_requests_total{route="/v1/chat/completions",status="404"}'] == "1.0"


def test_another_policy_and_scorer_are_chosen_by_name(monkeypatch):
    engines = {"mini:draft": FakeEngine(name="draft"), "mini:prm": FakeEngine(name="prm")}
    monkeypatch.setattr(searches_module, "make_engine", lambda spec, model, settings, slots: engines[model])
    extras = [Extra.parse("policy", "mini:draft"), Extra.parse("prm", "confidence:tail")]

    async def whole():
        service = Service(
            SearchSettings(prm="none", method="beam", width=2, vote="majority"),
            engines=Engines(policy=FakeEngine()),
            extras=extras[:1],
        )
        app = make_app(service)
        async with app.router.lifespan_context(app):
            server = Running(service, app, engines["mini:draft"])
            assert {"mini-target", "mini-draft", "mini-draft@ets"} <= {one["id"] for one in service.models()}
            assert (await server.ask(model="mini-target")).status == 200 and not server.engine.calls
            got = await server.ask(model="mini-draft@best-of-n-3")
            assert got.status == 200 and len(server.engine.calls) and got.json["model"] == "mini-draft@best-of-n-3"
            card = (await server.get("/v1/models/mini-draft@ets-4")).json
            assert card["search"] == {"policy": "mini-draft", "prm": "none", "method": "ets", "width": 4}
        assert server.engine._closed.is_set()

    asyncio.run(whole())
    with pytest.raises(ConfigError, match="no other policy can be chosen"):
        Service(SearchSettings(writer="arbitrage"), extras=extras[:1])
    with pytest.raises(ConfigError, match="two models have the same name"):
        Service(SearchSettings(prm="none"), extras=[Extra("policy", "mini:target")])
    with pytest.raises(ConfigError, match="confidence:tail: it is there without being loaded"):
        Service(SearchSettings(prm="none"), extras=extras[1:])
    assert Extra.parse("prm", "a=b/c=sglang:http://h:1") == Extra("prm", "a=b/c", "sglang:http://h:1")
    assert Extra.parse("prm", "a=b/c") == Extra("prm", "a=b/c")
