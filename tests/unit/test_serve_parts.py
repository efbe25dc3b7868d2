"""The server's parts by themselves: model names, settings, the body, errors, the socket."""

import json
from itertools import pairwise

import pytest
from pydantic import ValidationError

from search.config import SearchSettings
from search.errors import ConfigError, ContextOverflowError, EngineError, PolicyError, SolverError
from search.prompt.conversation import Turn
from search.serve.body import PER_REQUEST, ChatRequest, CompletionRequest, read_body
from search.serve.budget import Budget
from search.serve.errors import ApiError, dump, from_failure, from_search, from_validation
from search.serve.forms import Form
from search.serve.names import parse_name, parse_path, served_name
from search.serve.run import listen
from search.serve.settings import check_changes, merge
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step

# Model names

NAMES = {
    "mini-target": {},
    "mini-target@ets-16": {"method": "ets", "width": 16},
    "mini-target@ets-kv-8": {"method": "ets-kv", "width": 8},
    "mini-target@best-of-n": {"method": "best-of-n"},
    "mini-target@best-of-n-4": {"method": "best-of-n", "width": 4},
    "mini-target@greedy": {"method": "greedy"},
    "mini-target@32": {"width": 32},
    "mini-target@none": {"prm": "none"},
    "mini-target@beam-8@confidence:tail": {"method": "beam", "width": 8, "prm": "confidence:tail"},
    "mini-target@8@beam": {"method": "beam", "width": 8},
    "mini-draft": {"policy": "mini:draft"},
    "mini-draft@ets-4": {"policy": "mini:draft", "method": "ets", "width": 4},
}


POLICIES = {"mini-target": "mini:target", "mini-draft": "mini:draft"}
SCORERS = {"mini-prm": "mini:prm", "none": "none", "confidence:tail": "confidence:tail"}


@pytest.mark.parametrize("model", NAMES)
def test_a_model_name_stands_for_settings(model):
    assert parse_name(model, POLICIES, SCORERS) == NAMES[model]


@pytest.mark.parametrize(
    "model",
    [
        "", "gpt-4", "mini-target@", "mini-target@rebas-4", "mini-target@ets--", "mini-targetx@ets", "@ets-4",
        "mini-target@ets@beam", "mini-target@4@ets-8", "mini-target@none@mini-prm", "mini-target@none@",
    ],
)  # fmt: skip
def test_a_name_of_nothing_is_not_found(model):
    with pytest.raises(ApiError) as raised:
        parse_name(model, POLICIES, SCORERS)
    assert (raised.value.status, raised.value.param, raised.value.code) == (404, "model", "model_not_found")


def test_a_name_with_an_unknown_method_is_told_the_methods_alone():
    for model in ("mini-target@etss-4", "mini-target@etss", "mini-target@nothing-4"):
        with pytest.raises(ApiError, match=r"there is no method '\w+'; known: chain, .*") as raised:
            parse_name(model, POLICIES, SCORERS)
        assert "scorer" not in raised.value.message
    with pytest.raises(ApiError, match=r"no method and no scorer 'confident'; methods: chain, .*; scorers: mini-prm, "):
        parse_name("mini-target@confident", POLICIES, SCORERS)


def test_a_served_name_may_have_an_at_sign_of_its_own():
    assert parse_name("me@home@ets-4", {"me@home": "m"}, SCORERS) == {"method": "ets", "width": 4}
    assert parse_name("me@home", {"me@home": "m"}, SCORERS) == {}
    both = {"me": "m", "me@home": "h"}
    assert parse_name("me@home@4", both, SCORERS) == {"policy": "h", "width": 4}


def test_a_base_url_says_the_same_as_a_models_name():
    assert parse_path(["beam-8", "none"], SCORERS) == {"method": "beam", "width": 8, "prm": "none"}
    assert parse_path([], SCORERS) == {}
    for parts in (["rebas"], [""], ["ets", "beam"], ["ets", ""]):
        with pytest.raises(ApiError, match="there is nothing at this address") as raised:
            parse_path(parts, SCORERS)
        assert (raised.value.status, raised.value.param) == (404, None)


def test_the_served_name_is_made_from_the_policy(tmp_path):
    assert served_name(SearchSettings()) == "mini-target"
    assert served_name(SearchSettings(policy="Qwen/Qwen2.5-Math-1.5B")) == "Qwen/Qwen2.5-Math-1.5B"
    assert served_name(SearchSettings(policy=str(tmp_path / "model"))) == "model"
    assert served_name(SearchSettings(writer="arbitrage", target="mini:draft")) == "mini-draft"


