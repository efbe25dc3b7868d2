"""`ets serve` with the mini family, in a process of its own, asked by the openai client as it comes."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest
import recall_model
from documents import SERVED, SERVED_SNIPPETS
from serve_client import PROBLEM, chat, ets_serve

from search import Search

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text()
ASK = [{"role": "user", "content": PROBLEM}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=120) as made:
        yield made


def test_an_answer_is_what_the_same_search_gives_without_a_server(client):
    got = client.chat.completions.create(model="mini-target@rebase-6", messages=ASK, seed=3)
    with Search(method="rebase", width=6, seed=3) as search:
        result = search.solve(PROBLEM)
    (choice,) = got.choices
    assert choice.message.content == result.text and choice.message.role == "assistant"
    assert choice.finish_reason == "stop" and got.object == "chat.completion"
    assert got.search["answer"] == result.answer and got.search["seed"] == 3
    assert got.usage.prompt_tokens == len(result.tree.root.ids)
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    roles = got.usage.search["models"]
    assert roles["policy"]["sampled_tokens"] == result.stats.policy_tokens
    assert roles["prm"]["computed_tokens"] == result.stats.prm_tokens
    assert got.usage.search["kv_tokens_peak"] == result.stats.kv_tokens_peak


@pytest.fixture(scope="module")
def recalling(tmp_path_factory):
    """A client of a server with a model that answers from what stands in its context."""
    folder = tmp_path_factory.mktemp("recalls")
    recall_model.build(folder)
    search = ("--prm", "none", "--method", "self-consistency", "--width", 3)
    with (
        ets_serve("--policy", folder, *search) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=120) as client,
    ):
        yield client


@pytest.mark.parametrize("name", recall_model.NAMES)
def test_a_conversation_of_five_turns_is_answered_with_knowledge_of_the_first(recalling, name):
    model = recalling.models.list().data[0]

    def answer(*turns):
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
        got = recalling.chat.completions.create(model=model.id, messages=messages, seed=1)
        assert got.search["num_ignored_messages"] == 0
        return got.choices[0].message.content, got.search["answer"]

    first = f"My hen is called {name}. She has 3 eggs."
    later = ("Then there are 3.", "She lays 9 more.", "Then there are 12.", "What is my hen called?")
    assert answer(first, *later) == (f"It is called \\boxed{{{name}}}.", name)
    other = next(one for one in recall_model.NAMES if one != name)
    assert answer(first.replace(name, other), *later)[1] == other
    assert answer(first.replace(name, "Bo"), *later)[1] == answer(*later[1:])[1] == recall_model.UNTOLD


def test_a_stream_adds_up_to_the_answer_and_shows_the_search(client):
    settings = {"extra_body": {"search": {"method": "ets", "width": 8}}, "seed": 1, "model": "mini-target"}
    whole = client.chat.completions.create(messages=ASK, **settings)
    options = {"include_usage": True}
    with client.chat.completions.create(messages=ASK, stream=True, stream_options=options, **settings) as stream:
        chunks = list(stream)
    assert whole.search["width"] == 8
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens and chunks[-1].choices == []
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
    searches = [chunk.search for chunk in chunks if getattr(chunk, "search", None)]
    nodes = [one["nodes"] for one in searches if "selection" in one]
    assert nodes == sorted(nodes) and nodes[0] == 9 and nodes[-1] == whole.search["stats"]["num_nodes"]


def test_wrong_input_raises_the_clients_own_errors(client):
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.chat.completions.create(model="mini-target", messages=ASK, extra_body={"search": {"width": 17}})
    assert raised.value.param == "search.width" and "allows up to 16" in raised.value.message
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-4", messages=ASK)
    assert raised.value.code == "model_not_found"


def test_the_models_are_listed_and_found(client):
    names = [model.id for model in client.models.list()]
    assert "mini-target" in names and "mini-target@ets" in names
    assert client.models.retrieve("mini-target@beam-4").search["method"] == "beam"


def test_no_search_is_left_running(server):
    metrics = server.metrics()
    assert metrics["ets_searches_running"] == metrics["ets_searches_waiting"] == 0
    assert metrics['ets_kv_tokens_held{role="policy"}'] == metrics['ets_kv_tokens_held{role="prm"}'] == 0
    assert metrics['ets_tokens_total{kind="sampled",role="policy"}'] > 0


def test_a_keyed_server_routes_between_draft_and_target_and_stops_on_a_signal():
    with ets_serve("--writer", "arbitrage", "--width", 2, "--name", "me", env={"ETS_API_KEY": "one, two"}) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="three", max_retries=0) as stranger:
            for ask in (
                lambda: stranger.models.list(),
                lambda: stranger.chat.completions.create(model="me", messages=ASK),
            ):
                with pytest.raises(openai.AuthenticationError) as raised:
                    ask()
                assert raised.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="two", max_retries=0, timeout=120) as friend:
            for search, roles in (
                ({}, {"draft", "target", "router", "prm"}),
                ({"router": "rsd:0.7"}, {"draft", "target", "router", "prm"}),
                ({"router": "always", "method": "chain"}, {"draft", "target"}),
                ({"writer": "model", "method": "beam"}, {"policy", "prm"}),
            ):
                got = friend.chat.completions.create(model="me", messages=ASK, extra_body={"search": search})
                assert got.usage.search["models"].keys() == roles, search
                assert got.usage.search["dropped_tokens"] >= 0
        assert server.end(signal.SIGTERM) == 0
        assert server.said == ["ets: the server ends\n"]


def test_wrong_starts_are_said_in_a_line_with_code_2(inside):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for args, said in (
            (["--port", port], "cannot listen at 127.0.0.1"),
            (["--width", 8, "--max-width", 4], "width 8 is above the limit for requests, 4"),
            (["--policy", "mini:giant"], "unknown mini model 'giant'"),
            (["--api-key", ""], "a key must not be empty"),
        ):
            ran = inside("serve", "--port", "0", *args)
            assert (ran.code, ran.out) == (2, "") and said in ran.err and len(ran.err.splitlines()) == 1, ran.err


def test_a_lost_extra_is_said(tmp_path):
    """Without fastapi there is no server, and the way to one is said."""
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('no', name='fastapi')\n")
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", "serve"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "-m pip install 'fastapi>=" in done.stderr


def test_the_live_page_and_a_tree(server):
    with httpx.Client(base_url=server.url, timeout=120) as plain:
        done = plain.post("/v1/chat/completions", json=chat(seed=2)).json()
        assert "text/html" in plain.get("/live").headers["content-type"]
        listed = {one["id"]: one for one in plain.get("/live/searches").json()["problems"]}
        assert listed[done["id"]]["answer"] == done["search"]["answer"]
        seen = plain.get(f"/live/searches/{done['id']}").json()
    assert seen["problem"] == PROBLEM and len(seen["nodes"]["parent"]) == done["search"]["stats"]["num_nodes"]
    assert json.dumps(seen)


@pytest.mark.parametrize("snippet", SERVED_SNIPPETS, ids=lambda snippet: snippet.name)
def test_a_python_snippet_of_the_documents_runs(server, capsys, snippet):
    code = snippet.code.replace(SERVED, server.url)
    exec(compile(code, snippet.name, "exec"), {"__name__": "snippet"})
    assert "\\boxed{" in capsys.readouterr().out


@pytest.mark.parametrize("snippet", re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL))
def test_a_shell_snippet_of_the_document_runs(server, snippet):
    command = snippet.replace(SERVED, server.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and ("chat.completion" in done.stdout or "ets_searches_running" in done.stdout)


def test_it_ends_on_an_interrupt_also_where_a_shell_had_that_ignored():
    with ets_serve(before=partial(signal.signal, signal.SIGINT, signal.SIG_IGN)) as server:
        assert server.end(signal.SIGINT) == 0


def test_a_signal_answers_everybody_before_the_server_goes():
    limits = ("--max-concurrent", 2, "--max-queue", 64, "--shutdown-seconds", 0)
    num_clients = 24

    async def run(server):
        first = asyncio.Event()

        async def ask(web, seed):
            answer = await web.post("/v1/chat/completions", json=chat(seed=seed, search={"width": 64}))
            first.set()
            return answer.status_code

        async with httpx.AsyncClient(base_url=server.url, timeout=280) as web:
            asked = [asyncio.create_task(ask(web, seed)) for seed in range(num_clients)]
            await first.wait()
            code = await asyncio.to_thread(server.end, signal.SIGINT)
            return code, await asyncio.gather(*asked)

    with ets_serve(*limits) as server:
        code, statuses = asyncio.run(run(server))
    assert code == 0 and set(statuses) == {200, 503}
