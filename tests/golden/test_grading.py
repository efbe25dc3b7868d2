"""The mathematical grader against cases whose verdict a person has given."""

import re
from pathlib import Path

import pytest
import yaml

from search.answers.mathematical import MathGrader

CASES = [
    (group, *case)
    for group, cases in yaml.safe_load((Path(__file__).parent / "grading.yaml").read_text()).items()
    for case in cases
]


@pytest.fixture(scope="module")
def grader():
    made = MathGrader()
    yield made
    made.close()


def test_there_are_enough_cases_of_both_verdicts():
    assert len(CASES) >= 120
    assert sum(right for *_, right in CASES) > 60 and sum(not right for *_, right in CASES) > 40


@pytest.mark.parametrize(
    ("solution", "reference", "right"),
    [case[1:] for case in CASES],
    ids=[f"{case[0]}-{re.sub(r'[^!-~]+', '_', case[1])[:30]}-{number}" for number, case in enumerate(CASES)],
)
def test_a_case(grader, solution, reference, right):
    assert grader.correct(grader.extract(solution), reference) is right