# Settings


def test_changes_win_over_the_servers_settings():
    base = SearchSettings(method="ets", width=16, node_cost_weight=1.5, temperature=0.7)
    same = merge(base, "mini:prm", {"width": 4})
    assert (same.width, same.method, same.node_cost_weight, same.temperature) == (4, "ets", 1.5, 0.7)


def test_what_belongs_to_the_servers_method_ends_with_it():
    base = SearchSettings(method="ets", width=16, node_cost_weight=1.5, options={"temperature": 0.1}, temperature=0.7)
    other = merge(base, "mini:prm", {"method": "beam"})
    assert (other.method, other.width, other.node_cost_weight, other.options) == ("beam", 16, None, {})
    greedy = merge(base, "mini:prm", {"method": "greedy"})
    assert not {"width", "temperature"} & greedy.model_fields_set
    voted = merge(SearchSettings(method="ets", vote="weighted"), "mini:prm", {"method": "self-consistency"})
    assert not {"prm", "vote"} & voted.model_fields_set
    wide = merge(SearchSettings(method="chain", width=1, pipeline=False), "none", {"method": "beam"})
    assert "width" not in wide.model_fields_set and wide.prm == "none"


def test_a_router_needs_a_draft_and_its_model():
    with pytest.raises(ConfigError, match="must be started with --writer arbitrage"):
        merge(SearchSettings(), "mini:prm", {"writer": "arbitrage"})
    with pytest.raises(ConfigError, match="only writer arbitrage has one"):
        merge(SearchSettings(), "mini:prm", {"router": "never"})
    base = SearchSettings(writer="arbitrage", router_model="mini:router")
    assert merge(base, "mini:prm", {"router": "arbitrage:0.2"}).router_model == "mini:router"
    assert merge(base, "mini:prm", {"router": "rsd:0.2"}).router_model == "mini:prm"
    assert merge(base, "mini:prm", {"router": "never"}).router_model == "auto"
    plain = merge(base, "mini:prm", {"writer": "model"})
    assert (plain.writer, plain.policy) == ("model", "mini:target")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "width = 0: must be at least 1"),
        ({"width": "4"}, "width = '4': must be a valid integer"),
        ({"width": True}, "width = True: must be a valid integer"),
        ({"vote": "loud"}, "vote = 'loud': must be 'auto', 'majority', 'weighted', 'normalised' or 'best'"),
        ({"temperature": float("inf")}, "temperature = inf: must be a finite number"),
        (
            {"system_prompt": "@/etc/passwd"},
            "system_prompt = '@/etc/passwd': a request has no files here; accepted: "
            "the text itself; @@ at its start for @",
        ),
        (
            {"few_shot": "few.jsonl"},
            "few_shot = 'few.jsonl': a request has no files here; accepted: a list of objects with question and answer",
        ),
        ({"few_shot": [{"question": "a"}]}, "few_shot = {'question': 'a'}: no 'answer' in it"),
        ({"stop": [""]}, "stop = '': must not be empty"),
        ({"assistant_prefix": "\ud800"}, "assistant_prefix = '\\ud800': must be valid Unicode text"),
        ({"chat_options": {"a": [1]}}, "chat_options.a = [1]: must be a number, a text, true or false"),
    ],
)
def test_a_wrong_value_is_named(changes, said):
    with pytest.raises(ApiError) as raised:
        check_changes(changes)
    (name,) = changes
    assert raised.value.message == said and (raised.value.status, raised.value.param) == (422, f"search.{name}")


def test_a_request_names_no_template():
    with pytest.raises(ApiError, match=r"search\.prompt_template: unknown"):
        read_body(body(search={"prompt_template": "mine.jinja"}))


def test_every_setting_of_a_request_is_a_setting():
    assert set(PER_REQUEST) <= set(SearchSettings.model_fields)
    assert not {"policy", "device", "embedder", "prompt_template", "lookahead", "engine_api_key"} & PER_REQUEST


# The body


def body(**fields):
    return ChatRequest(**{"model": "m", "messages": [{"role": "user", "content": "1 + 1"}], **fields})


def test_the_last_message_is_the_problem_and_the_others_come_before_it():
    parts = [{"type": "text", "text": "Add "}, {"type": "text", "text": "3."}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello", "name": "me"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": parts},
    ]
    asked = read_body(body(messages=messages))
    assert (asked.problem, asked.num_choices, asked.stream, asked.raw) == ("Add 3.", 1, False, False)
    assert asked.earlier == (Turn("system", "Be brief."), Turn("user", "Hello"), Turn("assistant", ""))


