"""Probes: their numbers, what they read in a search, which policies they refuse, and how they are kept."""

import asyncio
import json
import math

import numpy as np
import pytest
from fake_engine import FakeEngine
from markov import hashed_hidden, story_model
from scoring import rewards_of

from prm.probe import (
    CONFIG_FILE,
    NUM_LOGPROB_FEATURES,
    Probe,
    ProbeConfig,
    calibrate,
    logprob_features,
    read_held_out,
    read_probe,
    save_held_out,
)
from prm.probe_scorer import ProbeScorer
from search.api import Search
from search.engines.local import LocalEngine
from search.errors import ConfigError, ScoringError
from search.loop.writer import ModelWriter
from search.protocols import Scorer
from search.setup.registry import make_engine, prm_config, runs_on_engine, weights_of
from search.tree import SearchTree
from search.types import ROOT, EngineInfo, FinishReason, Step

QUESTION = "How many?"


def config(**values):
    fields = {"layer": 2, "num_layers": 2, "width": 4, "network": "linear", "policy": "fake", "weights": None}
    return ProbeConfig(**{**fields, "tokenizer": "abc", **values})


def weights(network="linear", width=4, units=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = 1 if network == "linear" else units
    found = {"mean": rng.normal(size=width), "scale": 1 + rng.random(width)}
    found |= {"in.weight": rng.normal(size=(rows, width)), "in.bias": rng.normal(size=rows)}
    if network == "mlp":
        found |= {"out.weight": rng.normal(size=(1, units)), "out.bias": rng.normal(size=1)}
    return {name: one.astype(np.float32) for name, one in found.items()}


def fake_probe(engine=None, **values):
    engine = engine or FakeEngine(story_model())
    return Probe(config(tokenizer=engine.tokenizer.fingerprint, **values), weights())


def searched(engine, scorer=None, **options):
    writer = ModelWriter(engine)
    with Search(writer, scorer(writer) if scorer else None, **options) as search:
        return search.solve(QUESTION)


def test_rewards_are_what_the_formula_says():
    state = np.array([[0.5, -1.0, 2.0, 0.0]], np.float32)
    for network in ("linear", "mlp"):
        held = weights(network)
        normal = (state[0] - held["mean"]) / held["scale"]
        hidden = held["in.weight"] @ normal + held["in.bias"]
        odds = hidden[0] if network == "linear" else held["out.weight"][0] @ np.maximum(hidden, 0) + held["out.bias"][0]
        knots = ((0.0, 0.0), (0.5, 0.2), (1.0, 1.0))
        probe = Probe(config(network=network, temperature=2.0, knots=knots), held)
        assert probe.log_odds(state)[0] == pytest.approx(odds, rel=1e-5)
        cooled = 1 / (1 + math.exp(-odds / 2))
        expected = 0.4 * cooled if cooled < 0.5 else 0.2 + 1.6 * (cooled - 0.5)
        assert probe.rewards(state)[0] == pytest.approx(expected, rel=1e-5)
    told = calibrate(np.array([-1e9, -3.0, 0.0, 3.0, 1e9]), 1.0, ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0)))
    assert told[0] < 1e-300 and told[-1] == 1 and np.all(np.diff(told) > 0)


def test_log_probabilities_are_read_from_the_end_and_by_the_lowest():
    few, many = logprob_features((-1.0, -3.0)), logprob_features(tuple(-float(one) for one in range(1, 31)))
    assert len(few) == len(many) == NUM_LOGPROB_FEATURES
    assert few[:9] == (-3.0, -1.0, 0.0, 0.0, -2.0, -4.0, 2.0, -3.0, -1.0) and set(few[9:]) == {0.0}
    assert many[:7] == (-30.0, -29.0, -28.0, -27.0, -15.5, -465.0, 30.0)
    assert many[7:] == tuple(-float(one) for one in range(30, 14, -1))
    assert all(map(math.isfinite, logprob_features((-math.inf, 0.0)))) and set(logprob_features(())) == {0.0}


def test_a_probe_that_reads_log_probabilities_needs_them():
    width = 4 + NUM_LOGPROB_FEATURES
    probe = Probe(config(width=width, reads_logprobs=True, target="t"), weights(width=width))
    state, logprobs = (0.5, -1.0, 2.0, 0.0), (-0.1, -2.0)
    whole = np.array([[*state, *logprob_features(logprobs)]], np.float32)
    assert probe.reward(state, logprobs) == pytest.approx(probe.rewards(whole)[0])
    assert probe.reward(state, (-2.0, -0.1)) != probe.reward(state, logprobs)
    for given, said in (
        ((state, None), "no log-probabilities of its tokens"),
        ((state[:3], logprobs), "3 numbers, not 4"),
        ((state, (math.nan,)), "what is no number"),
    ):
        with pytest.raises(ScoringError, match=said):
            probe.reward(*given)


