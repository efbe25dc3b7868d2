"""A model behind a chat API: what is found out of it, what it writes, what it costs, and what goes wrong on the way."""

import asyncio
import json
import re
import time

import pytest
from critics import critic
from fake_chat import WEEK, ChatScript, chatting
from markov import LabelModel

from search.api import Search
from search.config import EvalSettings, SearchSettings
from search.engines.remote import engine as remote
from search.engines.remote.chat_tokens import END, ChatTokenizer, conversation
from search.errors import ConfigError, EngineError
from search.plain_text import encode_text
from search.runs.compare import compare
from search.runs.evaluation import Evaluation
from search.runs.report import read_run
from search.serve.searches import Searches
from search.setting_types import parse_price
from search.types import NodeStatus, Prefix, Problem, Segment


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(remote, "_pause", lambda attempt, error: error.wait_seconds)


def search_on(server, prm=None, method="self-consistency", **settings):
    return Search("small", prm, method, engine=f"chat:{server.url}", **{"width": 4, "until": "spent", **settings})


# Conversations as ids


def test_a_conversation_is_its_ids_and_back():
    tokenizer = ChatTokenizer()
    turns = [{"role": "system", "content": "Be brief. ✓"}, {"role": "user", "content": "How many?\n"}]
    ids = tokenizer.encode(tokenizer.chat(turns))
    assert conversation(ids) == turns
    begun = (*ids, *b"So 7.\n\n")
    assert conversation(begun) == [*turns, {"role": "assistant", "content": "So 7.\n\n"}]
    assert conversation((*begun, END)) == conversation(begun)
    assert conversation(tokenizer.encode("How many?")) is None
    assert tokenizer.decode(ids) == "Be brief. ✓How many?\n"


def test_what_looks_like_a_turn_in_a_question_is_text():
    tokenizer = ChatTokenizer()
    ids = (*tokenizer.encode("<|user|>"), *encode_text(tokenizer, "Say <|assistant|> or <|end|>."))
    assert conversation(ids) == [{"role": "user", "content": "Say <|assistant|> or <|end|>."}]


# What is found out


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ({}, "whole solutions"),
        ({"refuses": frozenset({"continue_final_message"})}, "whole solutions"),
        ({"continues": True, "tells_stop": ""}, "whole solutions"),
        ({"continues": True}, "continues an assistant's turn"),
        ({"continues": True, "tells_stop": "matched_stop"}, "continues an assistant's turn"),
    ],
    ids=str,
)
def test_whether_it_continues_a_turn_is_found_out_by_asking(script, steps):
    with chatting(ChatScript(**script)) as server, search_on(server) as search:
        info = search.engines["policy"].info
        found = {"serves": "small", "ids": "bytes of text", "steps": steps, "usage": "told", "seed": "sent"}
        assert info.details == found
        assert len(server.requests) == 2 and max(one["max_tokens"] for one in server.requests) <= 64
        assert any("engine chat: small" in note and steps[:6] in note for note in search.notes)
    assert WEEK.startswith(server.requests[1]["messages"][-1]["content"])


def test_it_is_asked_by_the_names_that_it_knows():
    script = ChatScript(refuses=frozenset({"max_tokens", "seed"}), usage=False)
    with chatting(script) as server, search_on(server) as search:
        result = search.solve("Add 3.")
        assert any("does not say how many tokens" in note for note in search.notes)
        assert search.engines["policy"].info.details["seed"] == "not taken"
    body = server.requests[-1]
    assert body["max_completion_tokens"] == 1024 and "seed" not in body
    assert result.stats.num_finished == 4 and result.stats.policy_tokens is None
    assert result.models["policy"].prompt_tokens is result.models["policy"].sampled_tokens is None


# Whole solutions


@pytest.mark.parametrize("most_choices", [100, 3, 1])
def test_whole_solutions_are_cut_into_steps(most_choices):
    with chatting(ChatScript(most_choices=most_choices)) as server, search_on(server, width=6) as search:
        result = search.solve("Add 3.")
        asked = server.requests[2:]
    assert asked[0]["n"] == 6 and "stop" not in asked[0] and asked[0]["messages"][0]["role"] == "system"
    assert len(asked) == {100: 1, 3: 4, 1: 6}[most_choices]
    assert result.stats.num_finished == 6 and result.answer in ("3", "4")
    for one in result.trajectories:
        path = result.tree.path(one.node)[1:]
        assert all(node.text.endswith(".\n\n") for node in path[:-1]) and "boxed" in path[-1].text
        assert path[-1].reason == "end of text"
    assert max(node.depth for node in result.tree) > 2
    stats = result.stats
    nothing = ("unique_tokens", "computed_tokens", "kv_tokens_mean", "kv_tokens_peak", "kv_tokens_code",
               "kv_tokens_engine_peak", "kv_tokens_ledger_peak")  # fmt: skip
    assert all(getattr(stats, name) is None for name in nothing)
    assert stats.policy_tokens > 0 and result.models["policy"].kept_tokens is None
    assert {one["num_tokens"] for one in result.to_dict()["trajectories"]} == {None}