def test_a_completion_continues_its_prompt_as_it_is():
    for prompt in ("1 + 1 =", ["1 + 1 ="]):
        asked = read_body(CompletionRequest(model="m", prompt=prompt, stop=["\n", ";"], logprobs=0, max_tokens=4))
        assert (asked.problem, asked.raw, asked.ends, asked.logprobs) == ("1 + 1 =", True, ("\n", ";"), True)
        assert asked.changes == {"max_tokens": 4}
    with pytest.raises(ApiError, match="the prompt is empty"):
        read_body(CompletionRequest(model="m", prompt=" "))
    for wrong in ({"prompt": []}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"echo": True}, {"logprobs": 3}):
        with pytest.raises(ValidationError):
            CompletionRequest(**{"model": "m", "prompt": "a", **wrong})


def test_headers_bound_what_a_request_may_take_and_raise_nothing():
    settings = SearchSettings(width=8, max_tokens=100, stop=("\n\n",), final=())
    asked = read_body(body(seed=1))
    budget = Budget.read({"x-ets-width": "4", "x-ets-max-tokens": "10", "x-ets-deadline": "2.5", "other": "x"})
    assert budget == Budget(4, 10, 2.5)
    assert budget.changes(asked, settings, 64) == {"seed": 1, "width": 4, "max_tokens": 10}
    assert Budget(16, 1000).changes(asked, settings, 64) == Budget().changes(asked, settings, 64) == {"seed": 1}
    assert Budget(1).changes(asked, SearchSettings(method="chain", width=1), 64) == {"seed": 1}
    for name, values in (("width", ("0", "-1", "4.0", "x", "")), ("max-tokens", ("0",)), ("deadline", ("0", "nan"))):
        for value in values:
            with pytest.raises(ApiError, match=f"header x-ets-{name}: ") as raised:
                Budget.read({f"x-ets-{name}": value})
            assert raised.value.status == 422


@pytest.mark.parametrize(
    ("effort", "width"), [("none", 1), ("minimal", 1), ("low", 2), ("medium", 8), ("high", 16), ("xhigh", 20)]
)
def test_effort_is_a_width_where_none_is_given(effort, width):
    settings = SearchSettings(width=8)
    found = Budget().changes(read_body(body(reasoning_effort=effort)), settings, 20)
    assert found.get("width", settings.width) == width
    said = read_body(body(reasoning_effort=effort, search={"width": 8}))
    assert Budget().changes(said, settings, 20) == {"width": 8}
    greedy = SearchSettings(method="greedy", width=1)
    assert Budget().changes(read_body(body(reasoning_effort=effort)), greedy, 20) == {}


def test_ends_of_a_solution_end_a_step_and_are_its_last():
    settings = SearchSettings(stop=("\n\n",), final=("QED",))
    found = Budget().changes(read_body(body(stop="END")), settings, 64)
    assert found == {"stop": ["\n\n", "END"], "final": ["QED", "END"]}
    assert read_body(body(stop="")).ends == read_body(body(stop=[])).ends == read_body(body()).ends == ()


def test_what_is_told_ends_before_an_end_and_never_takes_anything_back():
    form, text = Form(ends=("END", "stop.")), "a stE EN END b"
    tree = SearchTree("t", (1,), "p")
    above, told = ROOT, []
    for index in range(0, len(text), 2):
        above = tree.add_child(above)
        tree.write(Step(above, (1,), text[index : index + 2], FinishReason.STOP, "m"))
        told.append(form.told(tree, above, ended=False).content)
    assert told[-1] == "a stE EN " and all(later.startswith(one) for one, later in pairwise(told))
    assert form.told(tree, above).content == "a stE EN " and Form().told(tree, above).content == text
    cut = tree.path(above)[3].id  # "a stE "
    assert form.told(tree, tree.path(above)[2].id, ended=False).content == "a "  # "st" may be the beginning of "stop."
    assert form.told(tree, cut, ended=True).content == "a stE "


