"""The server's parts by themselves: model names, settings, the body, decided steps, the gate, the kept searches."""

import asyncio
import json
from itertools import pairwise

import pytest
from fake_engine import FakeEngine
from pydantic import ValidationError

from search.config import SearchSettings
from search.errors import ConfigError, ContextOverflowError, EngineError, PolicyError, SolverError
from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import Beam, BestOfN, Rebase
from search.prompt.conversation import Turn
from search.serve.body import PER_REQUEST, ChatRequest, CompletionRequest, read_body
from search.serve.budget import Budget
from search.serve.decided import DecidedSteps
from search.serve.errors import ApiError, dump, from_failure, from_search
from search.serve.forms import Form
from search.serve.gate import Gate
from search.serve.jobs import Jobs
from search.serve.names import parse_name, parse_path, served_name
from search.serve.run import listen
from search.serve.settings import check_changes, merge
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Problem, Step

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
        ({"width": 0}, "width = 0: input should be greater than or equal to 1"),
        ({"width": "4"}, "width = '4': input should be a valid integer"),
        ({"width": True}, "width = True: input should be a valid integer"),
        ({"vote": "loud"}, "vote = 'loud': input should be 'auto', 'majority', 'weighted', 'normalised' or 'best'"),
        ({"temperature": float("inf")}, "temperature = inf: input should be a finite number"),
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
        ({"stop": [""]}, "stop = '': string should have at least 1 character"),
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


# Decided steps


def grow(tree, parent, num_children=1, write=True):
    children = [tree.add_child(parent) for _ in range(num_children)]
    for child in children if write else ():
        tree.write(Step(child, (child,), f"step {child}. ", FinishReason.STOP, "m"))
    return children


def numbers(nodes):
    return [node.id for node in nodes]


def test_a_step_is_decided_when_all_live_leaves_share_it():
    tree, steps = SearchTree("t", (1,), "p"), DecidedSteps()
    one, other = grow(tree, ROOT, 2)
    assert steps.advance(tree) == []
    tree.prune(other, "not kept")
    assert numbers(steps.advance(tree)) == [one]  # alone, it is what all that follows grows from
    (two,) = grow(tree, one, write=False)
    assert steps.advance(tree) == []  # nobody knows yet what it says
    tree.write(Step(two, (9,), "two", FinishReason.STOP, "m"))
    assert numbers(steps.advance(tree)) == [two]
    left, right = grow(tree, two, 2)
    assert steps.advance(tree) == []
    tree.finish(left, "end of text")
    (deep,) = grow(tree, right)
    assert steps.advance(tree) == []  # a finished leaf may win yet
    tree.finish(deep, "end of text")
    assert numbers(steps.rest(tree, deep)) == [right, deep]
    assert steps.rest(tree, deep) == []


def test_failed_leaves_decide_nothing_and_a_dead_tree_has_no_more_steps():
    tree, steps = SearchTree("t", (1,), "p"), DecidedSteps()
    one, other = grow(tree, ROOT, 2)
    tree.fail(other, "broke")
    assert numbers(steps.advance(tree)) == [one]
    (two,) = grow(tree, one)
    tree.fail(two, "broke")
    assert steps.advance(tree) == []


