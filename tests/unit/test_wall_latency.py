"""`ets bench latency --policy`: every way of searching is timed on the same problems, here and on a server."""

from types import SimpleNamespace

import pytest
from fake_server import Script, serving
from markov import story_model
from story_checkpoints import POSITIONS, build_writer
from trees import add

from search.errors import ConfigError
from search.studies import latency, wall_latency
from search.studies.measured import nodes_of
from search.tree import SearchTree

STORY = story_model(answer=0.2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    build_writer(folder, STORY, 0)
    return str(folder)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(wall_latency, "MAX_TOKENS", 40)


def check(report):
    figures = report["figures"]
    assert report["num_problems"] == 2 and report["repeats"] == 2
    for mode in ("level", "speculate", "rolling"):
        assert figures[f"wall_{mode}_4"] > 0 and figures[f"tokens_{mode}_4"] > 4
    for mode in ("speculate", "rolling"):
        name = f"wall_speedup_{mode}_4"
        assert 0 < figures[f"{name}_min"] <= figures[name] <= figures[f"{name}_max"]
    assert figures["equal_speculate_4"] == 1.0 and figures["tokens_speculate_4"] == figures["tokens_level_4"]
    assert "wall_level_4_rebase" in figures


def measured(checkpoint, **options):
    return latency.run(limit=2, policy=checkpoint, widths=(4,), methods=("ets", "rebase"), repeats=2, **options)


@pytest.mark.parametrize("options", [{}, {"engine": "local"}])
def test_a_model_in_this_process(checkpoint, options):
    report = measured(checkpoint, **options)
    check(report)
    assert report["engine"]["name"] == "local" and report["model"] == checkpoint
    for mode in ("level", "speculate"):
        name = f"vs_generate_{mode}_4"
        assert 0 < report["figures"][f"{name}_min"] <= report["figures"][name] <= report["figures"][f"{name}_max"]


def test_generate_writes_as_much_as_each_level_has():
    tree = SearchTree("t", range(10), "How many?")
    first, second = (add(tree, 0, text) for text in ("Add 3 to 4.", "Take 4 from all of that."))
    for text in ("So 7.", "The answer is 7."):
        add(tree, first, text)
    asked = []
    baseline = SimpleNamespace(generate=lambda prefixes, num_tokens, seed: asked.append((prefixes, num_tokens)))
    assert wall_latency._seconds_generate(baseline, tree, 0) > 0
    root = tree.root.ids
    assert asked == [([root, root], len(tree[second].ids)), ([root + tree[first].ids] * 2, 4)]


def test_a_model_on_a_server(checkpoint):
    with serving(Script(POSITIONS, seeds=True), STORY) as server:
        report = measured(checkpoint, engine=f"sglang:{server.url}")
        assert server.calls["/flush_cache"] > 20, "no way of searching knows what another wrote"
    check(report)
    assert report["engine"]["name"] == "sglang" and "vs_generate_level_4" not in report["figures"]


@pytest.mark.parametrize("option", [{"dtype": "bfloat16"}, {"engine": "local"}, {"repeats": 2}])
def test_what_belongs_to_a_model_is_refused_without_one(option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))} goes with a model, --policy"):
        latency.run(**option)


def test_trees_that_differ_in_a_reward_alone_are_equal_but_for_exactness():
    results = [SimpleNamespace(tree=SearchTree("t", range(3), "How many?")) for _ in range(2)]
    for result, reward in zip(results, (0.5, 0.25), strict=True):
        add(result.tree, 0, "Add 3 to 4.", reward)
    first, second = results
    assert nodes_of(first) == nodes_of(second) and nodes_of(first, exact=True) != nodes_of(second, exact=True)
    assert nodes_of(first, exact=True) == nodes_of(first, exact=True)
