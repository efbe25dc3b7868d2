"""Each kind of answer, with both verdicts, both ways round."""

from pathlib import Path

import pytest
import yaml

from search.answers.mathematical import MathGrader
from search.answers.values import Verdict

KINDS = yaml.safe_load((Path(__file__).parent / "answer_kinds.yaml").read_text())
CASES = [
    (kind, verdict, one, other)
    for kind, pairs in KINDS.items()
    for verdict, rows in pairs.items()
    for one, other in rows
]


@pytest.fixture(scope="module")
def grader():
    made = MathGrader()
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_enough_of_both_verdicts(kind):
    assert sorted(KINDS[kind]) == ["different", "same"]
    assert all(len(rows) >= 11 for rows in KINDS[kind].values())


@pytest.mark.parametrize(
    ("kind", "verdict", "one", "other"), CASES, ids=[f"{case[0]}-{case[1]}-{n}" for n, case in enumerate(CASES)]
)
def test_a_pair(grader, kind, verdict, one, other):
    assert grader.compare(one, other) is Verdict(verdict)
    assert grader.compare(other, one) is Verdict(verdict)
    assert grader.compare(one, one) is grader.compare(other, other) is Verdict.SAME


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("3.14159", "\\approx 3.14", True),
        ("\\pi", "≈ 3.14", True),
        ("3.15", "\\approx 3.14", False),
        ("3.1416", "3.14", False),
        ("\\approx 3.14159", "3.14", False),
        ("41.81", "approximately 41.8", True),
        ("41.9", "approximately 41.8", False),
        ("333.4", "about 333", True),
        ("334", "about 333", False),
        ("\\sqrt{2}", "\\approx 1.41", True),
        ("-1.414", "\\approx 1.41", False),
    ],
)
def test_only_a_reference_that_says_so_is_approximate(grader, answer, reference, right):
    assert grader.correct(answer, reference) is right
