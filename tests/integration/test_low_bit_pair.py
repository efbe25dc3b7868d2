"""A model and its low-bit copy: from the checkpoint to the table of routers, with no reward model beside them."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from arbitrage.walks import read_walks
from prm.probe import Probe, ProbeConfig
from search.mini.assets import checkpoint_path

RECIPE = {
    "title": "a test",
    "settings": {"routing": {"draft": "draft", "target": "mini:target"}, "problems": {"data": "mini:test"}},
    "turn": 2,
    "remember": True,
    "router_models": {"rsd": "confidence:mean-logprob", "oracle": "confidence:mean-logprob", "probe": "router"},
    "routers": {"limit": 3, "shares": [0.4], "thresholds": {"rsd": [], "probe": [], "oracle": [0.0]}},
}


@pytest.fixture
def scores():
    """A probe of the mini target's states that says something different of each step."""
    from search.learning.trainable import read_tokenizer

    config = json.loads((checkpoint_path("target") / "config.json").read_text())
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    _, tokenizer = read_tokenizer("mini:target")
    read = ProbeConfig(layers, layers, width, "linear", "mini:target", None, tokenizer.fingerprint)
    weights = np.random.default_rng(0).normal(size=(1, width)).astype(np.float32) / 4
    zeros = np.zeros(width, np.float32)
    probe = Probe(read, {"mean": zeros, "scale": zeros + 1, "in.weight": weights, "in.bias": zeros[:1]})
    probe.save(Path("scores"))
    return "probe:scores"


def test_from_a_checkpoint_to_the_table_of_routers(inside, scores):
    made = inside("router", "draft", "mini:target", "--bits", 2, "--out", "draft", "--dtype", "float32", "--json")
    assert made.code == 0, made.err
    pair = ("--draft", "draft", "--target", "mini:target", "--prm", scores, "--data", "mini:train")
    for out, skip, limit in (("walks", 0, 16), ("dev", 16, 4)):
        ran = inside("router", "collect", *pair, "--skip", skip, "--limit", limit, "--out", out, "--json")
        assert ran.code == 0, ran.err
        assert 0 < ran.json["share_target_better"] < 1
    trained = inside("router", "train", "walks", "--dev", "dev", "--probe", "--out", "router")
    assert trained.code == 0, trained.err
    assert "escalates 40% of the drafted steps, rsd:" in trained.out
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    table = ("repro", "arbitrage", "--recipe", "recipe.yaml", "--runs", "runs")
    first = inside(*table, "--limit", 2, "--json")
    assert first.code == 0, first.err
    written = {role: Path(f"runs/memory/{role}.jsonl").read_text().splitlines() for role in ("draft", "target")}
    for lines in written.values():
        places = [json.loads(line)["place"] for line in lines[1:]]
        assert len(places) == len({*places}) > 2, "no step is written twice"
    rows = {row["router"].partition(":")[0]: row for row in first.json["tables"]["routers"]}
    assert set(rows) == {"never", "always", "random", "rsd", "probe", "oracle"}
    (projected,) = [name for name in rows["never"] if "projected" in name]
    assert "the models' own sizes" in projected
    assert float(rows["never"][projected]) < float(rows["always"][projected]), "fewer bytes are read"
    again = inside(*table, "--json")
    assert again.code == 0 and all(row["problems"] == 3 for row in again.json["tables"]["routers"])
    for role, lines in written.items():
        now = Path(f"runs/memory/{role}.jsonl").read_text().splitlines()
        assert now[: len(lines)] == lines and len(now) > len(lines)
    # What the probe of the target's states reads of the draft's steps is work, and counts as the router's.
    read = inside("solve", "--mini", 1, "--method", "chain", "--writer", "arbitrage", "--temperature", 0, "--draft",
                  "draft", "--target", "mini:target", "--router", "rsd:0.5", "--router-model", scores,
                  "--json")  # fmt: skip
    assert read.code == 0, read.err
    assert read.json["models"]["router"]["computed_tokens"] > 0 == read.json["models"]["router"]["sampled_tokens"]


def test_confidence_routes_without_any_model(inside):
    ran = inside("solve", "--mini", 1, "--method", "chain", "--writer", "arbitrage", "--temperature", 0, "--router",
                 "rsd:0.95", "--router-model", "confidence:mean-logprob", "--json", "--tree", "tree.json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert set(ran.json["models"]) == {"draft", "target"}
    nodes = json.loads(Path("tree.json").read_text())["tree"]["nodes"][1:]
    assert {node["writer"] for node in nodes} == {"draft", "target"}
    assert all((node["estimate"] > 0.05 + 1e-9) == (node["writer"] == "target") for node in nodes)


def test_walks_keep_what_the_draft_computed_of_its_steps(inside):
    for out, layers in (("all", ()), ("one", ("--layers", 2))):
        ran = inside("router", "collect", "--limit", 2, "--out", out, *layers)
        assert ran.code == 0, ran.err
    origin, walks = read_walks([Path("all")])
    assert origin["states"]["layers"] == [1, 2] and origin["states"]["num_layers"] == 2
    for pair in (pair for walk in walks for pair in walk.pairs):
        assert len(pair.draft_logprobs) == len(pair.draft_ids) and max(pair.draft_logprobs) <= 0
    mixed = inside("router", "train", "all", "one", "--dev", "all", "--probe", "--out", "x")
    assert mixed.code == 2 and "one kind of states" in mixed.err
    lines = Path("one/shard-00000.jsonl").read_text().splitlines()
    head, *rows = map(json.loads, lines)
    for row in rows:
        for pair in row["pairs"]:
            del pair["draft_states"], pair["draft_logprobs"]
    Path("one/shard-00000.jsonl").write_text("\n".join(map(json.dumps, ({**head, "states": None}, *rows))) + "\n")
    old = inside("router", "train", "one", "--dev", "one", "--probe", "--out", "x")
    assert old.code == 2 and "collect them anew" in old.err
