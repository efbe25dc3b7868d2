"""`ets repro` on small recipes: every number from a record, the same numbers again, and plans without a network."""

import json
import os
import subprocess
import sys

import pytest
import yaml

ETS = {
    "title": "small",
    "settings": {
        "models": {"policy": "mini:target"},
        "rewards": {"prm": "mini:prm"},
        "problems": {"data": "mini:test"},
    },
    "methods": {"sampling": {"search": {"method": "best-of-n"}}, "rebase": {}, "beam": {}, "ets-kv": {}, "ets": {}},
    "turn": 3,
    "widths": {1: {"limit": 4, "methods": ["rebase"]}, 4: {"limit": 4}},
    "quick": {4: {"limit": 2}},
}
ARBITRAGE = {
    "title": "small",
    "settings": {"routing": {"draft": "mini:draft", "target": "mini:target"}, "problems": {"data": "mini:test"}},
    "routers": {
        "limit": 4,
        "thresholds": {"random": [0.3], "rsd": [0.7], "arbitrage": [0.3], "oracle": [0.0]},
        "latency": ["rsd:0.7", "arbitrage:0.3"],
        "latency_limit": 1,
        "ablation_limit": 4,
    },
    "ablations": {"2-class, annotated history": "mini:router", "4-class": {"classes": "4"}},
    "ablation_training": {
        "data": {"train": {"data": "mini:train", "limit": 8}, "dev": {"data": "mini:dev", "limit": 4}},
        "settings": {"margin": 0.1, "batch_size": 16, "num_epochs": 1, "learning_rate": 0.0005},
        "tags": {"draft_tag": "d", "target_tag": "t"},
    },
    "ablation_skip": 40_000_000,
}


def records(folder):
    return {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.glob("*/problems/*.json")}


