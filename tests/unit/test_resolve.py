"""What really runs: defaults settled, mini models never beside others unnamed, and what is not used said."""

import logging

import pytest
from fake_engine import FakeEngine

from search import Search
from search.catalogue import METHODS
from search.config import EvalSettings, SearchSettings, build
from search.errors import ConfigError
from search.setup.registry import make_policy
from search.setup.resolve import record_of, resolve, settle


def settled(**values):
    return settle(build(EvalSettings, values))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_built(method):
    assert make_policy(settled(method=method).settings, "prod").reduce == "prod"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("writer", ["model", "arbitrage"])
def test_a_run_keeps_no_auto_and_nothing_without_a_value(method, writer):
    kept = record_of(resolve(EvalSettings(method=method, writer=writer)).settings)
    del kept["prompt"], kept["thinking"]  # the model's own template decides them, once it is loaded
    assert not [name for name, value in kept.items() if value in ("auto", None)]


def test_a_run_keeps_the_methods_own_defaults():
    kept = record_of(settled().settings)
    assert (kept["node_cost"], kept["node_cost_weight"], kept["options"]["temperature"]) == ("tokens", 2.25, 0.2)
    assert not {"cluster_distance", "coverage_weight", "solver"} & kept.keys(), "found in each level, or not its own"
    paper = record_of(settled(method="ets-paper").settings)
    assert (paper["node_cost"], paper["node_cost_weight"], paper["cluster_distance"]) == ("uniform", 1.0, 0.05)
    assert paper["solver"] == "highs" and "coverage_weight" not in paper, "by the width, as tuned in the paper"
    assert record_of(settled(method="ets-kv").settings)["node_cost_weight"] == 1.0
    assert record_of(settled(method="beam", options={"num_keep": 2}).settings)["options"] == {"num_keep": 2}


def test_a_run_keeps_nothing_that_it_does_not_use():
    plain = record_of(settled(method="rebase", prm="none").settings)
    for name in (
        "draft",
        "target",
        "router",
        "router_model",
        "prm_codec",
        "reduce",
        "solver",
        "embedder",
        "max_requests",
    ):
        assert name not in plain
    routed = record_of(settled(writer="arbitrage").settings)
    assert "policy" not in routed and routed["router_model"] == "mini:router"
    served = record_of(settled(engine="sglang:http://h:1", prm="none").settings)
    assert not {"dtype", "device", "max_kv_tokens"} & served.keys() and served["max_requests"] == 256
    mixed = record_of(settled(engine="sglang:http://h:1").settings)
    assert mixed["dtype"] == "float32", "the reward model runs here"


def test_settings_that_run_settle_to_themselves():
    first = resolve(EvalSettings(method="ets", options={"node_cost_weight": 3})).settings
    again = resolve(build(EvalSettings, record_of(first)))
    assert again.settings == first and not again.notes and first.node_cost_weight == 3.0


# Mini models beside others


@pytest.mark.parametrize("method", ["ets", "beam", "rebase", "best-of-n", "dvts", "particle", "ets-kv"])
def test_no_mini_reward_model_beside_another_policy(method):
    found = settled(policy="./mine", method=method)
    assert found.settings.prm == "none"
    assert any("mini:prm is not put beside './mine'" in note for note in found.notes)
    assert any(note.startswith("no reward model: ") and method in note for note in found.notes)


def test_a_mini_reward_model_that_is_named_is_used():
    found = settled(policy="./mine", prm="mini:prm")
    assert found.settings.prm == "mini:prm" and not found.notes
    assert settled(policy="mini:draft").settings.prm == settled().settings.prm == "mini:prm"


def test_a_method_that_relies_on_rewards_says_what_confidence_did_to_it():
    (note,) = settled(policy="./mine", prm="confidence:mean-logprob").notes
    assert "by it ets lost 17 points" in note and "try rebase first" in note
    for method, prm in (("rebase", "confidence:mean-logprob"), ("ets", "./prm")):
        assert not settled(policy="./mine", prm=prm, method=method).notes


@pytest.mark.parametrize("method", ["self-consistency", "chain"])
def test_methods_without_rewards_have_nothing_to_say_of_them(method):
    assert not settled(policy="./mine", method=method).notes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"draft": "./d"}, "draft is './d' and no target was named; give --target too"),
        ({"target": "./t"}, "target is './t' and no draft was named; give --draft too"),
        ({"draft": "./d", "target": "./t"}, "mini:router was trained for the mini family, not for './d' and './t'"),
        ({"draft": "./d", "target": "./t", "router": "rsd:0.7"}, "reads a reward model, and none was named"),
        ({"draft": "./d", "target": "./t", "router": "oracle"}, "reads a reward model, and none was named"),
        ({"policy": "./mine"}, "policy './mine' is not used"),
        ({"router": "never", "router_model": "x"}, "router never has no model of its own"),
        ({"router": "sometimes"}, "unknown router 'sometimes'"),
        ({"pipeline": True}, "pipeline needs width 1"),
    ],
)
def test_routers_beside_models_that_nobody_named(values, message):
    with pytest.raises(ConfigError, match=message):
        settled(writer="arbitrage", **values)