def test_a_critic_scores_what_it_wrote_step_by_step():
    with chatting() as server, search_on(server, critic(LabelModel()), "best-of-n") as search:
        result = search.solve("Add 3.")
    written = [node for node in result.tree if node.parent is not None]
    assert written and all(node.reward is not None for node in written)
    assert result.stats.prm_tokens == result.stats.prm_unique_tokens > 0
    assert set(result.models) == {"policy", "prm"}


def test_a_solution_that_is_cut_at_its_limit_ends_there():
    with chatting() as server, search_on(server, max_tokens=1) as search:
        result = search.solve("Add 3.")
    assert {node.reason for node in result.tree.leaves(NodeStatus.FINISHED)} <= {"limit of a solution's tokens"}
    assert result.stats.num_failed == 0


@pytest.mark.parametrize("method", ["beam", "rebase", "ets"])
def test_a_method_that_needs_steps_says_what_works(method):
    with (
        chatting() as server,
        search_on(server, critic(LabelModel()), method) as search,
        pytest.raises(ConfigError, match=rf"method {method} goes on from steps.* for self-consistency and best-of-n"),
    ):
        search.solve("Add 3.")


# Step by step


@pytest.mark.parametrize("trims", [False, True])
@pytest.mark.parametrize("method", ["rebase", "ets", "beam", "best-of-n"])
def test_a_server_that_continues_is_searched_step_by_step(method, trims):
    with chatting(ChatScript(continues=True, trims=trims)) as server, search_on(
        server, critic(LabelModel()), method, width=8
    ) as search:  # fmt: skip
        result = search.solve("Add 3.")
        again = search.solve("Add 3.")
    assert result.stats.num_finished == 8 and result.stats.num_failed == 0
    assert max(node.depth for node in result.tree) > 1
    for node in result.tree.nodes[1:]:
        assert node.text.endswith("\n\n") or "boxed" in node.text
        assert not node.text.startswith("\n") and node.text.count("\n\n") <= 1
    continued = [one for one in server.requests[2:] if one["messages"][-1]["role"] == "assistant"]
    assert continued and all(one["continue_final_message"] for one in continued)
    assert [node.ids for node in again.tree] == [node.ids for node in result.tree], "seeds are of the path"


def test_what_is_written_ahead_is_what_is_written_in_its_turn():
    found = []
    with chatting(ChatScript(continues=True)) as server:
        for speculate in (None, 1.0):
            with search_on(server, critic(LabelModel()), "rebase", width=6, speculate=speculate) as search:
                result = search.solve(Problem("p", "Add 3.", "4"))
                found.append(([(node.ids, node.reward) for node in result.tree], result.answer))
    assert found[0] == found[1]


# What it costs


def test_prices(tmp_path):
    runs = []
    for name, script in (("told", ChatScript()), ("untold", ChatScript(usage=False))):
        with chatting(script) as server:
            settings = {"policy": "small", "engine": f"chat:{server.url}", "method": "self-consistency", "width": 3,
                        "limit": 2, "price": "2,10", "until": "spent"}  # fmt: skip
            runs.append(evaluate(settings, tmp_path / name))
    told, untold = (run.summary for run in runs)
    policy = told.models["policy"]
    assert told.cost == pytest.approx((2 * policy.prompt_tokens + 10 * policy.sampled_tokens) / 1e6)
    assert told.cost > 0 and untold.cost is None
    assert f"cost              {told.cost:.4g}, at 2 and 10 a million tokens" in told.to_text()
    assert "cost              unknown" in untold.to_text() and "unknown unique" in untold.to_text()
    assert told.to_dict()["cost"] == told.cost and untold.to_dict()["cost"] is None
    rows = compare(runs).rows
    assert rows[0].cost == pytest.approx(told.cost / 2) and rows[1].cost is None
    assert "cost a problem" in compare(runs).table().text() and rows[1].policy_tokens is None
    kept = json.loads((tmp_path / "told" / "run.json").read_text())
    assert kept["settings"]["price"] == "2,10" and kept["config_hash"] == runs[0].config_hash
    assert any("engine chat: small" in note for note in kept["notes"])


def evaluate(settings, folder):
    evaluation = Evaluation(EvalSettings(**settings), folder)

    async def main():
        await evaluation.run(2)
        await evaluation.search.aclose()

    asyncio.run(main())
    return read_run(folder)


