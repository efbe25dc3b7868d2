"""`ets router`, `--writer arbitrage` and `ets bench routers` on the shipped models, and every wrong input."""

import json
import shutil

import pytest

from arbitrage.walks import read_shard

CHAIN = ("solve", "--mini", 3, "--method", "chain", "--writer", "arbitrage", "--temperature", 0)
ROUTERS = ("never", "always", "random:0.5", "rsd:0.7", "judge:4", "arbitrage:0.5", "probe", "oracle:0")


@pytest.mark.parametrize("router", ROUTERS)
def test_a_chain_under_every_router_records_who_wrote_what(inside, router):
    ran = inside(*CHAIN, "--router", router, "--json", "--tree", "tree.json")
    assert (ran.code, ran.err) == (0, "")
    (trajectory,) = ran.json["trajectories"]
    writers = {step["writer"] for step in trajectory["steps"]}
    assert writers <= {"draft", "target"} and len(trajectory["steps"]) > 2
    assert writers == {"draft"} if router == "never" else True
    assert writers == {"target"} if router == "always" else True
    models = ran.json["models"]
    assert models["draft"]["kept_tokens"] + models["target"]["kept_tokens"] == trajectory["num_tokens"]
    has_model = router.partition(":")[0] in ("rsd", "arbitrage", "oracle")
    assert set(models) == {"draft", "target", *(["router"] if has_model else [])}
    assert all(cost["flops"] >= 0 and cost["seconds"] >= 0 for cost in models.values())
    assert ran.json["stats"]["prm_tokens"] == 0, "the router runs instead of the reward model"


def test_the_saved_tree_names_writer_estimate_and_dropped_tokens(inside, tmp_path):
    ran = inside(*CHAIN, "--router", "random:0.5", "--tree", "tree.json")
    assert ran.code == 0
    nodes = json.loads((tmp_path / "tree.json").read_text())["tree"]["nodes"][1:]
    assert {node["writer"] for node in nodes} == {"draft", "target"}
    assert all((node["dropped_tokens"] > 0) == (node["writer"] == "target") for node in nodes)
    assert "T, d: written by the target, by the draft" in ran.out and "Models" in ran.out and "FLOPs" in ran.out


def test_pipelined_and_plain_agree_and_both_print_their_models(inside):
    plain, ahead = (inside(*CHAIN, "--router", "arbitrage:0.3", *more, "--json").json for more in ((), ("--pipeline",)))
    assert plain["trajectories"][0]["text"] == ahead["trajectories"][0]["text"]
    assert plain["models"]["draft"]["thrown_tokens"] == 0


def test_ets_with_the_draft_target_writer(inside):
    ran = inside("eval", "--data", "mini:dev", "--limit", 2, "--method", "ets", "--width", 16, "--writer", "arbitrage",
                 "--router", "arbitrage:0.3", "--json")  # fmt: skip
    assert ran.code == 0
    models = ran.json["models"]
    assert set(models) == {"draft", "target", "router", "prm"}
    assert 0 < models["target"]["sampled_tokens"] < models["draft"]["sampled_tokens"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--router", "rsd:1.5"), "router 'rsd:1.5': the threshold 1.5 is out of range; accepted: rsd:DELTA"),
        (("--router", "arbitrage:-1"), "out of range"),
        (("--router", "sometimes"), "unknown router 'sometimes'; known: never, always, random:P"),
        (("--router", "rsd:0.5", "--router-model", "mini:target"), "no reward model that can be recognised"),
        (("--router", "arbitrage:0.5", "--router-model", "mini:prm"), "'mini:prm' is no router: no router_config.json"),
        (("--router", "never", "--router-model", "mini:prm"), "router never has no model of its own"),
        (("--policy", "mini:draft"), "writer arbitrage writes with draft and target; policy 'mini:draft' is not used"),
        (("--draft", "nowhere/x", "--router", "never"), "nowhere/x"),
        (("--router", "probe:nowhere"), "probe nowhere: no probe.json there"),
        (("--router", "probe:one", "--router-model", "two"), "router 'probe:one' and router_model 'two': give one of"),
        (
            ("--router", "probe:0.2", "--draft", "mini:target"),
            "this probe was trained for mini:draft, which has layers 2;",
        ),
    ],
)
def test_wrong_routing_is_one_clear_line(inside, args, said):
    ran = inside(*CHAIN, *args)
    assert ran.code == 2 and ran.out == ""
    assert said in ran.err and len(ran.err.strip().splitlines()) == 1


def test_pipeline_is_refused_where_it_means_nothing(inside):
    wide = inside("solve", "--mini", 0, "--method", "ets", "--writer", "arbitrage", "--pipeline")
    assert wide.code == 2 and "pipeline needs width 1" in wide.err
    plain = inside("solve", "--mini", 0, "--width", 1, "--pipeline")
    assert plain.code == 2 and "only writer arbitrage" in plain.err