def test_thoughts_are_told_apart_from_what_is_said():
    tree = SearchTree("t", (1,), "p<think>\n")
    above, told = ROOT, []
    for piece in ("Hm.\n\n", "5?</think>\n\n", "It is 5.\n\n", "Done."):
        above = tree.add_child(above)
        tree.write(Step(above, (1,), piece, FinishReason.STOP, "m"))
        told.append(Form().told(tree, above))
    assert told == [
        ("", "Hm.\n\n"),
        ("", "Hm.\n\n5?"),
        ("It is 5.\n\n", "Hm.\n\n5?"),
        ("It is 5.\n\nDone.", "Hm.\n\n5?"),
    ]
    assert told[2].after(told[1]) == ("It is 5.\n\n", "")
    assert Form(thoughts=False).told(tree, above) == ("It is 5.\n\nDone.", "")
    assert Form(raw=True).told(tree, above).content == "<think>\nHm.\n\n5?</think>\n\nIt is 5.\n\nDone."
    assert Form(raw=True, thoughts=False).told(tree, above).content == "It is 5.\n\nDone."


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": None}],
    ],
)
def test_messages_without_a_problem_are_refused(messages):
    with pytest.raises(ApiError) as raised:
        read_body(body(messages=messages))
    assert (raised.value.status, raised.value.param) == (422, "messages")


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": ["x"] * 5}, {"stop": [""]}, {"top_logprobs": 2}, {"presence_penalty": 0.5}, {"logit_bias": {"1": 2}},
        {"messages": [{"role": "tool", "content": "x"}]}, {"reasoning_effort": "huge"}, {"audio": {}},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}, {"role": "user", "content": "x"}]},
        {"tools": [{}]}, {"response_format": {"type": "json_object"}}, {"n": 0}, {"temperature": 3}, {"seed": -1},
        {"messages": []}, {"unheard_of": 1}, {"extra_body": {"search": {}}}, {"n": "2"},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    ],
)  # fmt: skip
def test_fields_that_would_change_something_are_refused(fields):
    with pytest.raises(ValidationError):
        body(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"messages": []}, "messages: must not be empty"), ({"n": 0}, "n: must be at least 1")],
)
def test_what_is_wrong_with_a_field_is_said_in_words_of_our_own(fields, said):
    with pytest.raises(ValidationError) as raised:
        body(**fields)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in raised.value.errors()]
    assert from_validation(errors).message == said


def test_fields_that_change_nothing_pass():
    body(stop=None, logprobs=False, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, tools=[], user="me")
    body(extra_body={}, tool_choice="auto", response_format={"type": "text"}, stop=[], metadata={"a": "b"})
    body(stop="x", logprobs=True, reasoning_effort="low", verbosity="low", functions=[], audio=None, prediction=None)


def test_openai_fields_become_settings_and_contradictions_are_said():
    named = ("model", {"width": 4})
    asked = read_body(body(temperature=0.5, max_completion_tokens=7, seed=3, search={"vote": "best"}), named)
    assert asked.changes == {"temperature": 0.5, "max_tokens": 7, "seed": 3, "vote": "best", "width": 4}
    assert read_body(body(n=2.0, search={"width": 8.0, "temperature": 0.5})).changes["width"] == 8
    with pytest.raises(ApiError, match="width is said twice: 8, and 4 by model"):
        read_body(body(search={"width": 8}), named)
    with pytest.raises(ApiError, match="width is said twice: 4, and 5 by the address"):
        read_body(body(), named, ("the address", {"width": 5}))
    with pytest.raises(ApiError, match="max_tokens is said twice: 5, and 6 by max_completion_tokens"):
        read_body(body(max_tokens=5, max_completion_tokens=6))
    with pytest.raises(ApiError, match=r"search\.policy: unknown; accepted: assistant_prefix, begin, chat_options, "):
        read_body(body(search={"policy": "mini:draft"}))
    with pytest.raises(ApiError, match="only where stream is true"):
        read_body(body(stream_options={"include_usage": True}))


# Errors


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("x"), 422, "invalid_value"),
        (SolverError("x"), 422, "invalid_value"),
        (ContextOverflowError("x"), 422, "context_length_exceeded"),
        (EngineError("x"), 502, "engine_error"),
        (PolicyError("x"), 500, "PolicyError"),
        (RuntimeError("secret"), 500, "internal_error"),
    ],
)
def test_errors_of_a_search_have_a_status_and_a_code(error, status, code):
    told = from_search(error)
    assert (told.status, told.code) == (status, code) and "secret" not in told.message
    assert told.to_dict()["error"].keys() == {"message", "type", "param", "code"}


def test_a_search_that_broke_is_the_engines_fault_but_for_a_path_too_long():
    assert from_failure("connection refused").status == 502
    assert from_failure("the path is longer than the reward model's context").code == "context_length_exceeded"


def test_what_is_sent_is_ascii_whatever_it_holds():
    assert json.loads(dump({"a": "\ud800 é"}).encode("ascii")) == {"a": "\ud800 é"}


# The socket


def test_a_port_is_taken_from_the_start_and_not_only_when_the_models_are_loaded():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1, port {port}"):
            listen("127.0.0.1", port).close()