def test_kept_and_read_again(tmp_path):
    probe = Probe(config(network="mlp", knots=((0.0, 0.0), (0.4, 0.1), (1.0, 1.0)), record={"a": 1}), weights("mlp"))
    probe.save(tmp_path)
    again = read_probe(tmp_path)
    states = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    assert again.config == probe.config and again.rewards(states).tolist() == probe.rewards(states).tolist()
    save_held_out(tmp_path, {"p": np.array([0.5, -2.0])})
    assert read_held_out(tmp_path)["p"].tolist() == [0.5, -2.0]
    found = prm_config(f"probe:{tmp_path}", "probe")
    assert found.codec == "probe" and found.reduce == "last" and "layer 2" in found.reason


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / CONFIG_FILE).unlink(), "no probe.json there; ets probe train makes a probe"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "probe.json cannot be read"),
        (lambda folder: change(folder, layer=3), "layer 3 of 2"),
        (lambda folder: change(folder, network="tree"), "network 'tree'"),
        (lambda folder: change(folder, width=5), "this probe's tensors are"),
        (lambda folder: change(folder, unknown=5), "unexpected keyword"),
        (lambda folder: (folder / "probe.safetensors").write_bytes(b"123"), "damaged or missing"),
        (lambda folder: (folder / "probe.safetensors").unlink(), "damaged or missing"),
    ],
)
def test_a_damaged_probe_is_named(tmp_path, spoil, message):
    Probe(config(), weights()).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=message):
        read_probe(tmp_path)


def change(folder, **values):
    file = folder / CONFIG_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("name", "details", "tokenizer", "found", "message"),
    [
        ("local", {"layers": "3"}, "abc", None, "has layers 2; m has 3: train one for it"),
        ("local", {"layers": "2"}, "xyz", None, "a tokenizer of hash abc; m has xyz"),
        ("local", {"layers": "2"}, "abc", "2222", "weights of hash 1111; m has 2222"),
        ("openai", {"layers": "2"}, "abc", None, "serve the model with SGLang"),
        ("sglang", {"layers": "2"}, "abc", None, "start it with --enable-return-hidden-states"),
        (
            "sglang",
            {"layers": "2", "hidden states": "last"},
            "abc",
            None,
            "reads layer 1, and a server gives the last one",
        ),
    ],
)
def test_a_probe_of_another_policy_or_without_its_states_is_refused(name, details, tokenizer, found, message):
    info = EngineInfo(name, "m", 100, 10, details=details)
    with pytest.raises(ConfigError, match=message):
        config(layer=1, weights="1111").check(info, tokenizer, found)


def test_a_probe_of_the_last_layer_is_taken_by_a_server():
    info = EngineInfo("sglang", "m", 100, 10, details={"layers": "2", "hidden states": "last"})
    config(layer=2, weights="1111").check(info, "abc", None)


@pytest.mark.parametrize("method", ["best-of-n", "beam", "dvts", "rebase", "particle", "ets", "ets-kv"])
def test_every_method_searches_by_it_and_it_costs_nothing_of_its_own(method):
    engine = FakeEngine(story_model())
    probe = fake_probe(engine)
    # A search that stops when it is decided leaves steps behind that nobody wrote.
    result = searched(engine, lambda writer: ProbeScorer(probe, writer), method=method, width=16, until="spent")
    for node in result.tree:
        if node.parent is not None:
            ids = [token for above in result.tree.path(node.id) for token in above.ids]
            expected = probe.rewards(np.array([hashed_hidden(ids)], np.float32))[0]
            assert node.reward == pytest.approx(expected, rel=1e-6)
    stats = result.stats
    assert stats.prm_tokens == stats.prm_unique_tokens == stats.num_prm_calls == stats.kv_tokens_prm_peak == 0
    assert set(result.models) == {"policy"}
    assert stats.computed_tokens <= stats.unique_tokens, "a state is read where the policy's own cache ends"


@pytest.mark.parametrize("layer", [1, 2])
def test_other_layers_are_other_states(layer):
    engine = FakeEngine(story_model())
    result = searched(engine, lambda writer: ProbeScorer(fake_probe(engine, layer=layer), writer), width=4)
    step = next(node for node in result.tree if node.parent is not None)
    ids = [token for above in result.tree.path(step.id) for token in above.ids]
    state = hashed_hidden(ids if layer == 2 else (*ids, -101))
    assert step.reward == pytest.approx(fake_probe(engine).rewards(np.array([state], np.float32))[0], rel=1e-6)