def test_a_price_without_a_chat_server_is_left_alone():
    search = Search("mini:target", None, "self-consistency", price="1,2")
    assert "price" in search.ignored and "price" not in search.record
    assert parse_price("0.15,0.6") == (0.15, 0.6)
    for wrong in ("1", "1,2,3", "a,b", "-1,2", "nan,1", "1,inf"):
        with pytest.raises(ConfigError, match=r"price = .*: must be two numbers with a comma between them"):
            Search(price=wrong)


# What goes wrong


def test_a_wrong_key_is_said_and_never_shown(capsys):
    with chatting(ChatScript(api_key="right")) as server:
        with (
            search_on(server, engine_api_key="wrong") as search,
            pytest.raises(
                ConfigError, match=r"answered 401: Incorrect API key provided \(give its key as ETS_ENGINE_API_KEY"
            ),
        ):
            search.solve("Add 3.")
        with search_on(server, engine_api_key="right") as search:
            assert search.solve("Add 3.").answer
            assert "right" not in json.dumps(search.record)


@pytest.mark.parametrize("fault", [429, 500, 503, "nonsense", "html"])
def test_what_may_pass_is_tried_again(fault):
    script = ChatScript()
    with chatting(script) as server, search_on(server, width=2) as search:
        _ = search.engines
        script.faults = iter([fault, fault])
        result = search.solve("Add 3.")
        assert len(server.requests) == 5
    assert result.stats.num_finished == 2 and result.stats.num_failed == 0


def test_a_server_that_asks_to_wait_is_waited_for():
    script = ChatScript()
    with chatting(script) as server, search_on(server, width=1) as search:
        _ = search.engines
        script.faults = iter([(429, 1)])
        begun = time.monotonic()
        assert search.solve("Add 3.").answer
        assert time.monotonic() - begun >= 1.0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (400, "answered 400: scripted 400"),
        (503, "answered 503: scripted 503"),
        ("nonsense", "gave an answer that makes no sense"),
        ("filter", "withheld its reply"),
        ("thinks", r"wrote nothing that can be read within its limit of tokens \(a model that thinks first needs more"),
    ],
)
def test_what_does_not_pass_is_one_line(fault, message):
    script = ChatScript()
    with chatting(script) as server, search_on(server, width=1, request_attempts=2) as search:
        _ = search.engines
        script.faults = iter([fault] * 2)
        error = search.solve("Add 3.").error
    assert error and re.search(message, error) and "\n" not in error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "none-such"}, "answered 404: The model `none-such` does not exist"),
        ({"policy": "mini:target"}, "name the model with --policy; .* serves small, large"),
    ],
)
def test_a_model_that_it_does_not_serve_is_said_when_it_is_connected(settings, message):
    with chatting() as server:
        search = Search(settings=SearchSettings(engine=f"chat:{server.url}", method="chain", **settings))
        with search, pytest.raises(ConfigError, match=message):
            search.solve("Add 3.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"prm": "critic:x", "prm_engine": "chat:http://h"},
            "neither token ids nor probabilities, so no prm runs on chat",
        ),
        ({"writer": "arbitrage", "draft_engine": "chat:http://h"}, "so no draft runs on chat"),
        ({"engine": "chat:http://h", "policy": "m", "prompt": "plain"}, "prompt plain: a chat server puts"),
        ({"engine": "chat:http://h", "policy": "m", "chat_options": {"a": 1}}, "chat_options: a chat server puts"),
        ({"engine": "chat:http://h", "policy": "m", "max_thought_tokens": 9}, "max_thought_tokens: a chat API"),
    ],
)
def test_what_a_chat_api_cannot_do_is_said_before_it_is_asked(settings, message):
    with pytest.raises(ConfigError, match=message):
        Search(settings=SearchSettings(**settings))


def test_it_is_not_served():
    with pytest.raises(ConfigError, match="ets serve tells its clients how many tokens it took"):
        Searches(SearchSettings(policy="m", engine="chat:http://h", prm="none"))


def test_confidence_needs_more_than_a_chat_api_gives():
    with chatting() as server, search_on(server, "confidence:tail", "best-of-n") as search:
        assert "gives no log-probabilities" in (search.solve("Add 3.").error or "")


def test_doctor_says_what_was_found_out(inside):
    with chatting(ChatScript(continues=True)) as server:
        ran = inside("doctor", "--engine", f"chat:{server.url}", "--policy", "small", "--prm", "none")
    assert "steps continues an assistant's turn" in ran.out and "usage told" in ran.out


def test_it_refuses_what_needs_ids():
    with chatting() as server, search_on(server) as search:
        engine = search.engines["policy"]
        prefix = Prefix("t", (Segment(0, engine.tokenizer.encode("<|user|>Hi")),))
        for work in (engine.label_logprobs(prefix, [1]), engine.read(prefix, "hidden")):
            with pytest.raises(EngineError, match="a chat API gives no"):
                asyncio.run(work)
