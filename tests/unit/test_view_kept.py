"""Kept runs in the viewer: what is read of them, under which vote, and the command that writes the page."""

import json

import pytest

from search.answers.graders import PlainGrader
from search.catalogue import GRADERS
from search.decision.verdict import Verdict, decide
from search.errors import ConfigError, DataError
from search.ledger import Stats
from search.loop.outcome import SearchOutcome
from search.results.record import RunDirectory, problem_record
from search.runs.report import read_run, revote
from search.tree import SearchTree
from search.types import FinishReason, Problem, Selected, Step
from search.view.kept import read_kept

PROBLEM = Problem("p-1", "Add 3.\n\n", "4")
GRADER = PlainGrader()


def run_of(folder, count=12):
    run = RunDirectory(folder)
    settings = {"method": "rebase", "width": 8, "vote": "weighted", "reduce": "last", "grader": "plain"}
    run.open({"config_hash": "h", "settings": settings})
    for number in range(count):
        problem = Problem(f"p-{number}", f"Problem {number}", "4")
        run.save(kept_record(problem, voted_tree()))
    return run


def kept_record(problem, tree, rule="weighted", grader=GRADER):
    outcome = SearchOutcome(problem, tree, Stats())
    return problem_record("h", outcome, decide(tree, rule, "last", grader, problem.answer))


def voted_tree():
    """Three solutions: two of 4, one of 5; that of 5 has the best reward."""
    tree = SearchTree("t", (1,), "q")
    for text, reward in (("The answer is 4.", 0.5), ("The answer is 5.", 0.9), ("The answer is 4.", 0.6)):
        node = tree.add_child(tree.root.id)
        tree.write(Step(node, (1, 2), text, FinishReason.EOS, "policy"))
        tree.set_reward(node, reward)
        tree.finish(node, "end of text")
    return tree


def test_a_run_is_read_in_natural_order_with_its_settings(tmp_path):
    run_of(tmp_path / "run")
    kept = read_kept(tmp_path / "run")
    assert [view["id"] for view in kept.views] == [f"p-{number}" for number in range(12)]
    assert kept.title == "run" and kept.broken == ()
    view = kept.views[0]
    assert (view["method"], view["width"], view["vote_rule"]) == ("rebase", 8, "weighted, last")
    assert view["vote"] == [["4", 1.1], ["5", 0.9]] and view["chosen"] == [0, 3]


def test_a_lone_record_knows_its_run_or_is_shown_by_its_own_vote(tmp_path):
    run = run_of(tmp_path / "run", 1)
    assert read_kept(run.record_file("p-0")).views[0]["method"] == "rebase"
    lone = tmp_path / "tree.json"
    lone.write_bytes(run.record_file("p-0").read_bytes())
    (view,) = read_kept(lone).views
    assert view["method"] is None and view["vote_rule"] == "" and view["chosen"] == [0, 3]


def test_a_record_that_holds_its_vote_is_shown_by_it(tmp_path):
    tree, tally = voted_tree(), {"5": 0.81, "4": 0.61}
    record = problem_record("h", SearchOutcome(PROBLEM, tree, Stats()), Verdict("5", False, tree.nodes[2].id, tally))
    (tmp_path / "tree.json").write_text(record.model_dump_json())
    (view,) = read_kept(tmp_path / "tree.json").views
    assert (view["answer"], view["chosen"], view["vote_rule"]) == ("5", [0, 2], "")
    assert view["vote"] == [["5", 0.81], ["4", 0.61]]
    (view,) = read_kept(tmp_path / "tree.json", reduce="last").views
    assert (view["answer"], view["chosen"], view["vote_rule"]) == ("4", [0, 3], "weighted, last")


def test_another_vote_changes_answer_verdict_and_path(tmp_path):
    run = run_of(tmp_path / "run", 1)
    (view,) = read_kept(run.path, rule="best").views
    assert (view["answer"], view["correct"], view["chosen"]) == ("5", False, [0, 2])


class Alike(PlainGrader):
    """Knows that fractions and decimals may be one; counts how often it was closed."""

    name = "math"
    num_closed = 0

    def equivalent(self, one, other):
        return {one, other} == {"1/2", "0.5"}

    def close(self):
        Alike.num_closed += 1


def test_a_vote_in_the_viewer_is_the_one_of_the_report(tmp_path, monkeypatch):
    """The viewer left out which answers its grader knows to be one, and never closed the grader."""
    monkeypatch.setitem(GRADERS, "math", f"{__name__}:Alike")
    tree = SearchTree("t", (1,), "q")
    for answer in ("3", "3", "1/2", "0.5", "0.5", "3", "1/2"):
        node = tree.add_child(tree.root.id)
        tree.write(Step(node, (1, 2), f"The answer is {answer}.", FinishReason.EOS, "policy"))
        tree.set_reward(node, 0.9 if answer == "3" else 0.1)
        tree.finish(node, "end of text")
    run = RunDirectory(tmp_path)
    settings = {"method": "rebase", "width": 8, "vote": "weighted", "reduce": "last", "grader": "math"}
    run.open({"config_hash": "h", "settings": settings})
    run.save(kept_record(Problem("p", "How much?", "1/2"), tree, grader=Alike()))
    before = read_kept(tmp_path).views[0]
    assert (before["answer"], before["correct"], Alike.num_closed) == ("3", False, 0)
    (view,) = read_kept(tmp_path, rule="majority").views
    assert Alike.num_closed == 1
    (record,) = revote(read_run(tmp_path), "majority").records
    assert (record.answer, record.correct, record.tally) == ("1/2", True, {"1/2": 4, "3": 3})
    assert (view["answer"], view["correct"]) == (record.answer, record.correct)
    assert dict(view["vote"]) == record.tally and view["chosen"] == [0, record.winner] == [0, 3]


