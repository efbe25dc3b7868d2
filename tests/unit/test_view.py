"""The viewer's data: what a record says is what the page shows, and no text of a model can be more than text."""

import asyncio
import json
import re
from dataclasses import fields, replace

import pytest
from fake_engine import FakeEngine

from ets import Ets
from search.decision.verdict import Verdict
from search.errors import PolicyError
from search.ledger import ModelCost, Stats
from search.loop.driver import Driver
from search.loop.outcome import SearchOutcome
from search.loop.writer import ModelWriter
from search.parts import Stateless
from search.policies import Mcts, Rebase, Rolling
from search.replay import rebase_kv_tokens, replay
from search.results.record import RunDirectory, problem_record, read_record, tree_from_record
from search.tree import SearchTree
from search.types import FinishReason, NodeStatus, Problem, Step
from search.view import page, problem_view
from search.view.kept import read_kept

WIDTH = 24
PROBLEM = Problem("p-1", "Add 3.\n\n", "4")
HOSTILE = '</script><img src=x onerror="alert(1)"> <!-- <script> & {{script}} \u2028 \ud800 \\u003c'


class LengthScorer(Stateless):
    """Rewards a step by its text alone, so that searches prune."""

    async def score(self, tree, nodes):
        return [(hash_of(tree[node].text) % 97) / 96 for node in nodes]


def hash_of(text):
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


class WordVectors:
    """An embedding with one direction for each length of text."""

    name = "embedding"

    async def compute(self, tree, nodes):
        return [[float(len(node.text) % 3 == place) for place in range(3)] for node in nodes]


def searched(policy, width=8, features=()):
    driver = Driver(policy, ModelWriter(FakeEngine()), LengthScorer(), width=width, features=features)
    return asyncio.run(driver.solve(PROBLEM, "Add 3.\n\n"))


@pytest.fixture(scope="module")
def outcome():
    return searched(Ets(), features=[WordVectors()])


def view_of(outcome, winner=None, **others):
    return problem_view(PROBLEM, outcome, Verdict(winner=winner), **others)


def column(view, name):
    values = view["nodes"][name]
    if name in ("status", "reason", "text", "writer"):
        return [view["strings"][place] for place in values]
    return values


def test_a_view_holds_every_node_as_it_is(outcome):
    view = json.loads(json.dumps(view_of(outcome, method="ets", width=8), allow_nan=False))
    tree = outcome.tree
    assert view["version"] == 1 and view["num_nodes"] == len(tree) and view["width"] == 8
    for name, read in {
        "parent": lambda node: node.parent,
        "status": lambda node: node.status.value,
        "reason": lambda node: node.reason,
        "text": lambda node: node.text,
        "writer": lambda node: node.writer,
        "cluster": lambda node: node.cluster,
        "num_tokens": lambda node: len(node.ids),
    }.items():
        assert column(view, name) == [read(node) for node in tree], name
    for shown, node in zip(column(view, "reward"), tree, strict=True):
        assert shown == (None if node.reward is None else pytest.approx(node.reward, abs=1e-4))
    assert view["nodes"]["estimate"] is None, "nothing is known of it: no router was there"
    assert "ids" not in view["nodes"], "token ids are not for reading"


@pytest.mark.parametrize("policy", [Ets(), Rebase()], ids=["ets", "rebase"])
def test_kv_of_the_levels_is_the_ledgers(policy):
    outcome = searched(policy, features=[WordVectors()])
    levels, stats = view_of(outcome)["selections"], outcome.stats
    kept = [level["kv_tokens"] for level in levels]
    assert len(kept) > 1 and max(kept) == stats.kv_tokens_peak
    assert sum(kept) / len(kept) == pytest.approx(stats.kv_tokens_mean)
    assert sum(level["kv_tokens_candidates"] for level in levels) == stats.kv_tokens_code
    assert [tuple(level["kept"]) for level in levels] == [one.kept for one in outcome.selections]
    cuts = [level["cluster_distance"] for level in levels]
    assert any(cut is not None for cut in cuts) == (policy.name == "ets")
    assert all(0 <= cut < 1 for cut in cuts if cut is not None)
    pruned = sum(level["num_candidates"] - len(level["kept"]) for level in levels)
    assert pruned == stats.num_pruned > 0


def test_rebase_over_its_own_tree_would_keep_what_it_kept():
    outcome = searched(Rebase())
    for level in replay(outcome.tree, outcome.selections):
        assert rebase_kv_tokens(outcome.tree, level, 8, "last") == level.kv_tokens.kept


def test_rebase_over_an_ets_tree_would_keep_more():
    outcome = searched(Ets(), WIDTH, features=[WordVectors()])
    levels = list(replay(outcome.tree, outcome.selections))
    rebase = [rebase_kv_tokens(outcome.tree, level, WIDTH, "last") for level in levels]
    assert all(level.kv_tokens.kept <= level.kv_tokens.candidates for level in levels)
    assert all(tokens <= level.kv_tokens.candidates for tokens, level in zip(rebase, levels, strict=True))
    assert sum(rebase) > sum(level.kv_tokens.kept for level in levels)


