"""`ets bench coverage`: recorded steps as levels, and what is counted of what methods keep of them."""

import gzip
import json

import numpy as np
import pytest

from search.decision.verdict import Verdict
from search.errors import ConfigError, DataError
from search.ledger import Stats
from search.loop.outcome import SearchOutcome
from search.policies import Rebase
from search.results.record import problem_record
from search.studies import coverage
from search.studies.recorded import AUC
from search.studies.recorded_cases import Cases, Measured, by_policy
from search.studies.recorded_levels import Level, read_levels
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Problem, Selected, Step

HEAD, LONG = "We add 3 and 4.\n\n", "First we think about it for quite a long while.\n\n"


def write(file, rows):
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def solution(text, correct, problem="p"):
    return {"problem": problem, "text": text, "answer": 7, "correct": correct}


@pytest.fixture
def file(tmp_path):
    rows = [
        solution(HEAD + "So it is 7.\n\nThe answer is 7.", True),
        solution(HEAD + "So it is 8.\n\nThe answer is 8.", False),
        solution(LONG + "The answer is 7.", True),
        solution("The answer is 9.", False),
        solution("", False),
    ]
    return write(tmp_path / "solutions.jsonl.gz", rows)


def test_solutions_become_levels_with_equal_beginnings_once(file):
    (first, second), reduce = read_levels(file)
    assert reduce == "last"
    assert [first.tree[leaf].text for leaf in first.right] == [HEAD, LONG]
    assert list(first.right.values()) == [0.5, 1.0]
    assert (first.width, first.tree.num_finished) == (3, 2)
    assert [second.tree[leaf].text for leaf in second.right] == ["So it is 7.\n\n", "So it is 8.\n\n"]
    assert (second.width, second.tree.num_finished) == (2, 3)
    assert {leaf.id for leaf in first.tree.leaves()} == first.right.keys()


def test_kept_tokens_count_each_shared_step_once_and_no_prompt(file):
    _, second = read_levels(file)[0]
    one, other = second.right
    shared = len(second.tree[second.tree[one].parent].ids)
    assert second.kept_tokens([one]) == shared + len(second.tree[one].ids)
    assert second.kept_tokens([one, other]) == shared + len(second.tree[one].ids) + len(second.tree[other].ids)
    assert second.kept_tokens([]) == 0


def level_of(right, lengths=None, width=None):
    tree = SearchTree("p", (0,), "")
    for i, _ in enumerate(right):
        node = tree.add_child(ROOT)
        length = 1 if lengths is None else lengths[i]
        tree.write(Step(node, tuple(range(length)), f"step {i}", FinishReason.STOP, "m"))
    leaves = tree.leaves()
    shares = {leaf.id: share for leaf, share in zip(leaves, right, strict=True)}
    return Level("p", 1, tree, width or len(right), shares)


def test_mass_is_the_share_of_the_width_and_survival_one_right_leaf():
    level = level_of([1.0, 0.0, 0.5], [5, 7, 11])
    one, two, three = level.right
    cases = Cases.draw([level], 0, 1)
    assert cases.measure(lambda *_: {one: 2, three: 2}).outcomes.tolist() == [[16.0, 0.75, 1.0]]
    assert cases.measure(lambda *_: {two: 3}).outcomes.tolist() == [[7.0, 0.0, 0.0]]


def test_simulated_rewards_have_the_stated_auc_and_follow_the_seed():
    levels = [level_of([float(i % 2) for i in range(40)])]
    cases = Cases.draw(levels, 0, 60)
    assert cases.auc == pytest.approx(AUC, abs=0.02)
    assert Cases.draw(levels, 0, 60).draws == cases.draws != Cases.draw(levels, 1, 60).draws
    rewards = [(reward, level.right[leaf]) for level, _ in cases for leaf, reward in cases.draws[0][0].items()]
    assert all(0 < reward < 1 for reward, _ in rewards)


def test_simulated_rewards_are_calibrated_at_even_odds():
    level = level_of([float(i % 2) for i in range(200)])
    pairs = [(r, level.right[leaf]) for rewards in Cases.draw([level], 0, 50).draws[0] for leaf, r in rewards.items()]
    for low, high in ((0.2, 0.4), (0.6, 0.8)):
        inside = [(reward, right) for reward, right in pairs if low <= reward < high]
        assert np.mean([right for _, right in inside]) == pytest.approx(np.mean([r for r, _ in inside]), abs=0.03)