def test_broken_records_are_named_and_the_others_shown(tmp_path):
    run = run_of(tmp_path / "run", 3)
    run.record_file("p-1").write_text('{"version": 1,')
    kept = read_kept(run.path)
    assert len(kept.views) == 2 and len(kept.broken) == 1 and "p-1.json" in kept.broken[0]
    for number in (0, 2):
        run.record_file(f"p-{number}").write_text("")
    with pytest.raises(DataError, match=r"p-0.json: not a problem's record .*; nor can the 2 others"):
        read_kept(run.path)


def test_a_record_whose_nodes_are_no_tree_is_broken_too(tmp_path):
    run = run_of(tmp_path / "run", 2)
    file = run.record_file("p-0")
    file.write_text(file.read_text().replace('"parent":0', '"parent":7'))
    kept = read_kept(run.path)
    assert len(kept.views) == 1 and str(file) in kept.broken[0] and "out of place" in kept.broken[0]


@pytest.mark.parametrize(
    "change", [{"selections": (Selected((1,), (9,)),)}, {"winner": 4}, {"selections": (Selected((-1,), ()),)}]
)
def test_a_record_that_names_nodes_it_does_not_have(tmp_path, change):
    record = kept_record(PROBLEM, voted_tree()).model_copy(update=change)
    (tmp_path / "tree.json").write_text(record.model_dump_json())
    with pytest.raises(DataError, match=r"tree.json: tree t: there is no node (9|4|-1)"):
        read_kept(tmp_path / "tree.json")


def test_places_without_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_kept(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no run \(no run.json\)"):
        read_kept(tmp_path)
    RunDirectory(tmp_path / "run").open({"config_hash": "h", "settings": {}})
    with pytest.raises(ConfigError, match="holds no records yet"):
        read_kept(tmp_path / "run")


# The command


def test_the_command_writes_the_page_beside_the_run(inside, tmp_path):
    run_of(tmp_path / "run", 2)
    ran = inside("view", tmp_path / "run")
    assert ran.code == 0 and ran.out == f"{tmp_path / 'run' / 'view.html'}\n" and ran.err == ""
    assert "<!doctype html>" in (tmp_path / "run" / "view.html").read_text()


def test_the_command_says_what_it_left_out(inside, tmp_path):
    run = run_of(tmp_path / "run", 2)
    run.record_file("p-1").write_text("{}")
    ran = inside("view", run.path, "--out", tmp_path / "x.html", "--json")
    shown = json.loads(ran.out)
    assert ran.code == 3 and shown["num_problems"] == 1 and shown["page"] == str(tmp_path / "x.html")
    assert shown["num_bytes"] == (tmp_path / "x.html").stat().st_size and len(shown["left_out"]) == 1
    assert "left out" in ran.err and "p-1.json" in ran.err and len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["."], "holds no run"),
        (["bad.json"], "bad.json: not a problem's record"),
        (["run", "--out", "."], "it is a directory"),
        (["run", "--out", "/proc/nowhere/x.html"], "cannot write /proc/nowhere/x.html"),
        (["run", "--vote", "most"], "'most' is not one of"),
    ],
)
def test_bad_input_is_one_line_and_code_2(inside, tmp_path, args, message):
    run_of(tmp_path / "run", 1)
    (tmp_path / "bad.json").write_text("[]")
    ran = inside("view", *args)
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1 and ran.out == ""


def test_a_page_never_takes_the_place_of_what_it_shows(inside, tmp_path):
    run = run_of(tmp_path / "run", 1)
    record = run.record_file("p-0")
    (tmp_path / "link.html").symlink_to(record)
    before = {file: file.read_bytes() for file in (record, run.path / "run.json")}
    for shown, out in (
        (record, record),
        (record, tmp_path / "link.html"),
        (run.path, record),
        (run.path, run.path / "run.json"),
    ):
        ran = inside("view", shown, "--out", out)
        assert ran.code == 2 and "it is what is shown" in ran.err and len(ran.err.splitlines()) == 1
    record.with_suffix(".html").symlink_to(record)
    assert inside("view", record).code == 0
    assert {file: file.read_bytes() for file in before} == before


def test_an_html_name_never_stands_for_a_record(inside, tmp_path):
    run = run_of(tmp_path / "run", 1)
    record = run.record_file("p-0").read_bytes()
    (tmp_path / "tree.html").write_bytes(record)
    ran = inside("view", tmp_path / "tree.html")
    assert ran.code == 0 and (tmp_path / "tree.html").read_bytes() == record


def test_a_browser_opens_on_a_terminal_with_a_display_alone(inside, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    run_of(tmp_path / "run", 1)
    inside("view", tmp_path / "run")
    assert opened == [], "standard output is no terminal here"
    monkeypatch.setattr("search.cli.view._on_terminal", lambda: True)
    inside("view", tmp_path / "run", "--no-open")
    inside("view", tmp_path / "run", "--json")
    assert opened == []
    inside("view", tmp_path / "run")
    assert opened == [(tmp_path / "run" / "view.html").as_uri()]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    inside("view", tmp_path / "run")
    assert len(opened) == 1
