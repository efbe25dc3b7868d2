"""Problems from files: both layouts, and every kind of broken line with its number."""

import json

import pytest

from search.data import load_problems
from search.errors import ConfigError, DataError


def write(tmp_path, *lines):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(file)


def test_both_layouts(tmp_path):
    file = write(
        tmp_path,
        {"problem": "1 + 1", "answer": "2", "id": "first"},
        {"question": "2 + 2", "answer": "It is 4.\n#### 4"},
        {"problem": "3", "answer": 3},
    )
    problems = load_problems(file)
    assert [(p.id, p.text, p.answer) for p in problems] == [
        ("first", "1 + 1", "2"),
        ("1", "2 + 2", "4"),
        ("2", "3", "3"),
    ]
    assert load_problems(file, 1) == problems[:1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: must be an object"),
        ({"answer": "1"}, "line 2: needs a text under 'problem'"),
        ({"problem": "  ", "answer": "1"}, "line 2: needs a text under 'problem'"),
        ({"problem": "x"}, "line 2: needs a text or a number under 'answer'"),
        ({"problem": "x", "answer": True}, "line 2: needs a text or a number"),
        ({"problem": "x", "answer": "1", "id": "a"}, "line 2: id 'a' stands on line 1 already"),
        ('{"problem": "' + "x" * (1 << 20) + '"}', "line 2: longer than 1048576 bytes"),
        ("\xff", "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ('{"problem": "\\ud800", "answer": "1"}', "line 2: holds text that is not valid Unicode"),
        ('{"problem": "x", "answer": "1", "id": "\\ud800"}', "line 2: holds text that is not valid Unicode"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    file = write(tmp_path, {"problem": "ok", "answer": "1", "id": "a"}, line)
    with pytest.raises(DataError, match=message):
        load_problems(file)


def test_no_file_no_problems_no_split(tmp_path):
    with pytest.raises(ConfigError, match="no such file; accepted: mini:train"):
        load_problems(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no problems"):
        load_problems(str(tmp_path / "empty.jsonl"))
    with pytest.raises(ConfigError, match="unknown mini split 'tset'"):
        load_problems("mini:tset", 1)


def test_blank_lines_and_windows_line_ends_do_not_matter(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(
        b'{"problem": "x", "answer": "1", "id": null}\r\n\r\n{"problem": "y", "answer": "2"}\r\n\n'
    )
    assert [(p.id, p.text) for p in load_problems(str(tmp_path / "d.jsonl"))] == [("0", "x"), ("2", "y")]


def test_a_mini_split():
    problems = load_problems("mini:test", 5)
    assert len({problem.id for problem in problems}) == 5 and all(problem.answer for problem in problems)
