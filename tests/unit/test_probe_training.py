"""From solutions to a probe: features and their labels, cross-fitted networks, calibration, figures and votes."""

import asyncio
import json
import math

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine
from markov import hashed_hidden, story_model

from prm.probe_features import Features, Sampled, Solution, collect_features, read_features
from prm.probe_figures import concordance, figures, solution_rewards
from prm.probe_training import ProbeTraining, fit_knots, fit_temperature, train
from prm.probe_votes import RULES, Ballot, vote_figures
from search.errors import ConfigError, DataError

SETTINGS = {"policy": "fake", "weights": None, "tokenizer": "abc", "num_layers": 2}
A, B, C, D = (10,), (11, 12), (13,), (14,)
SAMPLED = (
    Sampled("p", (1, 2), (Solution((A, B), 0, True), Solution((A, C), 1, False), Solution((D,), -1, False))),
    Sampled("q", (1, 3), (Solution((A,), 0, True),)),
)


def collected(folder, sampled=SAMPLED, engine=None, layers=(1, 2), **options):
    engine = engine or FakeEngine(story_model())
    asyncio.run(collect_features(engine, sampled, layers, folder, SETTINGS, **{"shard_size": 1, **options}))
    return engine


def test_features_are_states_and_labels_of_each_beginning_once(tmp_path):
    engine = collected(tmp_path)
    found = read_features([tmp_path])
    assert found.problem_ids == ("p", "q") and found.problems.tolist() == [0, 0, 0, 0, 1]
    assert engine.num_calls("read") == 5, "A is one step of two solutions"
    assert found.parents.tolist() == [-1, 0, 0, -1, -1]
    assert found.labels.tolist() == [0.5, 1.0, 0.0, 0.0, 1.0] and found.num_solutions.tolist() == [2, 1, 1, 1, 1]
    assert found.leaves.tolist() == [1, 2, 3, 4] and found.answers.tolist() == [0, 1, -1, 0]
    assert [found.path(int(leaf)) for leaf in found.leaves] == [[0, 1], [0, 2], [3], [4]]
    wanted = torch.tensor(hashed_hidden((1, 2, 10, 11, 12))).bfloat16().float()
    assert found.layer(2)[1].tolist() == wanted.tolist()
    with pytest.raises(ConfigError, match="layer 5 was not collected; there are 1, 2"):
        found.layer(5)


