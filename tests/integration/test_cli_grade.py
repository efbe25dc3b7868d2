"""`ets grade`: a file of answers, with what was given and another grader beside."""

import json

import pytest
from click.testing import CliRunner

from search.cli.grade import grade
from search.errors import DataError
from search.runs.grading import grade_file

ROWS = [
    {"answer": "0.5", "reference": "\\frac{1}{2}", "verdict": True},
    {"answer": "5 km", "reference": "5 m", "verdict": True},
    {"answer": None, "reference": "3", "verdict": False},
    {"answer": "9^{9^{9^{9}}}", "reference": "1"},
    {"answer": 7, "reference": "7"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_counts_agreement_and_each_disagreement(file):
    result = CliRunner().invoke(grade, [str(file)], standalone_mode=False)
    assert result.exception is None
    lines = result.stdout.splitlines()
    assert lines[0] == "lines             5: 2 same, 2 different, 1 undecided (grader math)"
    assert lines[1] == "as given          2 of 3 (66.67%)"
    assert lines[2:] == ["line 2: '5 km' beside '5 m': math says different, given is same"]


def test_as_json_and_against_another_grader(file):
    result = CliRunner().invoke(grade, [str(file), "--against", "plain", "--json"], standalone_mode=False)
    found = json.loads(result.stdout)
    assert (found["num_lines"], found["num_same"], found["num_different"], found["num_undecided"]) == (5, 2, 2, 1)
    assert (found["num_with_verdict"], found["num_agreeing_with_verdict"]) == (3, 2)
    assert found["num_agreeing_with_other"] == 3
    assert [row["line"] for row in found["differing"]] == [1, 2, 4]


def test_math_verify_can_be_laid_beside(file):
    found = grade_file(file, "math", "math-verify")
    assert found.against == "math-verify"
    assert {line.line for line in found.lines if line.beside is True} >= {1, 5}


def test_answers_are_read_out_of_solutions(tmp_path):
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"answer": "First 3, so the answer is **7**.", "reference": "7"}) + "\n\n")
    assert grade_file(path, "math").counts["different"] == 1
    assert grade_file(path, "math", solutions=True).counts["same"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: answer or reference is missing"),
        ('{"answer": "1"}', "line 2: answer or reference is missing"),
        ('{"answer": [1], "reference": "1"}', "line 2: answer is list"),
        ('{"answer": "1", "reference": ""}', "line 2: reference is empty"),
        ('{"answer": "1", "reference": null}', "line 2: reference is empty"),
        ('{"answer": "1", "reference": "1", "verdict": "yes"}', "line 2: verdict is 'yes'"),
    ],
)
def test_a_line_of_another_shape_is_refused_with_its_number(tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"answer": "1", "reference": "1"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        grade_file(path, "math")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl cannot be read"):
        grade_file(tmp_path / "nothing.jsonl", "math")
