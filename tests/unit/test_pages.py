"""Pages about several searches: where two part, a comparison as a page, and what a notebook shows."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from trees import add, small_tree, view_of

from search import Search
from search.errors import ConfigError
from search.runs.compare import compare
from search.runs.compare_page import compare_page, verdicts
from search.runs.report import read_run
from search.support.tables import Table
from search.tree import SearchTree
from search.types import Selected
from search.view.kept import Kept
from search.view.pairs import pair_page, pair_views, partings


class Wellformed(HTMLParser):
    """Every element that is opened is closed, in order; `texts` is what is read."""

    VOID = frozenset({"meta", "link", "input", "br", "line", "circle", "rect"})

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.links = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name == "href"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def other_tree():
    """As the small tree, but it keeps a guess and prunes a sum, and one step is nowhere else."""
    tree = SearchTree("other", range(10), "How many?\n\n")
    best = add(tree, 0, "First, add 3 and 4.\n\n", 0.9)
    guess = add(tree, 0, "Guess 8.\n\n", 0.2)
    summed = add(tree, 0, "Add 3.\n\n", 0.6)
    tree.prune(summed, "beam: rank 3 of 3")
    tree.finish(add(tree, best, "The answer is 7.", 0.95), "end of text")
    tree.finish(add(tree, guess, "It is 8.", 0.4), "end of text")
    return tree, [Selected((best, guess, summed), (best, guess))]


def test_two_trees_part_where_one_keeps_what_the_other_leaves_out():
    (left, kept, _), (right, others) = small_tree(), other_tree()
    found = partings(view_of(left, kept), view_of(right, others))
    assert found["num_shared"] == 4 and found["depth"] == 1
    guess, summed = found["nodes"]
    assert (guess["left"], guess["right"], guess["depth"], guess["text"]) == (2, 2, 1, "Guess 8.\n\n")
    assert guess["fates"] == ["pruned", "kept"] and guess["reasons"][0].startswith("ets: its 1 of 8")
    assert summed["fates"] == ["kept", "pruned"] and summed["reasons"][1] == "beam: rank 3 of 3"
    same = partings(view_of(left, kept), view_of(left, kept))
    assert (same["num_shared"], same["depth"], same["nodes"]) == (len(left) - 1, None, [])
    assert partings(view_of(left, kept), {**view_of(right), "nodes": {}, "strings": []})["num_shared"] == 0


def test_pairs_are_the_problems_that_both_have():
    tree, kept, _ = small_tree()

    def run(title, *names):
        return Kept(title, tuple(view_of(tree, kept, name) for name in names), ())

    pairs = pair_views(run("a", "1", "2", "3"), run("b", "3", "1"))
    assert [(left["id"], right["id"]) for left, right in pairs] == [("1", "1"), ("3", "3")]
    assert len(pair_views(run("a", "1"), run("b", "2"))) == 1, "single trees of one problem, whatever their ids"
    with pytest.raises(ConfigError, match="a and b have no problem in common"):
        pair_views(run("a", "1", "2"), run("b", "3"))


def test_a_pairs_page_names_both_and_lets_nothing_else_run():
    hostile = '</script><img src=x onerror="window.broken=1">'
    tree = SearchTree("t", (1,), hostile)
    tree.finish(add(tree, 0, hostile, 0.5), "end of text")
    shown = pair_page((hostile, "b"), [(view_of(tree), view_of(tree))])
    assert "<img" not in shown and "default-src 'none'" in shown.replace("&#x27;", "'")
    Wellformed(re.sub(r"<script.*?</script>", "", shown, flags=re.DOTALL))


@pytest.fixture
def two_runs(inside, tmp_path):
    for method in ("greedy", "rebase"):
        width = () if method == "greedy" else ("--width", 4)
        ran = inside(
            "eval",
            "--limit",
            4,
            "--policy",
            "mini:draft",
            "--prm",
            "mini:prm",
            "--method",
            method,
            *width,
            "--out",
            tmp_path / method,
        )
        assert ran.code == 0, ran.err
    return [tmp_path / "greedy", tmp_path / "rebase"]


def test_commands_write_both_pages(inside, tmp_path, two_runs):
    ran = inside("compare", *two_runs, "--html", tmp_path / "page")
    assert ran.code == 0 and "2 runs on the same 4 problems" in ran.out and "index.html" in ran.err
    page = Wellformed((tmp_path / "page" / "index.html").read_text())
    links = [link for link in page.links if "#" in link]
    assert len(links) == 8 and all((tmp_path / "page" / link.partition("#")[0]).is_file() for link in links)
    text = " ".join(page.texts)
    runs = [read_run(folder) for folder in two_runs]
    alone = [one.only for one in verdicts(runs)]
    assert f"greedy-1 {alone.count(0)}, rebase-4 {alone.count(1)}" in text
    assert compare_page(compare(runs), runs, ["a.html", "b.html"]).count("<circle") == 2
    side = inside("view", *two_runs, "--no-open")
    written = Path(side.out.strip())
    assert side.code == 0 and written.name == "view-beside-rebase.html" and "greedy and rebase" in written.read_text()
    wrong = inside("view", two_runs[0], two_runs[1], "--out", two_runs[1] / "run.json")
    assert (wrong.code, wrong.out) == (2, "") and "it is what is shown" in wrong.err


def test_a_notebook_shows_a_result_a_tree_a_table_and_a_comparison(two_runs):
    with Search(method="rebase", width=4) as search:
        result = search.solve("Ben has 13 coins. He gives 4 away. How <many> coins are left?")
    shown = Wellformed(result._repr_html_())
    text = " ".join(shown.texts)
    assert "How <many> coins" in text and f"{result.stats.policy_tokens}" in text and str(result.answer) in text
    for node in result.tree.leaves(result.tree[result.trajectories[0].node].status):
        assert node.text.strip() in text
    tree = Wellformed(result.tree._repr_html_())
    assert "".join(tree.texts).count("finished") >= len(result.trajectories)
    table = Wellformed(Table("t", "A < B", ("x", "y"), ((1, "<b>"), (2.5, None)), ("Note.",))._repr_html_())
    assert "<b>" in table.texts and "A < B" in table.texts and "2.5" in table.texts
    comparison = compare([read_run(folder) for folder in two_runs])
    assert "rebase" in " ".join(Wellformed(comparison._repr_html_()).texts)