def test_collecting_goes_on_where_it_stopped_and_takes_no_other_settings(tmp_path):
    collected(tmp_path)
    whole = read_features([tmp_path]).states
    (tmp_path / "shard-00001.safetensors").unlink()
    engine = collected(tmp_path)
    assert engine.num_calls("read") == 1, "the first shard was there"
    assert torch.equal(read_features([tmp_path]).states, whole)
    with pytest.raises(ConfigError, match=r"holds features of other settings \(layers differ\)"):
        collected(tmp_path, layers=(2,))
    with pytest.raises(ConfigError, match="problem p stands in the features twice"):
        read_features([tmp_path, tmp_path])
    (tmp_path / "shard-00000.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match=r"shard-00000.safetensors: is no shard"):
        read_features([tmp_path])
    with pytest.raises(ConfigError, match="holds no features"):
        read_features([tmp_path / "none"])


def test_two_that_fill_one_folder_leave_each_problem_once(tmp_path):
    """They wrote the same problems into shards of their own, and no training took the folder."""

    async def both():
        engines = FakeEngine(story_model(), seconds_per_call=0.01), FakeEngine(story_model())
        await asyncio.gather(*(collect_features(one, SAMPLED, (1,), tmp_path, SETTINGS) for one in engines))

    asyncio.run(both())
    assert read_features([tmp_path]).problem_ids == ("p", "q")


@pytest.mark.parametrize("first", [0, 1], ids=["at the end", "before what is there"])
def test_a_folder_grows_with_the_problems_asked_for(tmp_path, first):
    """A run that grew lists its problems by name, so that new ones may stand before those that were read."""
    before = SAMPLED[first]
    collected(tmp_path / "first", sampled=[before], shard_size=2)
    assert read_features([tmp_path / "first"]).problem_ids == (before.problem,)
    engine = collected(tmp_path / "first", shard_size=2)
    assert engine.num_calls("read") == (4 if first else 1), "only what was not there"
    collected(tmp_path / "at-once", sampled=[before, SAMPLED[1 - first]], shard_size=2)
    grown, whole = (read_features([tmp_path / name]) for name in ("first", "at-once"))
    assert grown.problem_ids == whole.problem_ids and torch.equal(grown.states, whole.states)
    assert collected(tmp_path / "first", sampled=SAMPLED[:1], shard_size=2).num_calls("read") == 0, "fewer are there"


def test_solutions_longer_than_the_context_are_left_out(tmp_path):
    long = Sampled("p", (1, 2), (Solution((A, (9,) * 30), 0, True), Solution((C,), 1, False)))
    collected(tmp_path, [long, SAMPLED[1]], FakeEngine(story_model(), context_tokens=20))
    assert read_features([tmp_path]).leaves.tolist() == [0, 1]


def test_a_problem_of_which_nothing_fits_leaves_no_shard(tmp_path):
    long = Sampled("p", (1, 2), (Solution((A, (9,) * 30), 0, True),))
    collected(tmp_path, [long, SAMPLED[1]], FakeEngine(story_model(), context_tokens=20))
    assert read_features([tmp_path]).problem_ids == ("q",)


def made(num_problems=40, num_solutions=6, noise=0.5, seed=0, layers=(1, 2)):
    """Features of solutions of two steps each: the last layer tells right from wrong, less so at the first step."""
    rng = np.random.default_rng(seed)
    right = rng.random((num_problems, num_solutions)) < rng.uniform(0.2, 0.8, num_problems)[:, None]
    correct = right.reshape(-1)
    count = len(correct)
    states = rng.normal(size=(2 * count, len(layers), 8))
    sign = np.where(correct, 1.0, -1.0)
    states[0::2, -1, 3] = 0.4 * sign + noise * rng.normal(size=count)
    states[1::2, -1, 3] = sign + noise * rng.normal(size=count)
    # What differs from problem to problem only is no help within one.
    states[:, :, 5] += np.repeat(10 * rng.normal(size=num_problems), 2 * num_solutions)[:, None]
    ends = np.arange(count) * 2 + 1
    return Features(
        {**SETTINGS, "layers": list(layers)},
        tuple(f"p{number}" for number in range(num_problems)),
        torch.tensor(states).bfloat16(),
        np.repeat(np.arange(num_problems), 2 * num_solutions),
        np.where(np.arange(2 * count) % 2 == 0, -1, np.arange(2 * count) - 1),
        np.ones(2 * count, np.int64),
        np.repeat(correct, 2).astype(np.int64),
        ends,
        np.where(correct, 0, 1 + rng.integers(0, 3, count)),
        correct,
    )


@pytest.mark.parametrize("network", ["linear", "mlp"])
def test_the_layer_that_knows_is_found_and_its_probe_tells_unseen_problems(network):
    settings = ProbeTraining(network=network, units=16, learning_rate=0.02, num_folds=4)
    seen, unseen = made(seed=0), made(seed=1)
    trained = train(seen, (1, 2), settings, curve=True)
    assert trained.probe.config.layer == 2 and trained.by_layer[1] < 0.65 < 0.8 < trained.by_layer[2]
    assert set(trained.by_data) == {0.25, 0.5, 1.0}
    rewards = trained.probe.rewards(unseen.layer(2).numpy())
    measured = figures(unseen, rewards, "last")
    assert measured["auc_within"] > 0.85 and measured["calibration_error"] < 0.12
    assert measured["auc_half_way_within"] < measured["auc_within"]
    assert measured["auc_position_2"] < measured["auc_position_4"] and measured["auc_position_1"] is None
    assert measured["num_problems"] == 40 and measured["num_solutions"] == 240 and measured["num_steps"] == 480
    # What was held out is no better than what was never seen, by more than chance.
    assert abs(concordance(trained.log_odds, seen.labels, seen.problems) - trained.by_layer[2]) < 1e-9
    again = train(seen, (1, 2), settings)
    assert np.array_equal(again.log_odds, trained.log_odds), "a training is repeatable"


def test_labels_of_chance_are_not_learnt():
    features = made(noise=50.0)
    trained = train(features, (2,), ProbeTraining(units=16, max_epochs=10, num_folds=4))
    assert 0.4 < trained.by_layer[2] < 0.6, "held out means held out"


def test_too_few_problems_are_refused():
    with pytest.raises(DataError, match="have both right and wrong solutions, and 5 folds need 5 at least"):
        train(made(num_problems=3), (2,), ProbeTraining())


def test_calibration_keeps_the_order_and_finds_the_truth():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000) * 2
    labels = (rng.random(4000) < 1 / (1 + np.exp(-truth))).astype(float)
    ones = np.ones(4000, np.int64)
    assert fit_temperature(3 * truth, labels, ones) == pytest.approx(3, rel=0.15)
    told = 1 / (1 + np.exp(-truth))
    knots = fit_knots(told**2, labels, ones)
    across, up = zip(*knots, strict=True)
    assert list(across) == sorted(set(across)) and list(up) == sorted(up) and knots[0] == (0, 0) and knots[-1] == (1, 1)
    assert np.abs(np.interp(told**2, across, up) - told).mean() < 0.04
    falling = fit_knots(told, 1 - labels, ones)
    assert len(falling) == 3, "what falls is levelled"


