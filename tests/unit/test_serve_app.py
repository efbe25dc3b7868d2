"""The server's routes over the fake engine, called in this process: answers, streams, limits, keys, ends."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType

import pytest
from fake_engine import FakeEngine, Fault
from markov import EOS, FakeTokenizer, MarkovModel
from serve_client import Exchange, chat
from virtual_clock import timed

from search import Search
from search.config import SearchSettings
from search.errors import ConfigError
from search.parts import Stateless
from search.serve import searches as searches_module
from search.serve import stream as stream_module
from search.serve.access_log import AccessLog
from search.serve.app import make_app
from search.serve.jobs import Job
from search.serve.searches import Extra
from search.serve.service import ServeLimits, Service
from search.setup.routing import Engines
from search.types import Problem

TEXT = "Add 3."
CHAT = "/v1/chat/completions"


class Running:
    """An application with its service and its one engine."""

    def __init__(self, service, app, engine):
        self.service, self.app, self.engine = service, app, engine

    def exchange(self, method, path, body=b"", **headers):
        return Exchange(self.app, method, path, body, headers)

    async def get(self, path, **headers):
        return await self.exchange("GET", path, **headers).send()

    async def ask(self, text=TEXT, **fields):
        return await self.exchange("POST", CHAT, {**chat(text), **fields}).send()

    async def complete(self, prompt, **fields):
        body = {"model": "mini-target", "prompt": prompt, **fields}
        return await self.exchange("POST", "/v1/completions", body).send()

    @property
    def held(self):
        return sum(self.engine.usage(call.prefix.tree).kv_tokens_held for call in self.engine.calls)

    async def metrics(self):
        lines = (await self.get("/metrics")).content.decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line[:1] != "#")


@asynccontextmanager
async def running(keys=(), engine=None, limits=None, origins=(), **settings):
    engine = engine or FakeEngine()
    chosen = SearchSettings(**{"prm": "none", "method": "beam", "width": 4, "vote": "majority", **settings})
    service = Service(chosen, limits or ServeLimits(max_width=8, max_tokens=1024), engines=Engines(policy=engine))
    app = make_app(service, keys, origins=origins)
    async with app.router.lifespan_context(app):
        yield Running(service, app, engine)


def served(test):
    """Run a test of one coroutine, its server at its default settings."""

    def run():
        async def whole():
            async with running() as server:
                await test(server)

        asyncio.run(whole())

    run.__name__ = test.__name__
    return run


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


# Budgets and deadlines


@served
async def test_headers_bound_a_search(server):
    headers = {"X-Ets-Width": "2", "X-Ets-Max-Tokens": "3"}
    got = (await server.exchange("POST", CHAT, chat(TEXT), **headers).send()).json
    assert got["search"]["width"] == 2 and got["usage"]["completion_tokens"] <= 3
    wrong = await server.exchange("POST", CHAT, chat(TEXT), **{"X-Ets-Deadline": "soon"}).send()
    assert wrong.status == 422 and wrong.error["param"] == "x-ets-deadline"
    effort = (await server.ask(reasoning_effort="high")).json["search"]
    assert effort["width"] == 8


def test_pages_of_origins_that_are_allowed_may_ask_and_no_others():
    """A browser asks beforehand, without the key that the request itself then has to send."""
    page, asks = "http://localhost:3000", {"Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization,content-type"

    async def whole():
        for origins, may in (((page,), True), (("*",), True), (("http://localhost",), False), ((), False)):
            async with running(keys=("secret",), origins=origins) as server:
                before = await server.exchange("OPTIONS", CHAT, Origin=page, **asks).send()
                assert (before.status == 200) is may
                for key, status in (("secret", 200), ("wrong", 401)):
                    words = {"Origin": page, "Authorization": f"Bearer {key}"}
                    found = await server.exchange("POST", CHAT, chat(TEXT), **words).send()
                    assert found.status == status
                    assert (found.answered.get("access-control-allow-origin") in (page, "*")) is may

    timed(whole())


@pytest.mark.parametrize("origin", ["localhost:3000", "http://localhost:3000/", "http://", "", "**"])
def test_an_origin_that_no_browser_sends_is_refused(inside, origin):
    ran = inside("serve", "--allowed-origin", origin)
    said = f"--allowed-origin {origin!r}: accepted: SCHEME://HOST[:PORT] without a path, or *"
    assert (ran.code, ran.err) == (2, f"ets: {said}\n")


@pytest.mark.parametrize("stream", [False, True])
def test_at_its_deadline_a_request_gets_the_best_answer_so_far_marked(stream):
    async def whole():
        engine = FakeEngine(faults=[Fault("generate", call, kind="hang") for call in range(3, 50)])
        async with running(engine=engine, limits=ServeLimits(deadline=0.3)) as server:
            answer = await server.ask(stream=stream, seed=3)
            if stream:
                told = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in answer.events)
                search = answer.events[-1]["search"]
            else:
                told, search = answer.json["choices"][0]["message"]["content"], answer.json["search"]
            assert told and search["deadline_reached"] and search["deadline"] == 0.3
            assert server.held == 0

    _, seconds = timed(whole())
    assert seconds == pytest.approx(0.3, abs=0.002)


class Silent(Stateless):
    """A scorer that never answers."""

    async def score(self, tree, nodes):
        await asyncio.Event().wait()


def test_a_deadline_before_the_first_reward_is_no_fault_of_the_engine():
    """Solutions that were written and not yet scored have no part in a vote, but nothing broke."""

    async def whole():
        async with running(limits=ServeLimits(deadline=0.3), max_tokens=2) as server:
            search = await server.service.searches.get({})
            search.driver.scorer = Silent()
            answer = await server.ask()
            assert answer.status == 200 and answer.json["search"]["deadline_reached"]
            assert answer.json["search"]["answer"] is None and answer.json["choices"][0]["finish_reason"] == "length"

    timed(whole())


def test_a_deadline_that_comes_in_the_queue_is_said_and_one_that_does_not_come_marks_nothing():
    async def whole():
        limits = ServeLimits(max_concurrent=1, deadline=60)
        async with running(engine=slow(1), limits=limits) as server:
            first = server.exchange("POST", CHAT, chat(TEXT))
            holding = asyncio.create_task(first.send())
            await settle(lambda: server.engine.calls)
            late = await server.exchange("POST", CHAT, chat(TEXT), **{"X-Ets-Deadline": "0.05"}).send()
            assert late.status == 429 and late.error["code"] == "deadline" and late.answered["retry-after"]
            first.leave()
            await holding
            search = (await server.ask()).json["search"]
            assert search["deadline"] == 60 and search["deadline_reached"] is False

    timed(whole())


def test_of_many_requests_with_deadlines_none_is_lost_and_none_is_late():
    """64 clients and 256 requests on a server that can do a part of that in time; on a virtual clock, so exactly."""
    num_clients, num_requests, deadline = 64, 256, 2.0

    async def whole():
        engine = FakeEngine(seconds_per_call=0.03, seconds_per_token=0.005)
        limits = ServeLimits(deadline=deadline, max_queue=num_clients)
        async with running(engine=engine, limits=limits, width=2) as server:
            clock, todo, answers = asyncio.get_running_loop(), iter(range(num_requests)), {}

            async def client():
                for index in todo:
                    began = clock.time()
                    answer = await server.ask(seed=index)
                    answers[index] = (answer, clock.time() - began)

            await asyncio.gather(*(client() for _ in range(num_clients)))
            assert server.service.jobs.active == {} and server.held == 0
            return answers

    answers, _ = timed(whole())
    assert sorted(answers) == list(range(num_requests))
    assert max(seconds for _, seconds in answers.values()) <= deadline + 0.5
    ends = Counter(
        answer.json["search"]["deadline_reached"] if answer.status == 200 else answer.error["code"]
        for answer, _ in answers.values()
    )
    assert ends.keys() <= {False, True, "deadline"} and ends[False] > num_requests / 2 and ends[True], ends


# What is refused

BAD = {
    "width": (chat(search={"width": 9}), 422, "search.width"),
    "width of the name": (chat(model="mini-target@beam-9"), 422, "search.width"),
    "tokens": (chat(max_tokens=1025), 422, "max_tokens"),
    "model": (chat(model="gpt-4"), 404, "model"),
    "method": (chat(search={"method": "rebas"}), 422, "search"),
    "contradiction": (chat(model="mini-target@greedy", search={"width": 2}), 422, "search"),
    "unknown setting": (chat(search={"breadth": 2}), 422, "search.breadth"),
    "other model": (chat(search={"prm": "mini:prm"}), 422, "search.prm"),
    "draft": (chat(search={"writer": "arbitrage"}), 422, "search"),
    "method's option": (chat(search={"options": {"breadth": 1}}), 422, "search"),
    "chat option": (chat(search={"chat_options": {"enable_thinking": False}}), 422, "search"),
    "template": (chat(search={"prompt_template": "{{ question }}"}), 422, "search.prompt_template"),
    "file": (chat(search={"system_prompt": "@x"}), 422, "search.system_prompt"),
    "scorer": (chat(model="mini-target@mini-prm"), 404, "model"),
    "unknown field": ({**chat(), "unheard_of": 1}, 400, "unheard_of"),
    "tools": (chat(tools=[{"type": "function"}]), 422, "tools"),
    "format": (chat(response_format={"type": "json_object"}), 422, "response_format"),
    "tool's turn": ({**chat(), "messages": [{"role": "tool", "content": "x"}]}, 422, "messages.0.role"),
    "no messages": ({"model": "mini-target"}, 422, "messages"),
    "not an object": ([1], 422, None),
    "not unicode": (chat("\ud800"), 422, "messages"),
    "image": (chat([{"type": "image_url", "image_url": {"url": "x"}}]), 422, "messages.0.content"),
    "five stops": (chat(stop=["a", "b", "c", "d", "e"]), 422, "stop"),
    "a stop of no length": (chat(stop=["a", ""]), 422, "stop"),
    "a stop of no kind": (chat(stop={"a": 1}), 422, "stop"),
    "content of no kind": (chat({"a": 1}), 422, "messages.0.content"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_input_is_said_in_the_shape_of_openai(name):
    body, status, param = BAD[name]

    async def whole():
        async with running() as server:
            for stream in (False, True):
                streamed = {**body, "stream": stream} if isinstance(body, dict) else body
                answer = await server.exchange("POST", CHAT, streamed).send()
                assert answer.status == status and answer.error["param"] == param, answer.content
                assert answer.error["type"] == "invalid_request_error"

    asyncio.run(whole())


@served
async def test_a_prompt_beyond_the_context_is_refused_also_in_a_stream(server):
    for stream in (False, True):
        answer = await server.ask("Add 3. " * 4000, stream=stream)
        assert answer.status == 422 and "context holds" in answer.error["message"]
        assert answer.error["code"] == "context_length_exceeded"


@served
async def test_json_and_addresses_and_methods(server):
    broken = await server.exchange("POST", CHAT, b"{").send()
    assert broken.status == 400 and broken.error["code"] == "invalid_json"
    deep, number = b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"
    for unreadable in (b'{"model": "\xff"}', deep, number):
        answer = await server.exchange("POST", CHAT, unreadable).send()
        assert answer.status == 400 and answer.error["code"] == "invalid_json"
        assert "not valid JSON" in answer.error["message"]
    assert (await server.get("/v1/nothing")).error["code"] == "not_found"
    wrong = await server.get(CHAT)
    assert wrong.status == 405 and wrong.error["code"] == "method_not_allowed" and wrong.answered["allow"] == "POST"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_that_is_not_called_json_is_told_how(kind):
    async def whole():
        async with running() as server:
            answer = await server.exchange("POST", CHAT, chat(), **{"content-type": kind}).send()
            assert answer.status == 422 and "Content-Type: application/json" in answer.error["message"]
            assert (
                "Content-Type: application/json" in (await server.exchange("POST", CHAT, [1]).send()).error["message"]
            )

    asyncio.run(whole())


@pytest.mark.parametrize("content", [[{"type": "image_url", "image_url": {"url": "x"}}], [["x"]], {"a": 1}, 5])
def test_content_that_is_no_text_is_told_what_is(content):
    async def whole():
        async with running() as server:
            message = (await server.ask(content)).error["message"]
            assert message.startswith("messages.0.content: must be a string, or a list of parts")
            assert (await server.ask(**{"content": content})).error["code"] == "unknown_parameter"

    asyncio.run(whole())


def test_a_body_above_the_limit_is_refused_by_what_it_says_and_by_what_it_holds():
    async def whole():
        async with running(limits=ServeLimits(max_body_bytes=200)) as server:
            long = chat("Add 3. " * 40)
            said = await server.exchange("POST", CHAT, long, **{"content-length": "1000"}).send()
            held = await server.exchange("POST", CHAT, long).send()
            for answer in (said, held):
                assert answer.status == 413 and answer.error["code"] == "body_too_large"
            assert (await server.ask()).status == 200

    asyncio.run(whole())


def test_an_engine_that_fails_is_said():
    async def whole():
        faults = [Fault("generate", call) for call in range(1, 3)]
        async with running(engine=FakeEngine(faults=faults)) as server:
            answer = await server.ask()
            assert answer.status == 502 and answer.error["type"] == "server_error"
            stream = await server.ask(stream=True)
            assert stream.events[-1]["error"]["code"] == "search_failed"
            assert (await server.metrics())['ets_searches_total{end="failed"}'] == "2.0"

    asyncio.run(whole())


# Keys


def test_a_key_opens_everything_but_health_which_is_open():
    async def whole():
        async with running(keys=("secret", "a+b")) as server:
            for path in ("/v1/models", "/metrics", "/live", "/live/searches", "/openapi.json", "/nothing"):
                for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
                    shut = await server.get(path, **headers)
                    assert shut.status == 401 and shut.error["code"] == "invalid_api_key", path
            assert (await server.get("/health")).status == 200
            assert (await server.get("/v1/models", authorization="Bearer a+b")).status == 200
            assert (await server.get("/v1/models?key=secret")).status == 401
            page = await server.get("/live?key=a%2Bb")
            assert page.status == 200
            cookie = page.answered["set-cookie"].partition(";")[0]
            assert (await server.get("/live/searches", cookie=cookie)).json == {"problems": []}
            assert (await server.get("/v1/models", cookie=cookie)).status == 401
            assert [(await server.get(path)).status for path in ("/", "/?key=secret")] == [401, 200]

    asyncio.run(whole())


# The queue, and ends


def slow(num_hanging=99):
    return FakeEngine(faults=[Fault("generate", call, kind="hang") for call in range(1, num_hanging + 1)])


async def settle(condition):
    """Let the loop go on until something is so."""
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_search_and_frees_its_place(stream):
    async def whole():
        limits = ServeLimits(max_concurrent=1, max_queue=1)
        async with running(engine=slow(), limits=limits) as server:
            service = server.service
            exchanges = [server.exchange("POST", CHAT, chat(TEXT, stream=stream)) for _ in range(2)]
            tasks = [asyncio.create_task(exchange.send()) for exchange in exchanges]
            await settle(lambda: service.gate.waiting == 1 and server.engine.calls)
            busy = await server.ask(stream=stream)
            assert busy.status == 429 and busy.error["code"] == "queue_full" and int(busy.answered["retry-after"]) >= 1
            exchanges[1].leave()  # from the queue
            await settle(lambda: service.gate.waiting == 0)
            exchanges[0].leave()  # from its search
            await asyncio.gather(*tasks)
            assert (service.gate.running, service.gate.waiting, service.jobs.active) == (0, 0, {}) and server.held == 0
            metrics = await server.metrics()
            assert metrics['ets_searches_total{end="cancelled"}'] == "1.0"
            assert metrics["ets_searches_running"] == metrics["ets_searches_waiting"] == "0.0"
            listed = (await server.get("/live/searches")).json["problems"]
            assert [one["state"] for one in listed] == ["cancelled"]  # those that never began are not kept

    asyncio.run(whole())


def test_shutting_down_waits_for_what_ends_in_time():
    async def whole():
        engine = FakeEngine(seconds_per_call=0.001)
        async with running(engine=engine, limits=ServeLimits(shutdown_seconds=300)) as server:
            asked = asyncio.create_task(server.ask())
            await settle(lambda: server.engine.calls)
            await server.service.drain()
            assert (await asked).status == 200
            late = await server.ask()
            assert late.status == 503 and late.error["code"] == "shutting_down"

    asyncio.run(whole())


def test_shutting_down_cancels_what_runs_past_the_deadline_and_says_so():
    async def whole():
        limits = ServeLimits(max_concurrent=2, shutdown_seconds=0.05)
        async with running(engine=slow(), limits=limits) as server:
            stream = asyncio.create_task(server.ask(stream=True))
            whole = asyncio.create_task(server.ask())
            await settle(lambda: len(server.engine.calls) == 2)
            waits = asyncio.create_task(server.ask())
            await settle(lambda: server.service.gate.waiting == 1)
            await server.service.drain()
            assert [(await one).status for one in (whole, waits)] == [503, 503]
            assert (await stream).events[-1]["error"]["code"] == "shutting_down"
            assert server.service.jobs.active == {} and server.held == 0

    asyncio.run(whole())


def test_a_fault_of_our_own_is_a_500_that_says_nothing_and_a_log_that_says_all(monkeypatch, caplog):
    def watch(job, progress):
        raise RuntimeError(f"secret of {job.id}")

    monkeypatch.setattr(Job, "watch", watch)

    async def whole():
        async with running() as server:
            for stream in (False, True):
                answer = await server.ask(stream=stream)
                assert answer.status == 500 and answer.error["code"] == "internal_error"
                assert b"secret" not in answer.content
            assert (await server.metrics())['ets_searches_total{end="failed"}'] == "2.0" and server.held == 0

    asyncio.run(whole())
    assert caplog.text.count("RuntimeError: secret of") == 2


def test_a_fault_outside_a_search_is_counted_as_a_500_and_not_as_a_client_that_left(monkeypatch):
    async def whole():
        async with running() as server:
            monkeypatch.setattr(server.service, "models", None)
            request = server.exchange("GET", "/v1/models")
            with pytest.raises(TypeError):  # raised on for the server's log, after the answer
                await request.send()
            assert request.status == 500 and request.error["type"] == "server_error"
            assert (await server.metrics())['ets_requests_total{route="/v1/models",status="500"}'] == "1.0"

    asyncio.run(whole())


# The rest


@served
async def test_the_root_shows_the_way(server):
    page = await server.get("/")
    text = page.content.decode()
    assert page.status == 200 and page.answered["content-type"].startswith("text/html")
    for link in ("live", "v1/models", "openapi.json", "metrics", "health"):
        assert f'href="{link}"' in text and (await server.get(f"/{link}")).status == 200
    assert "mini-target" in text and "confidence:tail" in text


@pytest.mark.parametrize("prompts", [False, True])
def test_the_access_log_has_a_line_for_each_request_and_no_word_of_it_unless_asked(tmp_path, prompts):
    async def whole():
        engine = FakeEngine()
        settings = SearchSettings(prm="none", method="beam", width=2, vote="majority")
        service = Service(settings, engines=Engines(policy=engine))
        app = make_app(service, ("secret",), AccessLog(str(tmp_path / "log"), prompts=prompts))
        key = {"authorization": "Bearer secret"}
        async with app.router.lifespan_context(app):
            await Exchange(app, "POST", f"/beam-3{CHAT}", chat("Add 3. My secret."), key).send()
            await Exchange(app, "POST", CHAT, chat(model="no"), key).send()
            await Exchange(app, "GET", "/live?key=secret").send()

    asyncio.run(whole())
    searched, wrong, page = map(json.loads, (text := (tmp_path / "log").read_text()).splitlines())
    assert ("secret" in text) is prompts and "key=" not in text
    assert (searched["path"], searched["status"], searched["width"]) == (f"/beam-3{CHAT}", 200, 3)
    assert searched["state"] == "finished" and searched["sampled_tokens"] > 0 and searched["id"].startswith("chatcmpl-")
    assert (wrong["status"], page["path"], page["client"]) == (404, "/live", "127.0.0.1") and "id" not in wrong
    assert ("prompt" in searched) is prompts


def test_a_log_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"--access-log .*: Is a directory"):
        AccessLog(str(tmp_path))


def test_searches_are_spans_of_open_telemetry(monkeypatch):
    from opentelemetry import trace

    spans = []

    class Span(trace.NonRecordingSpan):
        def __init__(self, name, context, attributes):
            super().__init__(trace.INVALID_SPAN_CONTEXT)
            self.name, self.attributes = name, dict(attributes)
            self.parent = trace.get_current_span(context).get_span_context()

        def set_attribute(self, key, value):
            self.attributes[key] = value

    class Tracer(trace.NoOpTracer):
        @contextmanager
        def start_as_current_span(self, name, context=None, attributes=None, **_):
            spans.append(Span(name, context, attributes))
            yield spans[-1]

    monkeypatch.setattr(trace, "get_tracer", lambda name: Tracer())

    async def whole():
        async with running() as server:
            parent = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            return (await server.exchange("POST", CHAT, chat("Add 3."), **parent).send()).json

    got = asyncio.run(whole())
    (span,) = spans
    assert span.name == "search beam" and span.parent.trace_id == int("ab" * 16, 16)
    assert span.attributes["gen_ai.response.id"] == got["id"] and span.attributes["ets.width"] == 4
    assert span.attributes["gen_ai.usage.input_tokens"] == got["usage"]["prompt_tokens"]
    assert span.attributes["ets.deadline_reached"] is False and span.attributes["ets.seconds.policy"] > 0
    assert not any("Add 3" in str(value) for value in span.attributes.values())


def test_a_search_is_seen_while_it_runs_and_a_silent_stream_is_kept_open(monkeypatch):
    monkeypatch.setattr(stream_module, "_KEEP_ALIVE_SECONDS", 0.01)

    async def whole():
        async with running(engine=FakeEngine(faults=[Fault("generate", 2, kind="hang")]), width=1) as server:
            exchange = server.exchange("POST", CHAT, chat(TEXT, stream=True, seed=3))
            task = asyncio.create_task(exchange.send())
            await exchange.until(": searching\n\n")
            (listed,) = (await server.get("/live/searches")).json["problems"]
            assert (listed["state"], listed["running"]) == ("running", True)
            seen = (await server.get(f"/live/searches/{listed['id']}")).json
            assert seen["running"] and seen["num_nodes"] == 3 and "pending" in seen["strings"]
            exchange.leave()
            await task

    asyncio.run(whole())


@served
async def test_the_models_are_the_policy_and_every_method(server):
    models = (await server.get("/v1/models")).json
    assert models["object"] == "list" and "mini-target@ets" in {one["id"] for one in models["data"]}
    one = (await server.get("/v1/models/mini-target@ets-4")).json
    assert (one["id"], one["search"]["width"]) == ("mini-target@ets-4", 4)
    assert (await server.get("/v1/models/other")).status == 404


@served
async def test_a_search_is_seen_while_it_is_kept(server):
    done = (await server.ask(seed=1)).json
    (listed,) = (await server.get("/live/searches")).json["problems"]
    assert (listed["id"], listed["problem"], listed["running"]) == (done["id"], TEXT, False)
    seen = (await server.get(f"/live/searches/{done['id']}")).json
    assert seen["id"] == done["id"] and seen["num_nodes"] == done["search"]["stats"]["num_nodes"]
    assert seen["answer"] == done["search"]["answer"] and seen["running"] is False and seen["chosen"]
    assert (await server.get("/live/searches/none")).status == 404
    page = await server.get("/live")
    assert page.answered["content-type"].startswith("text/html") and b"/live/searches" in page.content


@served
async def test_metrics_count_answers_tokens_and_seconds(server):
    done = (await server.ask()).json
    await server.get("/v1/nothing")
    metrics = await server.metrics()
    assert metrics['ets_requests_total{route="/v1/chat/completions",status="200"}'] == "1.0"
    assert metrics['ets_requests_total{route="other",status="404"}'] == "1.0"
    sampled = done["usage"]["search"]["models"]["policy"]["sampled_tokens"]
    assert float(metrics['ets_tokens_total{kind="sampled",role="policy"}']) == sampled
    assert float(metrics['ets_stage_seconds_total{stage="policy"}']) > 0
    assert metrics["ets_search_seconds_count"] == "1.0"


def test_searches_of_the_same_settings_are_made_once_and_not_too_many_are_kept():
    async def whole():
        async with running() as server:
            searches = server.service.searches
            first = await searches.get({"width": 3, "seed": 1})
            assert await searches.get({"width": 3, "seed": 2}) is first
            searches._max_kept = 2
            for width in (4, 5):
                await searches.get({"width": width})
            assert await searches.get({"width": 3}) is not first and len(searches._kept) == 2

    asyncio.run(whole())


@served
async def test_the_document_tells_this_servers_limits(server):
    document = json.loads((await server.get("/openapi.json")).content)
    schemas = document["components"]["schemas"]
    assert schemas["SearchOptions"]["properties"]["width"]["maximum"] == 8
    assert "mini-target@ets" in schemas["ChatRequest"]["properties"]["model"]["enum"]
    assert schemas["SearchOptions"]["properties"]["prm"]["enum"][0] == "none"
    assert schemas["CompletionRequest"]["properties"]["max_tokens"]["anyOf"][0]["maximum"] == 1024
    answers = document["paths"][CHAT]["post"]["responses"]
    assert answers.keys() >= {"200", "400", "401", "404", "413", "422", "429", "503"}
    assert answers["422"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorBody")