def test_a_router_of_another_pair_is_named_on_stderr(inside):
    pair = ("--target", "mini:draft", "--router-model", "mini:router")
    ran = inside(*CHAIN, "--router", "arbitrage:0.5", *pair, "--json")
    assert ran.code == 0
    assert "'mini:router' was trained for target 'mini:target', not 'mini:draft'" in ran.err


COLLECT = ("router", "collect", "--out", "walks", "--limit", 6, "--shard-size", 3, "--skip", 50_000_000)


@pytest.fixture(scope="module")
def made_walks(made_once):
    folder, run = made_once
    run(*COLLECT)
    return folder / "walks"


@pytest.fixture
def walks(made_walks, tmp_path):
    return shutil.copytree(made_walks, tmp_path / "walks")


def test_collect_train_eval_and_use(inside, walks):
    kept = inside(*COLLECT, "--json").json
    assert kept["num_problems"] == 6 and kept["num_pairs"] > 20
    ran = inside("router", "train", walks, "--dev", walks, "--out", "r", "--epochs", 1, "--learning-rate", 1e-4,
                 "--batch-size", 16, "--draft-tag", "d", "--target-tag", "t", "--json")  # fmt: skip
    assert ran.code == 0
    assert ran.json["draft"] == "mini:draft" and ran.json["num_pairs"] > 20
    again = inside("router", "train", walks, "--dev", walks, "--out", "r")
    assert again.code == 2 and "holds a router already" in again.err
    measured = inside("router", "eval", "r", walks, "--json")
    assert measured.code == 0
    wanted = {"spearman", "auc", "auc_prm", *(f"gain_vs_prm_{s}{e}" for s in ("05", "10", "20", "40")
                                             for e in ("", "_lo", "_hi"))}  # fmt: skip
    assert measured.json["figures"].keys() >= wanted
    shown = inside("router", "eval", "r", walks).out
    figures = measured.json["figures"]
    assert f"{figures['num_pairs']} pairs of steps from" in shown and "the target's step is better in" in shown
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("5% of the pairs")]
    assert [float(cell) for cell in row[4:7]] == [
        pytest.approx(figures[name], abs=1e-4) for name in ("gain_05", "gain_prm_05", "gain_oracle_05")
    ]
    assert shown.isascii() and not any(name in shown for name in figures if "_" in name), "words, not names of keys"
    used = inside(*CHAIN, "--router", "arbitrage:0.3", "--router-model", "r", "--json")
    assert used.code == 0 and used.json["models"]["router"]["num_calls"] > 0


def test_a_probe_is_trained_measured_and_used_from_the_same_walks(inside, walks, tmp_path):
    ran = inside("router", "train", walks, "--dev", walks, "--out", "p", "--probe", "--json")
    assert ran.code == 0, ran.err
    record = ran.json["record"]
    assert record["prm"] == "mini:prm" and record["label"] == "reward" and ran.json["layer"] in (1, 2)
    assert list(record["thresholds"].values()) == sorted(record["thresholds"].values(), reverse=True)
    again = inside("router", "train", walks, "--dev", walks, "--out", "p", "--probe")
    assert again.code == 2 and "holds a router already" in again.err
    measured = inside("router", "eval", "p", walks, "--json").json["figures"]
    assert measured["num_pairs"] == ran.json["figures"]["num_pairs"]
    assert measured["auc"] == pytest.approx(ran.json["figures"]["auc"], abs=0.01)
    used = [
        inside(*CHAIN, *names, "--tree", "tree.json", "--json").json
        for names in (("--router", "probe:p:0.4"), ("--router", "probe:0.4", "--router-model", "p"))
    ]
    assert used[0]["trajectories"] == used[1]["trajectories"] and set(used[0]["models"]) == {"draft", "target"}
    nodes = json.loads((tmp_path / "tree.json").read_text())["tree"]["nodes"][1:]
    assert all((node["estimate"] > 0.4) == (node["writer"] == "target") for node in nodes)


def test_a_probe_is_told_from_what_scores_steps_and_takes_its_own_flags_alone(inside, walks, tmp_path):
    from search.mini.assets import checkpoint_path

    scores = shutil.copytree(checkpoint_path("probe"), tmp_path / "scores")
    config = json.loads((scores / "probe.json").read_text())
    (scores / "probe.json").write_text(json.dumps({**config, "target": ""}))
    shutil.copytree(checkpoint_path("probe"), tmp_path / "routes")
    train = ("router", "train", walks, "--dev", walks, "--out", "x")
    for args, said in (
        ((*CHAIN, "--router", "probe:scores"), "router probe: scores scores steps of mini:draft (--prm probe:scores)"),
        (("solve", "--mini", 0, "--prm", "probe:routes"), "this probe routes between mini:draft and mini:target"),
        (("router", "eval", "scores", walks), "scores is a probe that scores steps and no router"),
        ((*train, "--probe", "--epochs", 1, "--lora", 4), "--lora, --epochs: not for a router that is a probe"),
        ((*train, "--layers", "1"), "--layers: only with --probe"),
        ((*train, "--probe", "--layers", "3"), "layer 3: collected were 1, 2"),
        ((*train, "--probe", "--layers", "a"), "must be numbers with commas between them"),
    ):
        ran = inside(*args)
        assert ran.code == 2 and said in ran.err, (args, ran.err)