@pytest.mark.parametrize("router", ["rsd:0.7", "oracle:0.1"])
@pytest.mark.parametrize("method", ["ets", "chain"])
def test_rsd_and_oracle_read_the_reward_model_that_is_given(router, method):
    found = settled(writer="arbitrage", router=router, prm="./my-prm", prm_engine="sglang:http://h:1", method=method)
    chosen = found.settings
    assert (chosen.router_model, chosen.router_engine) == ("./my-prm", "sglang:http://h:1")
    assert not found.notes
    own = {"draft": "./d", "target": "./t", "prm": "./my-prm"}
    assert settled(writer="arbitrage", router=router, method=method, **own).settings.router_model == "./my-prm"
    named = settled(writer="arbitrage", router=router, prm="./my-prm", router_model="./other", router_engine="local")
    assert (named.settings.router_model, named.settings.router_engine) == ("./other", "local")


# What is not used


def test_what_a_method_does_not_use_is_said_and_left_alone():
    greedy = settled(method="greedy", width=16, temperature=0.7, solver="pulp", options={"num_keep": 2})
    assert (greedy.settings.width, greedy.settings.temperature, greedy.settings.options) == (1, 0.0, {})
    assert greedy.ignored == {"width", "temperature", "solver", "options"}
    (note,) = greedy.notes
    assert note.startswith("method greedy does not use width 16 (it is 1), temperature 0.7 (it is 0.0)")
    assert "solver pulp" in note and "num_keep 2" in note
    (note,) = settled(method="self-consistency", prm="./my-prm").notes
    assert note == "method self-consistency does not use prm ./my-prm (it is none); left alone"
    assert settled(router="rsd:0.3").notes == ("writer model does not use router rsd:0.3; left alone",)
    (note, _) = settled(engine="openai:http://h:1", prm="none", dtype="bfloat16").notes
    assert note == "a model on a server does not use dtype bfloat16; left alone"


@pytest.mark.parametrize("method", METHODS)
def test_one_set_of_flags_runs_every_method(method):
    flags = {"width": 4, "temperature": 0.8, "node_cost": "tokens", "coverage_weight": 2.0, "vote": "weighted"}
    found = resolve(build(EvalSettings, {"method": method, "prm": "mini:prm", "reduce": "min", **flags}))
    assert make_policy(found.settings, "last").name


def test_a_setting_at_its_default_is_nothing_to_speak_of():
    assert not settled(
        method="self-consistency", vote="auto", prm="auto", dtype="float32", router="arbitrage:0.5"
    ).notes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "rebas"}, r"unknown method 'rebas' \(did you mean rebase\?\); known: "),
        ({"options": {"heat": 1}}, "method ets has no option 'heat'; it has: cluster_distance, node_cost"),
        ({"options": {"temperature": "hot"}}, "option temperature = 'hot': must be float"),
        ({"options": {"temperature": -1}}, "temperature must be a positive number"),
        ({"method": "beam", "options": {"num_keep": True}}, "option num_keep = True: must be int"),
        ({"method": "beam", "options": {"num_keep": 0}}, "num_keep must be at least 1"),
    ],
)
def test_wrong_methods_and_options(settings, message):
    with pytest.raises(ConfigError, match=message):
        settled(**settings)


def test_a_vote_by_rewards_needs_them():
    with pytest.raises(ConfigError, match="vote weighted needs a reward model"):
        resolve(SearchSettings(policy="./mine", vote="weighted"))


# From Python


def test_python_says_the_same_and_logs_it(caplog):
    search = Search(method="greedy", width=3, prm=None)
    assert search.settings.width == 1 and search.ignored == {"width"}
    assert search.notes == ("method greedy does not use width 3 (it is 1); left alone",)
    with caplog.at_level(logging.WARNING, "search"):
        assert not caplog.records, "what is wrong is said first, in a line of its own"
        search.say()
        search.say()
    assert [record.getMessage() for record in caplog.records] == list(search.notes)
    assert not Search(method="greedy").notes


def test_what_must_be_known_is_said_before_the_models_load(caplog, monkeypatch):
    def load(*args, **kwargs):
        raise ConfigError("loading")

    monkeypatch.setattr("search.engines.local.LocalEngine.load", load)
    search = Search(prm="confidence:mean-logprob")
    with caplog.at_level(logging.WARNING, "search"), pytest.raises(ConfigError, match="loading"):
        search.load()
    assert ["try rebase first" in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    with pytest.raises(ConfigError, match="no such folder"):
        Search(policy="./nowhere", prm="confidence:mean-logprob").load()
    assert not caplog.records, "what is wrong is said in a line of its own"


def test_an_engine_of_ones_own_has_no_mini_reward_model_beside_it():
    search = Search(policy=FakeEngine(), width=4)
    assert search.settings.prm == "none" and search.settings.policy == "own"
    assert "beside a model of one's own" in search.notes[0]
    with pytest.raises(ConfigError, match="no scorer of one's own"):
        resolve(SearchSettings(writer="arbitrage", router="rsd:0.5"), own_scorer=True)


@pytest.mark.parametrize(("frontier", "said"), [("level", False), ("rolling", True)])
def test_what_a_rolling_frontier_lost_is_said(frontier, said):
    notes = settle(build(SearchSettings, {"method": "ets", "frontier": frontier})).notes
    assert any("ets-rolling had 7 points less (-20 to +7) than ets" in note for note in notes) is said


@pytest.mark.parametrize("settings", [{"method": "rebase"}, {"method": "rebase", "frontier": "rolling"}])
def test_only_a_method_that_compares_nothing_begins_what_it_needs(settings):
    asked = build(SearchSettings, {**settings, "begin": "needed"})
    settled = settle(asked)
    assert "begin" in settled.ignored and any("begin" in note for note in settled.notes)
    assert "begin" not in settle(build(SearchSettings, {"method": "best-of-n", "begin": "needed"})).ignored