@pytest.mark.parametrize("policy", [BestOfN(), Beam(num_keep=1), Rebase()], ids=lambda policy: policy.name)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_decided_is_always_the_beginning_of_every_trajectory_that_finishes(policy, seed):
    steps, given, seen = DecidedSteps(), [], []

    def watch(progress):
        given.extend(steps.advance(progress.tree))
        seen.append((progress.stage, progress.number, len(progress.tree), progress.kv_tokens))

    driver = Driver(policy, ModelWriter(FakeEngine()), None, width=6, seed=seed)
    outcome = asyncio.run(driver.solve(Problem("p", "Add 3."), "Add 3.\n\n", watch=watch))
    tree = outcome.tree
    for leaf in tree.leaves(NodeStatus.FINISHED):
        assert numbers(tree.path(leaf.id))[1 : 1 + len(given)] == numbers(given)
    assert [stage for stage, *_ in seen] == ["selected", "written"] * (len(seen) // 2) + ["selected"]
    assert seen[0] == ("selected", 0, 7, len(tree.root.ids)) and seen[-1][2] == len(tree)


# The hook


def test_what_a_watcher_raises_ends_the_search_and_frees_it():
    engine = FakeEngine()

    def watch(progress):
        if progress.stage == "written":
            raise RuntimeError("the watcher broke")

    driver = Driver(BestOfN(), ModelWriter(engine), None, width=4)
    with pytest.raises(RuntimeError, match="the watcher broke"):
        asyncio.run(driver.solve(Problem("p", "Add 3."), "Add 3.\n\n", watch=watch))
    (tree,) = {call.prefix.tree for call in engine.calls}
    assert engine.usage(tree).kv_tokens_held == 0 and engine.num_calls("generate") == 1


def test_a_seed_given_with_the_problem_counts_as_the_runs_own():
    def texts(seed, given):
        driver = Driver(BestOfN(), ModelWriter(FakeEngine()), None, width=4, seed=seed)
        outcome = asyncio.run(driver.solve(Problem("p", "Add 3."), "Add 3.\n\n", seed=given))
        return [node.text for node in outcome.tree]

    assert texts(0, 5) == texts(5, None) == texts(7, 5) != texts(0, None)


# The gate


def test_the_gate_lets_in_as_many_as_it_may_and_the_rest_in_order():
    async def run():
        gate, order, hold = Gate(2, 3), [], asyncio.Event()

        async def visit(name):
            async with gate.admit() as seconds:
                order.append(name)
                assert seconds >= 0 and gate.running <= 2
                await hold.wait()

        tasks = [asyncio.create_task(visit(name)) for name in range(5)]
        while len(order) < 2 or gate.waiting < 3:
            await asyncio.sleep(0)
        with pytest.raises(ApiError) as raised:
            async with gate.admit():
                pass
        assert raised.value.status == 429 and int(raised.value.headers["Retry-After"]) >= 1
        tasks[3].cancel()
        await asyncio.wait({tasks[3]})
        assert gate.waiting == 2 and gate.running == 2
        hold.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 1, 2, 4] and (gate.running, gate.waiting) == (0, 0)

    asyncio.run(run())


def test_a_visitor_whose_deadline_comes_before_its_turn_is_told_so_and_keeps_no_place():
    async def run():
        gate, loop = Gate(1, 2), asyncio.get_running_loop()
        async with gate.admit(loop.time() + 60):
            with pytest.raises(ApiError, match="the deadline came before its turn") as raised:
                async with gate.admit(loop.time() + 0.01):
                    pass
            assert (raised.value.status, raised.value.code) == (429, "deadline") and gate.waiting == 0
        async with gate.admit(loop.time() + 60):
            assert gate.running == 1
        assert gate.running == 0

    asyncio.run(run())


def test_a_visitor_who_leaves_as_its_turn_comes_hands_it_on():
    async def run():
        gate, hold = Gate(1, 2), asyncio.Event()
        done = []

        async def visit(name):
            async with gate.admit():
                await hold.wait()
                done.append(name)

        first, second, third = (asyncio.create_task(visit(name)) for name in "abc")
        while gate.waiting < 2:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})  # the turn is the second's now, which has not woken yet
        second.cancel()
        hold.set()
        await asyncio.gather(second, third, return_exceptions=True)
        assert done == ["c"] and (gate.running, gate.waiting) == (0, 0)

    asyncio.run(run())


def test_a_closed_gate_turns_away_who_waits_and_who_comes():
    async def run():
        gate, hold = Gate(1, 2), asyncio.Event()

        async def visit():
            async with gate.admit():
                await hold.wait()

        inside, outside = asyncio.create_task(visit()), asyncio.create_task(visit())
        while not gate.waiting:
            await asyncio.sleep(0)
        gate.close()
        with pytest.raises(ApiError) as raised:
            await outside
        assert raised.value.status == 503
        with pytest.raises(ApiError):
            await visit()
        hold.set()
        await inside
        assert (gate.running, gate.waiting) == (0, 0)

    asyncio.run(run())


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


# Kept searches


class Ended:
    """A job as the list of jobs sees it."""

    def __init__(self, number, num_nodes):
        self.id, self.num_nodes, self.arrived = str(number), num_nodes, number
        self.running, self.began = False, True


def test_searches_that_ended_are_kept_within_bounds():
    async def run(jobs, sizes):
        for number, size in enumerate(sizes):
            task = asyncio.create_task(asyncio.sleep(0))
            jobs.started(Ended(number, size), task)
            assert jobs.find(str(number)) is not None
            await task
            await asyncio.sleep(0)
        return [job.id for job in jobs.list()]

    assert asyncio.run(run(Jobs(max_ended=3), [1] * 5)) == ["4", "3", "2"]
    assert asyncio.run(run(Jobs(max_ended=9, max_ended_nodes=10), [4, 4, 4])) == ["2", "1"]
    assert asyncio.run(run(Jobs(max_ended=9, max_ended_nodes=10), [4, 40])) == ["1"]


# The socket


def test_a_port_is_taken_from_the_start_and_not_only_when_the_models_are_loaded():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1, port {port}"):
            listen("127.0.0.1", port).close()