def test_a_shard_that_was_cut_short_is_named_and_nothing_is_lost(inside, walks):
    file = walks / "shard-00001.jsonl"
    whole, other = file.read_text(), (walks / "shard-00000.jsonl").stat().st_mtime_ns
    before = steps_of(file)
    file.write_text(whole[:-100])
    ran = inside("router", "eval", "mini:router", walks)
    assert ran.code == 2 and "shard-00001.jsonl: cut short: 2 of 3 walks" in ran.err
    again = inside(*COLLECT)
    assert again.code == 0 and steps_of(file) == before
    assert (walks / "shard-00000.jsonl").stat().st_mtime_ns == other


def steps_of(file):
    """All but the rewards, whose last digits move with what runs beside."""
    return [(walk.problem_id, [(p.draft_text, p.target_text) for p in walk.pairs]) for walk in read_shard(file)[1]]


def test_wrong_training_input(inside, walks, tmp_path):
    (tmp_path / "empty").mkdir()
    for args, said in (
        (("train", "empty", "--dev", walks, "--out", "x"), "holds no collected steps"),
        (
            ("train", walks, "--dev", walks, "--out", "x", "--base", "mini:target"),
            "no reward model that can be recognised",
        ),
        (("train", walks, "--dev", walks, "--out", "x", "--classes", "10"), "'10' is not one of"),
        (("train", walks, "--dev", walks, "--out", "x", "--margin", "1"), "one class"),
        (("collect", "--out", "y", "--samples", 4), "at temperature 0 they are all the same"),
        (("collect", "--out", "walks", "--limit", 6, "--seed", 9), "was collected with"),
        (
            ("collect", "--out", "y", "--draft", "mine"),
            "--target, --prm, --data not given: beside --draft mine the mini",
        ),
        (("collect", "--out", "y", "--prm", "mini:draft", "--limit", 1), "no reward model that can be recognised"),
        (("eval", "mini:target", walks), "'mini:target' is no router"),
    ):
        ran = inside("router", *args)
        assert ran.code == 2 and said in ran.err, (args, ran.err)


@pytest.mark.nightly
def test_the_shipped_router_knows_more_than_the_reward_model(inside, tmp_path):
    from search.mini.assets import checkpoint_path

    record = json.loads((checkpoint_path("router") / "training.json").read_text())
    assert record["draft"] == "mini:draft" and record["target"] == "mini:target" and record["prm"] == "mini:prm"
    ran = inside("router", "collect", "--out", "dev", "--data", "mini:dev", "--limit", 60, "--skip", 5000)
    assert ran.code == 0
    figures = inside("router", "eval", "mini:router", "dev", "--json").json["figures"]
    assert figures["auc"] > figures["auc_prm"] + 0.05
    assert figures["gain_vs_prm_10"] > 0


def test_bench_routers(inside, tmp_path):
    from search.studies.routers import run

    report = run(limit=4, timed=2, ets_limit=1, plots=tmp_path)
    figures = report["figures"]
    for name in ("accuracy_gain_vs_rsd_10", "accuracy_gain_vs_rsd_mean", "auc_oracle", "auc_arbitrage", "auc_rsd",
                 "auc_random", "target_calls_ratio_rsd_over_arbitrage", "flops_ratio_rsd_over_arbitrage",
                 "seconds_ratio_rsd_over_arbitrage", "pipeline_speedup", "ets_target_tokens_saved"):  # fmt: skip
        assert name in figures
    assert figures["online_equal"] == 1.0 and figures["pipeline_equal"] == 2
    rows = {row["router"]: row for row in report["rows"]}
    assert rows["never"]["target_calls"] == 0 and rows["always"]["target_share"] == 1
    assert "projected_seconds_1b_8b" not in rows["oracle:0"]
    assert {file.name for file in tmp_path.iterdir()} >= {"routers-acceptance.png", "routers-latency.png"}


def test_the_bench_of_the_pipeline_says_whether_it_changed_anything(inside):
    report = inside("bench", "pipeline", "--limit", 2, "--repeats", 1, "--json").json
    figures = report["figures"]
    assert figures["pipeline_equal"] == figures["num_problems"] == 2
    assert figures["pipeline_speedup"] == pytest.approx(
        figures["seconds_plain"] / figures["seconds_pipelined"], rel=1e-6
    )
    assert report["models"]["plain"]["draft"]["thrown_tokens"] == 0 <= figures["thrown_share"] < 1
    assert inside("bench", "pipeline", "--limit", 1, "--widths", 4).code == 2
