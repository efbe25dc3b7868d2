"""Recipes, plans and documents of the reproductions; what they run is in tests/integration/test_cli_repro.py."""

import csv
import io
import json
from dataclasses import replace

import pytest
import yaml

from prm.probe import Probe, read_config, read_probe
from search.errors import ConfigError
from search.mini.assets import checkpoint_path
from search.setup.registry import make_policy
from search.studies import published
from search.studies import reproduce_arbitrage as arbitrage
from search.studies import reproduce_ets as ets
from search.studies.document import Claim, Document
from search.studies.recipe import ArbitrageRecipe, EtsRecipe, load_recipe, recipe_names
from search.studies.recipe_plan import plan_dict, plan_text
from search.support.tables import Table

ETS = {
    "title": "small",
    "settings": {
        "models": {"policy": "mini:target"},
        "rewards": {"prm": "mini:prm"},
        "problems": {"data": "mini:test"},
    },
    "methods": {"rebase": {}, "ets": {}},
    "widths": {4: {"limit": 5}},
}
ARBITRAGE = {
    "title": "small",
    "settings": {"problems": {"data": "mini:test"}},
    "routers": {"limit": 5, "thresholds": {"rsd": [0.7], "arbitrage": [0.5]}},
}


def write(tmp_path, recipe):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return str(file)


def test_the_recipes_that_are_shipped():
    papers = {"paper/llemma-34b", "paper/mistral-7b", "paper/llama-3.2-skywork"}
    assert {"mini", "real/qwen", "real/smollm2", *papers} <= set(recipe_names("ets"))
    assert {"mini", "paper/qwen25-math", "paper/llama-1b-8b"} <= set(recipe_names("arbitrage"))


@pytest.mark.parametrize("name", recipe_names("ets"))
def test_a_recipe_of_searches_fits_the_schema_and_has_a_plan(name):
    recipe = load_recipe(EtsRecipe, name)
    real = name.startswith("real/")
    assert {"rebase", "dvts", "ets-kv", "ets"} <= set(recipe.methods) and recipe.quick
    assert ({1, 8} if real else {16, 64, 256}) <= set(recipe.widths)
    assert ({"policy"} if real else {"policy", "prm"}) == {model.role for model in recipe.models}
    plan = plan_dict(recipe, list(ets.plan(recipe).values()))
    assert plan["policy_requests_at_most"] > 0 and all(one["gib_per_gpu"] > 0 for one in plan["models"])
    if name.startswith("paper/"):
        for width in (16, 64, 256):
            made = ets.plan(recipe)[width, "ets"].settings
            assert made.method == "ets-paper"
            policy = make_policy(made, "last")
            assert (policy.node_cost_weight, policy.coverage_weight, policy.cluster_distance) == (1.0, None, 0.05)
            assert (made.temperature, made.max_step_tokens, made.max_tokens, made.max_depth) == (1.0, 256, 1024, 25)
            assert made.options["temperature"] == 0.2 and made.reduce == "last" and made.data == "math500"
        assert any("sglang.launch_server" in line for line in plan["servers"])


@pytest.mark.parametrize("name", recipe_names("arbitrage"))
def test_a_recipe_of_routers_fits_the_schema_and_has_a_plan(name, tmp_path):
    recipe = load_recipe(ArbitrageRecipe, name)
    if name.startswith("real/"):  # its thresholds come from a probe that is trained first
        with pytest.raises(ConfigError, match=r"no probe\.json there"):
            arbitrage.plan(recipe)
        config = read_config(checkpoint_path("probe"))
        shares = {str(share): 0.5 + share for share in recipe.routers.shares}
        record = {"thresholds": shares, "rsd_thresholds": dict.fromkeys(shares, 0.7)}
        Probe(replace(config, record=record), read_probe(checkpoint_path("probe"))._weights).save(tmp_path)
        recipe = recipe.model_copy(update={"router_models": {**recipe.router_models, "probe": str(tmp_path)}})
    planned = arbitrage.plan(recipe)
    assert {"never", "always", "rsd:0.7"} <= set(planned)
    assert all(one.settings.temperature == 0 and one.settings.method == "chain" for one in planned.values())
    assert all(one.concurrency == 1 for key, one in planned.items() if key.startswith("latency "))
    text = plan_text(plan_dict(recipe, list(planned.values())))
    assert "GPU memory" in text and "requests to the policy" in text
    if name.startswith("paper/"):
        assert recipe.routers.thresholds["rsd"] == tuple(round(0.1 * n, 1) for n in range(11))
        assert (planned["always"].settings.max_depth, planned["always"].settings.max_tokens) == (100, 4096)


