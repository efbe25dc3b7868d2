"""What the server's routes bound and refuse: budgets, deadlines, origins, wrong input, keys."""

import asyncio
import json
from collections import Counter

import pytest
from fake_engine import FakeEngine, Fault
from markov import LabelModel, story_model
from serve_client import chat
from serving_app import CHAT, TEXT, running, served, settle, slow
from virtual_clock import timed

from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search.errors import ConfigError
from search.parts import Stateless
from search.serve.access_log import AccessLog
from search.serve.service import ServeLimits

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


@pytest.mark.parametrize("limit", ["deadline", "max_seconds"])
def test_a_deadline_while_all_next_steps_are_written_gives_what_stood_before_them(limit):
    """Between two levels everything is being written: whole answers were empty, whose streams had said steps."""

    async def whole():
        seen = set()
        async with running(engine=FakeEngine(story_model(answer=0.1), seconds_per_token=0.1)) as server:
            for seconds in (0.75, 1.25):
                body, headers = chat(TEXT, seed=3), {}
                if limit == "deadline":
                    headers["X-Ets-Deadline"] = str(seconds)
                else:
                    body["search"] = {"max_seconds": seconds}
                answer = (await server.exchange("POST", CHAT, body, **headers).send()).json
                (choice,), search = answer["choices"], answer["search"]
                assert search["deadline_reached"] and search["branches_lost"] == 0
                assert choice["message"]["content"] and choice["finish_reason"] == "length"
                stream = await server.exchange("POST", CHAT, {**body, "stream": True}, **headers).send()
                pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in stream.events]
                assert "".join(pieces) == choice["message"]["content"]
                seen.add(choice["message"]["content"])
                assert server.held == 0
        assert len(seen) > 1, "it grew"

    timed(whole())


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

WRONG = {
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
    "option of no kind": (chat(search={"options": {"node_cost_weight": None}}), 422, "search.options"),
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
    "a stop that is half a character": (chat(stop="\ud800"), 422, "stop"),
    "a function's call": (
        {**chat(), "messages": [{"role": "assistant", "function_call": {"name": "f"}}, *chat()["messages"]]},
        422,
        "messages.0.function_call",
    ),
    "logprobs as a word": (chat(logprobs="yes"), 422, "logprobs"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_said_in_the_shape_of_openai(name):
    body, status, param = WRONG[name]

    async def whole():
        async with running() as server:
            for stream in (False, True):
                streamed = {**body, "stream": stream} if isinstance(body, dict) else body
                answer = await server.exchange("POST", CHAT, streamed).send()
                assert answer.status == status and answer.error["param"] == param, answer.content
                assert answer.error["type"] == "invalid_request_error"

    asyncio.run(whole())


@served
async def test_what_is_refused_is_called_by_its_name_and_never_left_alone(server):
    option = await server.ask(search={"options": {"num_keep": None}})
    assert option.error["message"] == "options.num_keep = None: must be a number, a text, true or false"
    unused = await server.ask(model="mini-target@self-consistency@confidence:tail")
    said = "method self-consistency does not use prm confidence:tail (it is none); leave it out"
    assert (unused.status, unused.error["message"]) == (422, said)
    early = await server.exchange("POST", CHAT, chat(TEXT), **{"X-Ets-Deadline": "1_0"}).send()
    assert early.status == 422 and "is no number of seconds" in early.error["message"]
    said = (await server.ask(logprobs="yes")).error["message"]
    assert said == "logprobs: must be a valid boolean", "and nothing of the other address's logprobs"


@served
async def test_a_prompt_beyond_the_context_is_refused_also_in_a_stream(server):
    for stream in (False, True):
        answer = await server.ask("Add 3. " * 4000, stream=stream)
        assert answer.status == 422 and "context holds" in answer.error["message"]
        assert answer.error["code"] == "context_length_exceeded" and answer.error["param"] == "messages"
    raw = await server.complete("Add 3. " * 4000)
    assert raw.error["code"] == "context_length_exceeded" and raw.error["param"] == "prompt"


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


@pytest.mark.parametrize("role", ["policy", "prm"])
def test_an_answer_that_stands_on_what_is_left_of_a_search_is_marked_everywhere(role, tmp_path):
    """An engine that failed for a part of the tree left a 200 like any other."""
    faults = {"generate": [Fault("generate", 2)], "label_logprobs": [Fault("label_logprobs", 2)]}

    async def whole():
        engine, log = FakeEngine(faults=faults["generate"] if role == "policy" else ()), tmp_path / "log"
        async with running(engine=engine, log=AccessLog(str(log)), method="best-of-n") as server:
            if role == "prm":
                judge = FakeEngine(LabelModel(), faults=faults["label_logprobs"])
                codec = LabelTokenCodec(judge.tokenizer, PrmConfig())
                (await server.service.searches.get({})).driver.scorer = PrmScorer(judge, codec)
            lossy = await server.ask(seed=1)
            search = lossy.json["search"]
            assert lossy.status == 200 and search["answer"] is not None
            assert search["branches_lost"] == 1 <= search["stats"]["num_failed"]
            assert lossy.answered["x-ets-branches-lost"] == "1"
            (note,) = search["notes"]
            assert (
                note.startswith("branches lost: 1; the answer stands on the others; the first: ")
                and "scripted error" in note
            )
            assert (await server.metrics())["ets_branches_lost_total"] == "1.0"
            whole = await server.ask(seed=1)
            assert whole.json["search"]["branches_lost"] == 0 and "x-ets-branches-lost" not in whole.answered
            assert [json.loads(line).get("branches_lost") for line in log.read_text().splitlines()] == [1, None, 0]

    asyncio.run(whole())


def test_a_stream_of_a_search_that_lost_branches_says_so_at_its_end():
    async def whole():
        async with running(engine=FakeEngine(faults=[Fault("generate", 2)]), method="best-of-n") as server:
            search = (await server.ask(seed=1, stream=True)).events[-1]["search"]
            assert search["branches_lost"] == 1 and "branches lost: 1; " in search["notes"][0]

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


@pytest.mark.parametrize(
    "limit", [{"max_width": 0}, {"max_queue": -1}, {"shutdown_seconds": float("nan")}, {"deadline": 0}]
)
def test_a_limit_out_of_its_range_is_refused_in_python_as_well(limit):
    with pytest.raises(ConfigError, match=f"{next(iter(limit))} .*: must be"):
        ServeLimits(**limit)