@pytest.mark.parametrize("policy", [Mcts(num_children=3), Rolling(Rebase())], ids=lambda policy: policy.name)
def test_where_depths_are_not_selected_one_by_one_the_replay_goes_from_selection_to_selection(policy):
    outcome = searched(policy, WIDTH)
    tree, view = outcome.tree, view_of(outcome)
    assert not view["by_depth"] and len(view["selections"]) > view["stats"]["depth"]
    before = 0
    for one, shown in zip(outcome.selections, view["selections"], strict=True):
        there = range(shown["num_nodes"])
        assert {*one.candidates, *shown["writing"]} <= {*there} and before <= len(there)
        for node in one.kept:
            later = [child for child in tree.children(node) if child not in there]
            if policy.pace == "level":
                assert later == list(tree.children(node)), "nothing was below a leaf that could be kept"
        for node in shown["writing"]:
            assert tree[node].parent in one.kept and node not in one.candidates
        before = len(there)
    assert any(shown["writing"] for shown in view["selections"]) == (policy.pace == "rolling")


def test_level_by_level_a_selection_is_that_of_its_depth(outcome):
    assert view_of(outcome)["by_depth"]
    for depth, one in enumerate(outcome.selections, start=1):
        above = [node.id for node in outcome.tree if node.depth <= depth]
        assert above == list(range(one.num_nodes)), "its own children come later"
        assert {outcome.tree[node].depth for node in one.candidates} == {depth}


def test_clusters_of_ets_are_on_the_nodes_and_in_the_record(outcome, tmp_path):
    run = RunDirectory(tmp_path)
    run.save(problem_record("h", outcome, Verdict()))
    again = tree_from_record(read_record(run.record_file(PROBLEM.id)).tree)
    clusters = [node.cluster for node in again]
    assert clusters == [node.cluster for node in outcome.tree]
    for level in replay(again, outcome.selections):
        by_length = {(again[node].cluster, len(again[node].text) % 3) for node in level.candidates}
        if len(level.candidates) > 1:
            assert len(by_length) == len({cluster for cluster, _ in by_length}), "one cluster, one direction"
            assert None not in {cluster for cluster, _ in by_length}
    assert any(cluster for cluster in clusters)


@pytest.mark.parametrize("stray", [-1, 99])
def test_a_cluster_of_a_node_that_is_not_there_is_the_policys_error(stray):
    class Stray(Rebase):
        def select(self, tree, width, rng):
            return replace(Rebase.select(self, tree, width, rng), clusters={stray: 0})

    with pytest.raises(PolicyError, match=f"there is no node {stray} to put into a cluster"):
        searched(Stray())


def test_a_record_from_before_clusters_is_still_read(outcome, tmp_path):
    run = RunDirectory(tmp_path)
    run.save(problem_record("h", outcome, Verdict()))
    file = run.record_file(PROBLEM.id)
    values = json.loads(file.read_text())
    for node in values["tree"]["nodes"]:
        del node["cluster"]
    del values["winner"], values["tally"]
    file.write_text(json.dumps(values))
    (view,) = read_kept(file).views
    assert view["nodes"]["cluster"] is None and view["num_nodes"] == len(outcome.tree)


def test_the_chosen_path_goes_from_the_root_to_the_end(outcome):
    end = outcome.tree.leaves(NodeStatus.FINISHED)[-1].id
    path = [node.id for node in outcome.tree.path(end)]
    assert view_of(outcome, end)["chosen"] == path
    assert view_of(outcome)["chosen"] == []


def hostile_tree():
    tree = SearchTree("t", (1,), HOSTILE)
    tree.write(Step(tree.add_child(tree.root.id), (2, 3), HOSTILE, FinishReason.EOS, HOSTILE))
    tree.finish(tree.nodes[1].id, HOSTILE)
    return tree


def elements(html):
    return re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', html, re.DOTALL)


def test_no_text_gets_out_of_its_element():
    problem = Problem(HOSTILE, HOSTILE, HOSTILE)
    outcome = SearchOutcome(problem, hostile_tree(), Stats())
    view = problem_view(problem, outcome, Verdict(HOSTILE, tally={HOSTILE: 1.0}), error=HOSTILE)
    html = page(HOSTILE, [view, view])
    html.encode("utf-8")
    plain = page("x", [])
    for mark in ("<script", "</script", "<!--", "<img"):
        expected = plain.count(mark) + (2 if "script" in mark else 0)
        assert html.count(mark) == expected, mark
    data = dict(elements(html))
    assert json.loads(data["index"])["problems"][0]["problem"] == HOSTILE
    for place in range(2):
        assert json.loads(data[f"problem-{place}"]) == json.loads(json.dumps(view))


def test_the_page_is_alone():
    html = page("run", [], live=None)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert "default-src &#x27;none&#x27;" in policy and "connect-src &#x27;none&#x27;" in policy
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", html)
    assert "{{" not in html
    assert "connect-src &#x27;self&#x27;" in page("run", [], live="/live/searches")
    assert "connect-src http://127.0.0.1:9;" in page("run", [], live="http://127.0.0.1:9/live")


def test_costs_and_figures_that_are_no_numbers():
    tree = hostile_tree()
    tree.set_reward(tree.nodes[1].id, float("nan"))
    cost = ModelCost("m", 1, 2, 2, 0, None, 0.5, 10)
    outcome = SearchOutcome(PROBLEM, tree, Stats(), models={"policy": cost})
    view = problem_view(PROBLEM, outcome, Verdict(tally={"4": float("inf")}))
    json.dumps(view, allow_nan=False)
    assert view["nodes"]["reward"] is None and view["vote"] == [["4", None]]
    assert view["models"]["policy"]["flops"] is None
    assert view["stats"].keys() == {item.name for item in fields(Stats)}


def test_a_search_without_a_tree_is_shown_with_its_error():
    view = problem_view(PROBLEM, None, error="the server died")
    assert view["num_nodes"] == 0 and view["selections"] == [] and view["nodes"] == {} and view["error"]
    assert "the server died" in page("run", [view])
