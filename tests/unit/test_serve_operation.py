"""The server at work: clients that leave, its end, its faults, its log, spans and metrics, and what it keeps."""

import asyncio
import json
from contextlib import contextmanager

import pytest
from fake_engine import FakeEngine, Fault
from serve_client import Exchange, chat
from serving_app import CHAT, TEXT, running, served, settle, slow

from search.config import SearchSettings
from search.errors import ConfigError
from search.serve import stream as stream_module
from search.serve.access_log import AccessLog
from search.serve.app import make_app
from search.serve.jobs import Job
from search.serve.service import ServeLimits, Service
from search.setup.routing import Engines

# The queue, and ends


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
    page = await server.get("/", host="models.example:8000")
    text = page.content.decode()
    assert page.status == 200 and page.answered["content-type"].startswith("text/html")
    for link in ("live", "v1/models", "openapi.json", "metrics", "health"):
        assert f'href="{link}"' in text and (await server.get(f"/{link}")).status == 200
    assert "mini-target" in text and "confidence:tail" in text
    assert "curl -s http://models.example:8000/v1/chat/completions" in text


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

        def set_attributes(self, attributes):
            self.attributes |= attributes

        def set_status(self, status, description=None):
            self.attributes["status"] = status

    class Tracer(trace.NoOpTracer):
        @contextmanager
        def start_as_current_span(self, name, context=None, attributes=None, **_):
            spans.append(Span(name, context, attributes))
            yield spans[-1]

    monkeypatch.setattr(trace, "get_tracer", lambda name: Tracer())

    around = trace.SpanContext(7, 8, is_remote=False, trace_flags=trace.TraceFlags(1))

    async def whole():
        parent = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        async with running() as server:
            got = (await server.exchange("POST", CHAT, chat("Add 3."), **parent).send()).json
        async with running(engine=FakeEngine(faults=[Fault("generate", 1)])) as server:
            with trace.use_span(trace.NonRecordingSpan(around)):  # the framework's own, of the request
                await server.exchange("POST", CHAT, chat("Add 3."), **parent).send()
        return got

    got = asyncio.run(whole())
    span, failed = (one for one in spans if one.name.startswith("search "))
    assert failed.parent.trace_id == 7, "beside its request's span it was in a trace of its own"
    assert failed.attributes["status"] is trace.StatusCode.ERROR and "status" not in span.attributes
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