def test_concordance_is_the_auc_within_problems():
    labels, problems = np.array([1.0, 0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1, 2])
    assert concordance(np.array([2.0, 1.0, 3.0, 4.0, 0.0]), labels, problems) == 0.5
    assert concordance(np.zeros(5), labels, problems) == 0.5
    soft = np.array([1.0, 0.5, 0.0])
    assert concordance(np.array([3.0, 1.0, 2.0]), soft, np.zeros(3, np.int64)) == pytest.approx(1.5 / 2)


def test_rules_weigh_as_they_say():
    ballot = Ballot(np.array([0, 0, 1, -1]), np.array([False, False, True, False]), np.array([0.2, 0.3, 0.9, 0.99]))
    rules = {rule.name: rule for rule in RULES}
    assert ballot.right(rules["majority"].weigh(ballot)) == 0
    assert ballot.right(rules["weighted"].weigh(ballot)) == 1
    assert ballot.right(rules["best"].weigh(ballot)) == 1, "what does not answer is not the best"
    assert ballot.right(rules["log-odds+1"].weigh(ballot)) == 1
    assert rules["log-odds+2"].weigh(ballot)[:3] == pytest.approx(
        [2 + math.log(0.25), 2 + math.log(3 / 7), 2 + math.log(9)]
    )
    assert rules["answer^1"].weigh(ballot)[0] == pytest.approx(math.sqrt(0.25 * 3 / 7))
    assert rules["rank^1"].weigh(ballot).tolist() == [0.25, 0.5, 0.75, 1.0]


def test_votes_gain_where_rewards_tell_and_choose_by_other_problems():
    features = made(num_problems=120, seed=3)
    good = np.where(np.repeat(features.correct, 2), 0.8, 0.3)
    found = vote_figures(features, good, ("last", "min"), num_folds=5)
    assert found["vote_crossfit"] > found["vote_majority"] and found["vote_crossfit_low"] > 0
    assert found["vote_oracle"] >= found["vote_crossfit"] and found["vote_weighted/last_gain"] > 0
    assert json.loads(json.dumps(found)) == found, "flat, for --json"
    noise = np.random.default_rng(0).random(len(good))
    told = vote_figures(features, noise, ("last",), num_folds=5)
    assert told["vote_crossfit_low"] <= 0, "a rule that is good by chance is not good on other problems"
    assert solution_rewards(features, good, "min").tolist() == np.where(features.correct, 0.8, 0.3).tolist()
