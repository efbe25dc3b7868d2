import json
import re
import subprocess
import sys

import pytest

from search.errors import ConfigError
from search.mini.export import export_jsonl
from search.mini.problems import SPLITS, apply, format_prompt, problem, problems
from search.mini.wording import OpKind


def test_a_problem_is_decided_by_split_and_index_alone() -> None:
    listed = list(problems("dev", 5, start=3))
    assert listed == [problem("dev", index) for index in range(3, 8)]
    assert problem("test", 0).id == "mini-test-0"
    assert problem("test", 0).text != problem("test", 1).text


def test_the_first_test_problem_never_changes() -> None:
    found = problem("test", 0)
    assert (found.text, found.answer) == GOLDEN


def test_answers_follow_from_the_operations() -> None:
    for found in problems("test", 200):
        value = found.start
        for op in found.operations:
            assert f" {op.phrase}." in found.text
            value = apply(op.kind, value, op.number)
            assert 2 <= value <= 99
        assert found.answer == str(value)
        verbs = [op.wording.verb for op in found.operations]
        assert len(set(verbs)) == len(verbs)


def test_splits_share_no_text() -> None:
    texts: dict[str, set[str]] = {}
    for split in SPLITS:
        texts.setdefault(split.partition("-")[0], set()).update(p.text for p in problems(split, 150))
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]


def test_splits_share_no_skeleton() -> None:
    def skeletons(base: str) -> set[tuple[object, ...]]:
        found = [p for split in SPLITS if split.startswith(base) for p in problems(split, 150)]
        return {(p.start, *((op.kind, op.number) for op in p.operations)) for p in found}

    assert not skeletons("train") & skeletons("test")
    assert not skeletons("dev") & skeletons("test")


def test_difficulties_differ_in_operations_and_traps() -> None:
    def mean_ops(split: str) -> float:
        return sum(len(p.operations) for p in problems(split, 100)) / 100

    assert mean_ops("test-easy") == 3
    assert mean_ops("test-medium") == 4
    assert 5 <= mean_ops("test-hard") <= 6


def test_a_count_never_falls_below_zero() -> None:
    assert apply(OpKind.SUB, 5, 12) == 0
    assert apply(OpKind.DROP, 5, 12, misread=True) == 17
    assert apply(OpKind.MAKE, 5, 3, misread=True) == 8


def test_a_prompt_has_a_sentence_a_line_and_ends_in_a_blank_line() -> None:
    prompt = format_prompt("Ann has 35 books.  She buys 19 more. How many books are there now?\n")
    assert prompt == "Ann has 35 books.\nShe buys 19 more.\nHow many books are there now?\n\n"
    assert format_prompt("") == "\n\n"


@pytest.mark.parametrize(("split", "index"), [("tests", 0), ("", 0), ("test-", 0), ("test", -1)])
def test_unknown_problems_are_refused(split: str, index: int) -> None:
    with pytest.raises(ConfigError):
        problem(split, index)


def test_export_writes_one_object_a_line(tmp_path) -> None:
    path = tmp_path / "out.jsonl"
    assert export_jsonl("test-hard", 3, path) == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[2] == {
        "id": "mini-test-hard-2",
        "problem": problem("test-hard", 2).text,
        "answer": problem("test-hard", 2).answer,
    }
    with pytest.raises(ConfigError):
        export_jsonl("test", 0, path)
    with pytest.raises(ConfigError):
        export_jsonl("test", 1, path / "out.jsonl")


def test_problems_need_no_torch() -> None:
    code = "import sys, search.mini; search.mini.problem('test', 0); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_texts_hold_no_odd_characters() -> None:
    for found in problems("test", 100):
        assert re.fullmatch(r"[A-Za-z0-9 .?]+", found.text)


GOLDEN = (
    "Sam owns 12 beads. He cuts each into 8. He loses 37. He buys 22 more. He leaves 57. "
    "How many beads are left in the end?",
    "24",
)