def test_random_leaves_keep_as_much_as_they_are_told_to():
    level = level_of([0.0] * 10, list(range(5, 15)))
    cases = Cases.draw([level], 0, 800)
    told = cases.measure(coverage._at_random(0, iter([50.0] * 800), "last"))
    assert told.tokens == pytest.approx(50, abs=1.5)
    assert np.ptp(told.outcomes[:, 0]) > 0


def test_a_method_at_other_tokens_is_a_mixture_of_its_neighbours():
    curve = [Measured(np.array([[float(tokens), tokens / 100, 1.0]])) for tokens in (40, 10, 20)]
    assert coverage._at_tokens(curve, 25.0).outcomes == pytest.approx(np.array([[25.0, 0.25, 1.0]]))
    assert coverage._at_tokens(curve, 41.0) is None


def test_the_report_has_every_figure_and_is_json(file):
    report = coverage.run(data=str(file), repeats=2)
    figures = report["figures"]
    for suffix in ("", "_ets_kv", "_ets_paper", "_dvts", "_random", "_half_1"):
        assert f"kv_ratio{suffix}" in figures
        for name in ("mass_diff", "survival_diff"):
            low, value, high = (figures[f"{name}{end}{suffix}"] for end in ("_lo", "", "_hi"))
            assert low <= value <= high
    assert report["rewards"] == "simulated, AUC 0.8 within a problem"
    assert json.loads(json.dumps(report)) == report == coverage.run(data=str(file), repeats=2)
    assert {row["method"] for row in report["rows"]} == {"rebase", "ets", "ets-kv", "ets-paper", "dvts", "random"}


def run_folder(tmp_path):
    """A run of width 4 on one problem: three first steps, of which one was pruned, and three trajectories."""
    tree = SearchTree("p", (1, 2, 3), "prompt")

    def grow(parent, text, reward):
        node = tree.add_child(NodeId(parent))
        tree.write(Step(node, tuple(range(len(text))), text, FinishReason.STOP, "m"))
        tree.set_reward(node, reward)
        return node

    first = [grow(ROOT, text, reward) for text, reward in (("one\n\n", 0.9), ("two\n\n", 0.5), ("three\n\n", 0.1))]
    tree.prune(first[2], "rebase: allocated 0 of 4 children")
    for parent, answer in ((first[0], "7"), (first[0], "8"), (first[1], "8")):
        tree.finish(grow(parent, f"The answer is {answer}.", 0.5), "end of text")
    selections = (Selected(tuple(first), (first[0], first[1])),)
    outcome = SearchOutcome(Problem("p", "3 + 4?", "7"), tree, Stats(), selections=selections)
    record = problem_record("h", outcome, Verdict())
    (tmp_path / "problems").mkdir()
    (tmp_path / "problems" / "p.json").write_text(record.model_dump_json())
    settings = {"width": 4, "grader": "plain", "search_reduce": "min"}
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings, "config_hash": "h"}))
    return tmp_path


def test_a_run_is_read_over_the_candidates_whose_continuation_is_recorded(tmp_path):
    (level,), reduce = read_levels(run_folder(tmp_path))
    assert reduce == "min" and level.scored
    assert [(level.tree[leaf].text, share) for leaf, share in level.right.items()] == [
        ("one\n\n", 0.5),
        ("two\n\n", 0.0),
    ]
    assert level.width == 4
    assert [level.tree[leaf].reward for leaf in level.right] == [0.9, 0.5]
    cases = Cases.draw([level], 0, 5)
    assert len(cases.measure(by_policy(Rebase())).outcomes) == 1, "a run's own rewards are drawn once"
    assert coverage.run(data=str(tmp_path))["rewards"] == "recorded"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "p", "text": "7"}, "line 1: correct is missing; a solution has problem, text, answer and correct"),
        ({"problem": "p", "text": 7, "correct": True}, "text is 7"),
        ({"problem": True, "text": "7", "correct": True}, "problem is True"),
        (solution("7", None), "correct is None"),
    ],
)
def test_a_row_that_is_no_solution_is_named(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_levels(write(tmp_path / "s.jsonl.gz", [row]))


def test_data_without_a_level_or_without_a_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="no level of it has an unfinished step"):
        read_levels(write(tmp_path / "s.jsonl.gz", [solution("The answer is 7.", True)]))
    with pytest.raises(DataError, match="holds no solutions"):
        read_levels(write(tmp_path / "empty.jsonl.gz", []))
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        read_levels(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no run"):
        read_levels(tmp_path)
    with pytest.raises(ConfigError, match="bench coverage needs --data"):
        coverage.run()
