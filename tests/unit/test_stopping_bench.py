"""`ets bench stopping`: recorded votes stop where counting by hand says, and keep their answers."""

import json

import pytest

from search.errors import ConfigError, DataError
from search.studies import stopping

WIDTH = 8


def solution(answer, words=20):
    return f"{'word ' * words}\n\nThe answer is \\boxed{{{answer}}}."


def rows(name, answers, words=None):
    lengths = words or [20] * len(answers)
    return [
        {"problem": name, "text": solution(answer, number), "answer": answer, "correct": answer == 5}
        for answer, number in zip(answers, lengths, strict=True)
    ]


@pytest.fixture
def file(tmp_path):
    def write(*problems):
        file = tmp_path / "solutions.jsonl"
        file.write_text("\n".join(json.dumps(row) for problem in problems for row in problem))
        return str(file)

    return write


def test_a_unanimous_vote_of_equal_lengths_needs_half(file):
    figures = stopping.run(data=file(rows("one", [5] * WIDTH)))["figures"]
    whole = figures[f"tokens_spent_{WIDTH}"]
    assert whole % WIDTH == 0 and figures[f"ticks_spent_{WIDTH}"] == whole / WIDTH
    assert figures[f"saved_decided_{WIDTH}"] == 0.0, "all end in the same tick"
    assert figures[f"saved_decided_needed_{WIDTH}"] == 100 * (1 - 4 / 8), "four of eight win a tie"
    assert figures[f"saved_confidence_90_needed_{WIDTH}"] > figures[f"saved_confidence_99_needed_{WIDTH}"]
    assert figures[f"accuracy_spent_{WIDTH}"] == 1.0 and figures[f"changed_decided_needed_{WIDTH}"] == 0.0


def test_what_is_still_being_written_when_the_vote_is_decided_is_saved(file):
    figures = stopping.run(data=file(rows("one", [5] * WIDTH, [20] * 5 + [220] * 3)))["figures"]
    short, long = 20, 220
    written = figures[f"tokens_spent_{WIDTH}"]
    added = (written - 5 * short - 3 * long) / WIDTH
    saved = 3 * (long - short)
    assert figures[f"saved_decided_{WIDTH}"] == pytest.approx(100 * saved / written)
    assert figures[f"ticks_decided_{WIDTH}"] == short + added


def test_an_answer_that_confidence_changes_is_counted(file):
    # Early votes agree on what most are against.
    changed = rows("turns", [3, 3, 3, 5, 5, 5, 5, 5], [20, 20, 20, 90, 90, 90, 90, 90])
    figures = stopping.run(data=file(changed, rows("agrees", [5] * WIDTH)))["figures"]
    assert figures[f"changed_decided_{WIDTH}"] == figures[f"changed_decided_needed_{WIDTH}"] == 0.0
    assert figures[f"changed_confidence_90_{WIDTH}"] == 50.0
    assert figures[f"accuracy_diff_confidence_90_{WIDTH}"] == -50.0


def test_the_mini_family_by_a_tree_search():
    figures = stopping.run(limit=4, widths=(4,), methods=("rebase",))["figures"]
    assert figures["changed_decided_4_rebase"] == 0.0 and figures["accuracy_diff_decided_4_rebase"] == 0.0
    assert figures["saved_decided_4_rebase"] >= 0.0 < figures["tokens_spent_4_rebase"]
    assert not any("needed" in name for name in figures), "a search that compares leaves begins them all"


def test_problems_with_too_few_solutions_are_left_out_and_said(file, capsys):
    report = stopping.run(data=file(rows("one", [5] * 4), rows("two", [5] * 3), rows("three", [5] * 4)))
    assert report["num_problems"] == 2 and "tokens_spent_4" in report["figures"]
    assert "left out, with fewer than 4 solutions: 1 problems" in capsys.readouterr().err
    with pytest.raises(DataError, match="no problem has 9 solutions"):
        stopping.run(data=file(rows("one", [5] * 4)), widths=(9,))


def test_a_tree_search_on_flat_solutions_is_refused(file):
    with pytest.raises(ConfigError, match="method rebase: recorded solutions are flat; give best-of-n or"):
        stopping.run(data=file(rows("one", [5] * 4)), methods=("rebase",))
