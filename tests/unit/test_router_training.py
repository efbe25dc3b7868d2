"""Collecting, training and measuring a router: on fakes where counting matters, on the mini family where weights do."""

import asyncio
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
from fake_engine import Fault
from prm_checkpoints import headed_model
from routing import PROMPT, Parts
from scoring import rewards_of

from arbitrage.collect import Collector, CollectSettings, collect
from arbitrage.evaluation import chosen, figures
from arbitrage.reading import RouterConfig, RouterReader, advantage_class, estimate, num_outputs, read_config
from arbitrage.training import RouterTraining, helps, texts_of, train
from arbitrage.walks import DRAFT, TARGET, StepPair, Walk, read_shard, read_walks, shard_file, shard_text
from search.config import SearchSettings
from search.errors import ConfigError, DataError, EngineError, ScoringError
from search.learning.router import add_lora, load_router, new_router, save_router
from search.setup.registry import make_engine, make_scorer
from search.support.files import write_atomic
from search.support.statistics import clustered_bootstrap
from search.types import Problem, Prompt, Sampling

ORIGIN = {
    "draft": "mini:draft", "target": "mini:target", "prm": "mini:prm", "data": "x", "skip": 0, "shard_size": 3,
    "temperature": 1.0, "num_samples": 1, "seed": 0, "max_depth": 25,
}  # fmt: skip
PROBLEMS = [Problem(f"p{number}", PROMPT, "4") for number in range(8)]


def collector(parts, **changes):
    settings = CollectSettings(Sampling(1.0), **changes)
    return Collector(
        *parts.views(),
        parts.scorer(),
        settings,
        prompt=lambda problem: Prompt(problem.text, parts.target.tokenizer.encode(problem.text)),
    )


def gather(folder, parts=None, problems=PROBLEMS, origin=ORIGIN, **changes):
    made = collector(parts or Parts(), **changes)
    return asyncio.run(collect(made, problems, folder, origin, write_atomic, concurrency=3))


# Collecting


def test_a_walk_follows_the_better_scored_step_and_both_models_write_at_each(tmp_path):
    parts = Parts()
    (walk,) = gather(tmp_path, parts, PROBLEMS[:1])
    assert len(parts.draft.calls) == len(parts.target.calls) == len(walk.pairs) > 1
    tree, drafts = walk.tree()
    scorer = Parts().scorer()
    for pair, draft in zip(walk.pairs, drafts, strict=True):
        assert pair.takes_target == (pair.target_reward > pair.draft_reward)
        (reward,) = rewards_of(scorer, tree, [draft])
        assert reward == pytest.approx(pair.draft_reward)
        assert tree[draft].writer == DRAFT
        if pair.takes_target:
            assert tree.nodes[draft + 1].writer == TARGET and tree.nodes[draft + 1].ids == pair.target_ids
    for engine in parts.engines:
        for name in {call.prefix.tree for call in engine.calls}:
            assert engine.usage(name).kv_tokens_held == 0


def test_the_mean_over_samples_decides_at_a_temperature_and_is_refused_without():
    parts = Parts()
    walk = asyncio.run(collector(parts, num_samples=4).walk(PROBLEMS[0]))
    assert all(len(call.keys) == 4 for call in parts.target.calls)
    single = asyncio.run(collector(Parts()).walk(PROBLEMS[0]))
    assert walk.pairs[0].target_ids == single.pairs[0].target_ids
    assert walk.pairs[0].target_reward != single.pairs[0].target_reward
    with pytest.raises(ConfigError, match="at temperature 0 they are all the same"):
        Collector(*parts.views(), parts.scorer(), CollectSettings(Sampling(0.0), 2), prompt=str)