def test_the_plan_counts_what_a_chain_and_a_search_may_ask():
    chain = plan_dict(load := ArbitrageRecipe(**ARBITRAGE), list(arbitrage.plan(load).values()))
    by_name = {run["run"]: run for run in chain["runs"]}
    assert by_name["never"]["policy_requests_at_most"] == 5 * 25 and by_name["never"]["score_requests_at_most"] == 0
    assert by_name["rsd:0.7"]["policy_requests_at_most"] == 2 * 5 * 25
    assert by_name["rsd:0.7"]["score_requests_at_most"] == 5 * 25
    search = EtsRecipe(**ETS)
    run = plan_dict(search, list(ets.plan(search).values()))["runs"][0]
    assert run["policy_requests_at_most"] == 5 * (1 + 24 * 4) and run["policy_tokens_at_most"] == 5 * 4 * 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {"beam": {}}}, "methods must hold rebase"),
        ({"widths": {4: {"limit": 5, "methods": ["best"]}}}, "names the method 'best'"),
        ({"widths": {0: {"limit": 5}}}, "widths"),
        ({"widths": {4: {"limit": 0}}}, "greater than or equal to 1"),
        ({"settings": {"models": {"polcy": "x"}}}, r"unknown setting 'models\.polcy'"),
        ({"settings": {"policy": "x"}}, r"recipe .*: policy: now models\.policy"),
        ({"methods": {"rebase": {"temperature": 1}}}, r"temperature: now sampling\.temperature"),
        ({"settings": [1]}, "must be a mapping of groups to settings"),
        ({"methods": {"rebase": {"sampling": {"temperature": -1}}}}, "temperature = -1"),
        ({"methods": {"rebase": {}, "chain": {}}}, "chain stands for"),
        ({"published": "gpt"}, "published must be one of"),
        ({"extra": 1}, "extra"),
        ({"title": None}, "title"),
    ],
)
def test_a_wrong_recipe_of_searches_says_what_is_wrong(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(EtsRecipe, write(tmp_path, {**ETS, **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"routers": {"limit": 5, "thresholds": {"rsd": [0.7]}}}, "rsd, and arbitrage or probe"),
        ({"routers": {"limit": 5, "thresholds": {"rsd": [0.7], "arbitrage": [0.5], "dice": [1]}}}, "dice"),
        ({"ablations": {"3-class": "x"}}, "none of the published ones"),
        ({"ablations": {"4-class": {"classes": "4"}}}, "need ablation_training"),
        ({"ablations": {"4-class": {"classes": "10"}}}, "ablations"),
        ({"ablation_training": {"data": {"train": {"data": "mini:train", "limit": 4}}}}, "must hold train and dev"),
    ],
)
def test_a_wrong_recipe_of_routers_says_what_is_wrong(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(ArbitrageRecipe, write(tmp_path, {**ARBITRAGE, **change}))


def test_no_recipe_of_this_name():
    with pytest.raises(ConfigError, match="none of mini, paper/llama"):
        load_recipe(EtsRecipe, "papers/llemma")


TABLE = Table("t", "A table", ("a", "b|c"), (("x", 0.123456), (None, "y,z")), ("A note.",))


def test_a_table_in_each_form():
    assert TABLE.markdown().splitlines()[2:6] == ["| a | b\\|c |", "|---|---|", "| x | 0.1235 |", "|  | y,z |"]
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [["a", "b|c"], ["x", "0.123456"], ["", "y,z"]]


def test_what_does_not_hold_stands_first(tmp_path):
    claims = (Claim("one", "holds", "1"), Claim("two", "cannot be told", "2"), Claim("three", "does not hold", "3"))
    made = Document("ets", "Title", claims, (TABLE,), {"f": 1.0}, {"commit": "abc", "seed": 0}, shown=("Only this.",))
    lines = [line for line in made.markdown().splitlines() if line.startswith("- **")]
    assert [line.split("**")[1] for line in lines] == ["does not hold", "cannot be told", "holds"]
    assert "commit: abc" in made.markdown() and "Only this." in made.markdown()
    files = made.write(tmp_path / "out")
    assert sorted(file.name for file in files) == ["ets-t.csv", "ets.json", "ets.md"]
    kept = json.loads((tmp_path / "out" / "ets.json").read_text())
    assert kept["tables"]["t"][0] == {"a": "x", "b|c": 0.123456} and kept["figures"] == {"f": 1.0}


def test_published_figures_are_those_of_the_papers():
    rows = {(row.search, row.vote): row for row in published.REBASE_TABLE_4["llemma-34b"]}
    assert (rows["rebase", "weighted"].math500, rows["rebase", "weighted"].gsm8k) == (42.9, 86.9)
    assert (rows["sampling", "majority"].math500, rows["greedy", "-"].gsm8k) == (39.9, 78.4)
    assert (published.ETS_KV_REDUCTION, published.ETS_SPEEDUP) == (1.8, 1.4)
    assert published.ABLATIONS["2-class, annotated history"] == (0.1508, 70.04, 72.96)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.05, "holds"), (-0.03, 0.04, "cannot be told"), (-0.05, -0.01, "does not hold")],
)
def test_a_claim_of_routers_is_decided_by_the_interval_of_their_difference(low, high, verdict):
    """By the areas alone a difference of nearly nothing held."""
    figures = {"auc_rsd": 0.53, "auc_random": 0.52}
    figures |= {"auc_rsd_less_random": 0.01, "auc_rsd_less_random_lo": low, "auc_rsd_less_random_hi": high}
    name = "target_calls_ratio_rsd_over_probe"
    figures |= {name: 1.0, f"{name}_lo": 1 + low, f"{name}_hi": 1 + high}
    assert [claim.verdict for claim in arbitrage._claims(figures)] == [verdict, verdict]