def same_numbers(one, other):
    """All but times are equal: what comes from a router's weights to float32's last digits, the rest exactly."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        exact = not name.startswith("spearman")
        assert (
            "speedup" in name
            or name.startswith("seconds")
            or (value == other[name] if exact else value == pytest.approx(other[name], abs=0.05))
        )
    return True


def test_the_table_of_searches_comes_from_records_and_comes_again(inside, tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(ETS))
    args = ("repro", "ets", "--recipe", "small.yaml")
    first = inside(*args, "--json", "--out", "out").json
    kept = records(tmp_path / "runs" / "ets-small")
    assert len(kept) == 4 + 5 * 4
    for width, method in ((1, "rebase"), (4, "rebase"), (4, "beam"), (4, "ets-kv"), (4, "ets")):
        own = [one for name, one in kept.items() if name.startswith(f"{method}-{width}/")]
        key = f"{width}_{method.replace('-', '_')}"
        assert first["figures"][f"accuracy_{key}"] == sum(one["correct"] for one in own) / 4
        assert first["figures"][f"unique_tokens_{key}"] == sum(one["stats"]["unique_tokens"] for one in own)
    samples = [one for name, one in kept.items() if name.startswith("sampling-4/")]
    right = [
        sum(f"\\boxed{{{one['reference']}}}" in node["text"] for node in one["tree"]["nodes"]) / 4 for one in samples
    ]
    assert first["figures"]["pass_at_1_4_sampling"] == pytest.approx(sum(right) / 4)
    assert 0 < first["figures"]["pass_at_1_4_sampling"] < first["figures"]["accuracy_4_sampling"]
    assert "pass_at_1_4_rebase" not in first["figures"], "a search's trajectories are no independent samples"
    kv = [
        sum(one["stats"]["kv_tokens_mean"] for n, one in kept.items() if n.startswith(f"{m}-4/"))
        for m in ("rebase", "ets")
    ]
    assert first["figures"]["kv_ratio_4_ets"] == pytest.approx(kv[0] / kv[1])
    voted = {(row["search"], row["vote"]) for row in first["tables"]["votes"]}
    assert voted == {(name, rule) for name in ("sampling", "rebase") for rule in ("majority", "best", "weighted")}
    assert "not published" in (tmp_path / "out" / "ets.md").read_text()
    for name in (
        "ets.json",
        "ets-searches.csv",
        "ets-votes.csv",
        "accuracy-kv.png",
        "accuracy-latency.png",
        "kv-depth.png",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 0
    assert json.loads((tmp_path / "out" / "ets.json").read_text()) == first

    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").glob("*/*/problems/*.json")}
    assert inside(*args, "--json").json["figures"] == first["figures"], "it is read back, not run again"
    assert {file: file.stat().st_mtime_ns for file in times} == times
    quick = inside(*args, "--quick", "--json").json["figures"]
    assert quick["num_problems_4_ets"] == 2, "fewer of the same records"
    assert "accuracy_1_rebase" not in quick
    again = inside(*args, "--quick", "--json", "--runs", "elsewhere").json["figures"]
    same = [key for key in quick if key.startswith(("accuracy", "kv", "vote", "num")) or "tokens" in key]
    assert {key: again[key] for key in same} == {key: quick[key] for key in same}
    small = {**ETS, "methods": {"rebase": {}}, "widths": {4: {"limit": 1}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    other = inside(*args, "--data", "mini:dev", "--policy", "mini:draft", "--runs", "dev", "--json").json
    assert other["provenance"]["data"] == "mini:dev", "the recipe's data, but for another set"
    kept = json.loads((tmp_path / "dev" / "rebase-4" / "run.json").read_text())
    assert kept["settings"]["policy"] == "mini:draft", "and its policy, but for another model"


def test_a_lost_record_is_made_again(inside, tmp_path):
    (tmp_path / "small.yaml").write_text(
        yaml.safe_dump({**ETS, "methods": {"rebase": {}, "ets": {}}, "widths": {4: {"limit": 2}}})
    )
    args = ("repro", "ets", "--recipe", "small.yaml", "--json")
    first = inside(*args).json["figures"]
    lost = sorted((tmp_path / "runs" / "ets-small" / "ets-4" / "problems").iterdir())[1]
    text = json.loads(lost.read_text())
    lost.write_text('{"version": 1,')
    again = inside(*args).json["figures"]
    assert json.loads(lost.read_text())["answer"] == text["answer"]
    assert same_numbers(again, first)


def test_the_tables_of_routers_come_from_records_and_come_again(inside, tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(ARBITRAGE, sort_keys=False))
    args = ("repro", "arbitrage", "--recipe", "small.yaml")
    first = inside(*args, "--json", "--out", "out").json
    kept = records(tmp_path / "runs" / "arbitrage-small")
    assert len(kept) == 6 * 4 + 2 * 1
    rows = {row["router"]: row for row in first["tables"]["routers"]}
    assert list(rows) == ["never", "always", "random:0.3", "rsd:0.7", "arbitrage:0.3", "oracle:0"]
    assert (rows["never"]["acceptance rate"], rows["always"]["acceptance rate"]) == ("1.000", "0.000")
    own = [one for name, one in kept.items() if name.startswith("arbitrage_0.3/")]
    steps = [node for one in own for node in one["tree"]["nodes"][1:]]
    share = sum(node["writer"] == "draft" for node in steps) / len(steps)
    assert rows["arbitrage:0.3"]["acceptance rate"] == f"{share:.3f}"
    assert rows["oracle:0"]["FLOPs a problem"] is None, "the oracle's cost is no cost of a router"
    table = {row["router"]: row for row in first["tables"]["ablations"]}
    assert table["10-class"]["Spearman, ours"] == "not run" and len(table) == 7
    assert {first["figures"][f"spearman_{name}"] for name in ARBITRAGE["ablations"]} == {
        table[name]["Spearman, ours"] for name in ARBITRAGE["ablations"]
    }
    assert len(list((tmp_path / "runs" / "arbitrage-small").glob("router-4-*/router_config.json"))) == 1
    assert (tmp_path / "out" / "routers-acceptance.png").exists() and (tmp_path / "out" / "arbitrage.md").exists()
    again = inside(*args, "--json").json
    assert again["figures"] == first["figures"] and again["tables"] == first["tables"]
    fresh = inside(*args, "--json", "--runs", "elsewhere").json["figures"]
    assert same_numbers(fresh, first["figures"])


NO_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the plan reached for the network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from search.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("paper", "recipe", "shown"),
    [
        ("arbitrage", "paper/qwen25-math", "Qwen/Qwen2.5-Math-7B-Instruct"),
        ("ets", "paper/llemma-34b", "tkitsers/Llemma-metamath-34b"),
    ],
)
def test_a_plan_needs_no_network(tmp_path, paper, recipe, shown):
    command = [sys.executable, "-c", NO_NETWORK, "repro", paper, "--recipe", recipe, "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout and "GPU memory" in done.stdout and "sglang.launch_server" in done.stdout
    assert "requests to the policy" in done.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("ets", "--recipe", "none"), "recipe 'none': none of mini"),
        (("rsd",), "'rsd' is not one of 'ets', 'arbitrage'"),
        (("ets", "--recipe", "broken.yaml"), "not valid YAML"),
    ],
)
def test_bad_input(inside, tmp_path, args, message):
    (tmp_path / "broken.yaml").write_text("a: [")
    ran = inside("repro", *args)
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1