def test_collection_goes_on_where_it_stopped(tmp_path):
    whole = gather(tmp_path / "whole")
    broken = Parts()
    broken.target._faults = {("generate", 25): Fault("generate", 25)}
    with pytest.raises(EngineError):  # by itself and in no group, so that a command says it in one line
        gather(tmp_path / "parts", broken)
    kept = sorted(file.name for file in (tmp_path / "parts").iterdir())
    assert 0 < len(kept) < 3, "finished shards stay, and nothing else"
    again = Parts()
    assert gather(tmp_path / "parts", again) == whole
    assert {call.prefix.tree for call in again.draft.calls} == {
        f"p{number}#collect" for number in range(3 * len(kept), 8)
    }
    assert read_walks([tmp_path / "parts"])[1] == whole


def test_a_shard_that_was_cut_short_is_told_and_only_it_is_made_anew(tmp_path):
    whole = gather(tmp_path)
    file = shard_file(tmp_path, 1)
    text = file.read_text()
    for cut in (text[: len(text) // 2], text[: text.rindex("\n", 0, -1) + 1], "", text[:20]):
        file.write_text(cut)
        with pytest.raises(DataError, match="cut short"):
            read_walks([tmp_path])
        parts = Parts()
        assert gather(tmp_path, parts) == whole
        assert {call.prefix.tree for call in parts.draft.calls} == {"p3#collect", "p4#collect", "p5#collect"}
        assert file.read_text() == text


def test_shards_of_other_settings_are_refused_by_what_differs(tmp_path):
    gather(tmp_path)
    with pytest.raises(ConfigError, match=r"collected with temperature 1.0, now it is 0.5"):
        gather(tmp_path, origin={**ORIGIN, "temperature": 0.5})
    other = tmp_path / "other"
    gather(other, origin={**ORIGIN, "target": "another"})
    with pytest.raises(ConfigError, match="target 'another', others with 'mini:target'"):
        read_walks([tmp_path, other])
    with pytest.raises(ConfigError, match="holds no collected steps"):
        read_walks([tmp_path / "nothing"])


def test_a_folder_can_be_extended(tmp_path):
    few = gather(tmp_path, problems=PROBLEMS[:3])
    parts = Parts()
    assert gather(tmp_path, parts)[:3] == few
    assert "p0#collect" not in {call.prefix.tree for call in parts.draft.calls}


# Reading


def test_classes_and_estimates():
    assert [advantage_class("2", d, 0.1, 0.3) for d in (-1, 0.1, 0.11)] == [0, 0, 1]
    assert [advantage_class("4", d, 0.0, 0.3) for d in (-0.4, -0.1, 0.1, 0.4)] == [0, 1, 2, 3]
    assert estimate("2", (0.0, math.log(3))) == pytest.approx(0.75)
    assert estimate("4", (0.0, 0.0, math.log(2), math.log(2))) == pytest.approx(4 / 6)
    assert estimate("4-ordinal", (5.0, 0.0, -5.0)) == 0.5
    with pytest.raises(ScoringError, match="2 outputs; 4 classes need 4"):
        estimate("4", (0.0, 0.0))
    with pytest.raises(ConfigError, match="must be one of 2, 4, 4-ordinal"):
        num_outputs("10")


def test_a_router_reads_who_wrote_each_step():
    parts = Parts()
    tree, drafts = walk_of([(0.1, 0.9, True), (0.8, 0.2, False)], parts).tree()
    codec = parts.codec(parts.learned)
    config = RouterConfig("d", "t", "p", draft_tag="D", target_tag="T")
    reader = RouterReader(codec, parts.learned.tokenizer, config)
    decode = parts.learned.tokenizer.decode
    assert decode(reader.step_ids(tree, tree[drafts[0]])) == "DAdd 1.\n\n"
    assert decode(reader.step_ids(tree, tree.nodes[drafts[0] + 1])) == "TTake 2.\n\n"
    found = texts_of([walk_of([(0.1, 0.9, True), (0.8, 0.2, False)], parts)], reader, 999)
    plain = RouterReader(codec, parts.learned.tokenizer, replace(config, annotate=False))
    assert decode(plain.step_ids(tree, tree[drafts[0]])) == "Add 1.\n\n"
    texts = {decode(text.ids): text for text in found}
    assert set(texts) == {PROMPT + "DAdd 1.\n\n", PROMPT + "TTake 2.\n\nDAdd 1.\n\n"}
    for text in texts.values():
        assert text.reads == (len(text.ids) - 1,)


def walk_of(scores, parts, name="w", rights=None):
    encode = parts.target.tokenizer.encode
    ours, theirs = "Add 1.\n\n", "Take 2.\n\n"
    pairs = tuple(
        StepPair(encode(ours), ours, encode(theirs), theirs, draft, target, taken, *(rights[i] if rights else ()))
        for i, (draft, target, taken) in enumerate(scores)
    )
    return Walk(name, PROMPT, encode(PROMPT), PROMPT, pairs)


# Training


@pytest.fixture(scope="module")
def mini_walks(tmp_path_factory):
    from search.learning.collection import Collection, collect_walks

    folder = tmp_path_factory.mktemp("walks")
    return collect_walks(Collection(limit=24, skip=40_000_000, shard_size=24), folder)


def started(classes="2", annotate=False):
    config = {"draft": "mini:draft", "target": "mini:target", "prm": "mini:prm", "classes": classes,
              "annotate": annotate, "draft_tag": "d", "target_tag": "t"}  # fmt: skip
    return new_router("mini:prm", config, device="cpu", tree_model="mini:target")


def estimates(parts, walks):
    count = sum(len(walk.pairs) for walk in walks)
    return parts.model.estimates(texts_of(walks, parts.reader, 512), count)


@pytest.mark.parametrize("classes", ["2", "4", "4-ordinal"])
def test_an_untrained_router_says_what_the_reward_model_says(mini_walks, classes):
    doubts = [1 - pair.draft_reward for walk in mini_walks for pair in walk.pairs]
    assert estimates(started(classes), mini_walks) == pytest.approx(doubts, abs=2e-4)


@pytest.mark.parametrize("kind", ["skywork-o1", "qwen-math-prm"])
def test_a_router_starts_from_any_reward_head(tmp_path, kind, mini_walks):
    """The head of one output, and that of two behind a hidden layer, turned into one of two classes."""
    headed_model(tmp_path, kind)
    config = {"draft": "a", "target": "b", "prm": str(tmp_path), "annotate": False}
    parts = new_router(str(tmp_path), config, device="cpu", tree_model=str(tmp_path))
    save_router(parts, tmp_path / "router", {}, bfloat16=False)
    again = load_router(str(tmp_path / "router"), tree_model=str(tmp_path))
    engine = make_engine("local", str(tmp_path), SearchSettings(), None)
    scorer = make_scorer(SearchSettings(prm=str(tmp_path)), engine, engine.tokenizer)
    tree, drafts = mini_walks[0].tree()
    rewards = rewards_of(scorer, tree, drafts)
    assert estimates(again, mini_walks[:1]) == pytest.approx([1 - reward for reward in rewards], abs=1e-5)


@pytest.mark.parametrize(
    "classes", ["2", pytest.param("4", marks=pytest.mark.nightly), pytest.param("4-ordinal", marks=pytest.mark.nightly)]
)
def test_training_learns_and_the_best_weights_stay(mini_walks, classes):
    parts = started(classes, annotate=True)
    settings = RouterTraining(classes=classes, batch_size=32, learning_rate=1e-3, num_epochs=2, evals_per_epoch=1)
    outcome = train(parts.model, parts.reader, mini_walks, mini_walks, settings)
    measured = {point.step: point.dev_auc for point in outcome.curve if point.dev_auc is not None}
    assert max(measured.values()) == measured[outcome.best_step] > measured[0]
    found = figures(mini_walks, estimates(parts, mini_walks), 0.0)
    assert found["auc_any_advantage"] == pytest.approx(measured[outcome.best_step], abs=1e-6)
    assert outcome.num_used == 2 * round(min(outcome.share_positive, 1 - outcome.share_positive) * outcome.num_pairs)


def test_without_balance_every_pair_is_used_and_training_repeats_exactly(mini_walks):
    settings = RouterTraining(balance=False, batch_size=64, learning_rate=1e-3, num_epochs=1)
    found = []
    for _ in range(2):
        parts = started()
        outcome = train(parts.model, parts.reader, mini_walks[:8], mini_walks[:4], settings)
        assert outcome.num_used == outcome.num_pairs
        found.append(estimates(parts, mini_walks[:2]))
    assert found[0] == found[1]


def test_training_stops_where_dev_does_not_gain(mini_walks):
    parts = started()
    settings = RouterTraining(batch_size=8, learning_rate=1e-9, num_epochs=50, evals_per_epoch=1, patience=2)
    outcome = train(parts.model, parts.reader, mini_walks[:8], mini_walks[:8], settings)
    assert outcome.curve[-1].step < outcome.curve[-1].num_steps / 2


def test_steps_of_one_class_are_refused(mini_walks):
    parts = started()
    with pytest.raises(DataError, match="all collected steps are of one class"):
        train(parts.model, parts.reader, mini_walks, mini_walks, RouterTraining(margin=1.0))


def test_a_checker_may_say_what_helps(mini_walks):
    settings = RouterTraining(label="checker", balance=False, batch_size=64, learning_rate=1e-3, num_epochs=1)
    walks = mini_walks[:12]
    pairs = [pair for walk in walks for pair in walk.pairs]
    wanted = [bool(pair.target_right) and not pair.draft_right for pair in pairs]
    assert helps(walks, settings) == wanted != helps(walks, replace(settings, label="reward"))
    parts = started()
    outcome = train(parts.model, parts.reader, walks, walks, settings)
    assert outcome.share_positive == pytest.approx(sum(wanted) / len(wanted))
    measured = {point.step: point.dev_auc for point in outcome.curve if point.dev_auc is not None}
    assert figures(walks, estimates(parts, walks), 0.0)["auc"] == pytest.approx(measured[outcome.best_step], abs=1e-6)


def test_a_checkers_label_needs_its_verdicts_and_two_classes(mini_walks):
    parts = started()
    unjudged = [
        replace(walk, pairs=tuple(replace(pair, draft_right=None) for pair in walk.pairs)) for walk in mini_walks
    ]
    with pytest.raises(DataError, match="no checker's verdict; label reward needs none"):
        train(parts.model, parts.reader, unjudged, mini_walks, RouterTraining(label="checker"))
    with pytest.raises(ConfigError, match="label checker knows two classes, not 4"):
        train(parts.model, parts.reader, mini_walks, mini_walks, RouterTraining(label="checker", classes="4"))


def test_the_saved_router_gives_the_engine_the_same_estimates(tmp_path, mini_walks):
    from arbitrage.routers import LearnedRouter
    from prm import PrmScorer
    from search.setup.routing import router_reader

    parts = started(annotate=True)
    train(
        parts.model,
        parts.reader,
        mini_walks[:8],
        mini_walks[:8],
        RouterTraining(batch_size=64, learning_rate=1e-3, num_epochs=1),
    )
    save_router(parts, tmp_path, {"why": "test"}, bfloat16=False)
    assert json.loads((tmp_path / "training.json").read_text()) == {"why": "test"}
    config = read_config("r", tmp_path)
    assert (config.draft, config.target, config.prm) == ("mini:draft", "mini:target", "mini:prm")
    engine = make_engine("local", str(tmp_path), SearchSettings(), None)
    scorer = PrmScorer(engine, router_reader(config, engine.tokenizer, engine.tokenizer))
    tree, drafts = mini_walks[1].tree()
    given = rewards_of(scorer, tree, drafts)
    assert given == pytest.approx(estimates(parts, mini_walks[1:2]), abs=1e-4)
    assert LearnedRouter(scorer, 0.5).name == "arbitrage:0.5"


def test_lora_without_peft_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"--lora needs peft: .*-m pip install 'peft>="):
        add_lora(started(), 4)


@pytest.mark.nightly
def test_lora_trains_few_weights_and_is_saved_merged(tmp_path, mini_walks):
    parts = started(annotate=True)
    count = sum(value.numel() for value in parts.model.parameters())
    before = estimates(parts, mini_walks)
    add_lora(parts, 4)
    assert sum(value.numel() for value in parts.model.parameters()) < count / 5
    assert estimates(parts, mini_walks) == pytest.approx(before, abs=1e-6), "it starts as what it was"
    settings = RouterTraining(balance=False, batch_size=32, learning_rate=3e-3, num_epochs=2)
    outcome = train(parts.model, parts.reader, mini_walks, mini_walks, settings)
    assert outcome.best_step > 0
    trained = estimates(parts, mini_walks)
    assert trained != pytest.approx(before, abs=1e-3)
    save_router(parts, tmp_path, {"why": "test"}, bfloat16=False)
    assert not any("lora" in name for name in safetensors.torch.load_file(tmp_path / "model.safetensors"))
    again = load_router(str(tmp_path), tree_model="mini:target")
    assert estimates(again, mini_walks) == pytest.approx(trained, abs=1e-5)


# Figures


def test_figures_of_a_router_that_knows_and_one_that_does_not():
    """40 problems of 5 steps; the target helps at one step, and at another both are wrong."""
    parts = Parts()
    scores = [(0.9, 0.9, False), (0.2, 0.95, True), (0.1, 0.1, False), (0.8, 0.7, False), (0.95, 0.94, False)]
    rights = [(True, True), (False, True), (False, False), (True, True), (True, True)]
    walks = [walk_of(scores, parts, f"w{i}", rights) for i in range(40)]
    knows = figures(walks, [0.0, 1.0, 0.0, 0.0, 0.0] * 40, 0.1)
    assert knows["auc"] == 1.0 and knows["auc_prm"] == pytest.approx(0.75)
    assert (knows["num_pairs"], knows["num_problems"], knows["share_better"]) == (200, 40, 0.2)
    # The first fifth by 1 - s_d are the steps at which both are wrong: escalated in vain.
    assert (knows["gain_20"], knows["gain_prm_20"], knows["gain_oracle_20"]) == (0.2, 0.0, 0.2)
    assert knows["gain_vs_prm_20"] == knows["gain_vs_prm_20_lo"] == knows["gain_vs_prm_20_hi"] == 0.2
    assert knows["gain_vs_prm_40"] == 0.0
    assert (knows["accuracy_0"], knows["accuracy_1"], knows["calibration_error"]) == (1.0, 1.0, 0.0)
    blind = figures(walks, [0.5] * 200, 0.1)
    assert blind["auc"] == 0.5 and blind["accuracy_1"] == 0.0 and blind["spearman"] is None
    unchecked = [walk_of(scores, parts, f"w{i}") for i in range(40)]
    assert figures(unchecked, [0.0, 1.0, 0.0, 0.0, 0.0] * 40, 0.1)["auc"] == 1.0


def test_pairs_that_were_too_long_are_left_out():
    parts = Parts()
    walks = [walk_of([(0.9, 0.8, False), (0.2, 0.9, True)], parts, f"w{i}") for i in range(3)]
    found = figures(walks, [0.1, 0.9, None, 0.9, 0.1, 0.9], 0.0)
    assert (found["num_pairs"], found["num_left_out"]) == (5, 1)


def test_shares_and_clustered_intervals():
    assert chosen([0.1, 0.9, 0.5, 0.5], 0.5).tolist() == [0, 1, 1, 0]
    rng = np.random.default_rng(1)
    problem = rng.normal(size=200)
    values, owners = np.repeat(problem, 10), np.repeat(np.arange(200), 10)
    low, high = clustered_bootstrap(values, owners)
    assert high - low == pytest.approx(4 * problem.std() / math.sqrt(200), rel=0.15), "ten copies tell no more than one"
    assert low < values.mean() < high


def test_a_shard_is_read_back_whole(tmp_path):
    walks = [walk_of([(0.5, 0.6, True)], Parts(), rights=[(False, True)])]
    file = shard_file(tmp_path, 0)
    file.write_text(shard_text(walks, ORIGIN))
    head, again = read_shard(file)
    assert again == walks and head["num_walks"] == 1 and head["prm"] == "mini:prm"