def test_what_is_written_ahead_changes_nothing():
    results = [
        searched(
            engine := FakeEngine(story_model(), seconds_per_token=0.001),
            lambda writer, engine=engine: ProbeScorer(fake_probe(engine), writer),
            method="rebase",
            width=8,
            speculate=share,
        )
        for share in (None, 1.0)
    ]
    kept = [[(node.ids, node.status, node.reward) for node in result.tree] for result in results]
    assert kept[0] == kept[1]
    assert results[0].stats.computed_tokens == results[1].stats.computed_tokens
    assert results[0].stats.kv_tokens_mean == results[1].stats.kv_tokens_mean


def test_steps_that_say_the_same_are_read_once():
    engine = FakeEngine(story_model())
    scorer = ProbeScorer(fake_probe(engine), ModelWriter(engine))
    assert isinstance(scorer, Scorer)
    tree = SearchTree("t#0", engine.tokenizer.encode("Add 3.\n\n"), "Add 3.\n\n", "Add 3.")
    ids = engine.tokenizer.encode("Add 4.\n\n")
    nodes = [tree.add_child(ROOT) for _ in range(3)]
    for node in nodes:
        tree.write(Step(node, ids, "Add 4.\n\n", FinishReason.STOP, "w"))
    rewards = rewards_of(scorer, tree, nodes)
    assert len(set(rewards)) == 1 and engine.num_calls("read") == 1


def test_a_state_that_is_none_names_the_step():
    class Odd(FakeEngine):
        state = (math.nan,) * 4

        async def read(self, prefix, what, layers=()):
            return self.state

    for state, message in (((math.nan,) * 4, "what is no number"), ((0.5,) * 3, "3 numbers, not 4")):
        engine = Odd(story_model())
        engine.state = state
        with pytest.raises(ScoringError, match=f"state at node 0/1 has {message}"):
            searched(engine, lambda writer, engine=engine: ProbeScorer(fake_probe(engine), writer), width=1)


def mini_probe(folder, layer=1, **values):
    engine = make_engine("local", "mini:draft", Search().settings, None)
    assert isinstance(engine, LocalEngine)
    layers, tokenizer = int(engine.info.details["layers"]), engine.tokenizer.fingerprint
    width = len(asyncio.run(first_state(engine)))
    fields = {"layer": layer, "num_layers": layers, "width": width, "policy": "mini:draft", "tokenizer": tokenizer}
    Probe(config(**{**fields, "weights": weights_of("mini:draft"), **values}), weights(width=width)).save(folder)
    return f"probe:{folder}"


async def first_state(engine):
    from search.types import Prefix, Segment

    state = await engine.read(Prefix("t", (Segment(0, engine.tokenizer.encode("1 + 1")),)), "hidden", (1,))
    await engine.aclose()
    return state


def test_by_name_on_the_mini_family(tmp_path):
    name = mini_probe(tmp_path / "a")
    assert not runs_on_engine(name)
    with Search("mini:draft", name, "rebase", 4) as search:
        assert (search.settings.vote, search.settings.reduce) == ("weighted", "last")
        result = search.solve("Ada has 3 apples and buys 4 more. How many apples does Ada have?")
    rewards = [node.reward for node in result.tree if node.parent is not None]
    assert all(reward is not None and 0 <= reward <= 1 for reward in rewards)
    assert result.stats.computed_tokens <= result.stats.unique_tokens
    for policy, options, message in (
        ("mini:target", {}, "was trained for mini:draft"),
        ("mini:draft", {"prm_codec": "trl"}, "prm_codec 'trl' means nothing"),
        ("mini:target", {"writer": "arbitrage", "router": "never"}, "the one model that writes"),
        ("mini:draft", {"embedder": "prm", "method": "ets"}, "embedder prm needs a reward model"),
    ):
        with pytest.raises(ConfigError, match=message):  # noqa: SIM117
            with Search(policy, name, **{"method": "rebase", "width": 2, **options}) as search:
                search.solve("1 + 1?")
    with pytest.raises(ConfigError, match="no model to load"):
        make_engine("local", name, Search().settings, None)
    with pytest.raises(ConfigError, match="ets probe train makes a probe"):
        Search("mini:draft", f"probe:{tmp_path / 'none'}")
