"""Problems from files: every kind of file, every kind of broken line with its number, limit and skip."""

import gzip
import json
from pathlib import Path

import pytest

from search.errors import ConfigError, DataError
from search.problems.data import load_problems, read_data

ROWS = [{"question": "1 + 1", "answer": "2"}, {"question": "2 + 2", "answer": "4"}]
READ = [("0", "1 + 1", "2"), ("1", "2 + 2", "4")]
RAW_HEADS = Path(__file__).resolve().parents[3] / "shared" / "data" / "raw-heads"


def write(tmp_path, *lines):
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(file)


def read(file):
    return [(p.id, p.text, p.answer) for p in load_problems(str(file))]


def test_both_layouts(tmp_path):
    file = write(
        tmp_path,
        {"problem": "1 + 1", "answer": "2", "id": "first"},
        {"question": "2 + 2", "answer": "It is 4.\n#### 4"},
        {"problem": "3", "answer": 3},
    )
    assert read(file) == [("first", "1 + 1", "2"), ("1", "2 + 2", "4"), ("2", "3", "3")]
    assert load_problems(file, 1) == load_problems(file)[:1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: must be an object"),
        ({"answer": "1"}, "line 2: has no 'problem'"),
        ({"problem": "  ", "answer": "1"}, "line 2: the problem's text is empty"),
        ({"problem": ["x"], "answer": "1"}, "line 2: needs a text under 'problem'"),
        ({"problem": "x", "question": "y", "answer": "1"}, "line 2: 'problem' and 'question' differ"),
        ({"problem": "x"}, "line 2: has no 'answer'"),
        ({"problem": "x", "answer": True}, "line 2: 'answer' holds no text and no number"),
        ({"problem": "x", "answer": None}, "line 2: 'answer' holds null"),
        ({"problem": "x", "answer": {"value": 1}}, "line 2: 'answer' holds no text and no number"),
        ({"problem": "x", "answer": ""}, "line 2: 'answer' holds an empty text"),
        ({"problem": "x", "answer": "$ $"}, "line 2: 'answer' holds an empty text"),
        ({"problem": "x", "answer": "nan"}, "line 2: 'answer' holds 'nan'"),
        ({"problem": "x", "answer": []}, "line 2: 'answer' holds an empty list"),
        ({"problem": "x", "answer": ["1", "2"]}, "line 2: 'answer' holds a list of 2 answers"),
        ('{"problem": "x", "answer": NaN}', "line 2: 'answer' holds no finite number"),
        ('{"problem": "x", "answer": -Infinity}', "line 2: 'answer' holds no finite number"),
        ('{"problem": "x", "answer": 1e999}', "line 2: 'answer' holds no finite number"),
        (
            {"problem": "x", "answer": "He buys 3 bags.\nSo he has 9 apples left."},
            "--field answer=COLUMN.*--no-reference",
        ),
        (
            {"problem": "x", "answer": "They have 9 apples left."},
            "line 2: 'answer' holds a text without a final answer",
        ),
        ({"problem": "x", "answer": "first he goes to the market " * 3}, "a text without a final answer"),
        ({"problem": "x", "answer": "所以一共有九个苹果" * 5}, "a text without a final answer"),
        ({"problem": "x", "answer": "So it is.\n####"}, "line 2: 'answer' holds nothing after ####"),
        ({"problem": "x", "answer": "1", "id": "a"}, "line 2: id 'a' stands at line 1 already; --field id=COLUMN"),
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
    assert len(load_problems(file, 1)) == 1, "a line that is not asked for does not matter"


def test_what_is_broken_beside_the_columns_that_are_read_does_not_matter(tmp_path):
    file = write(tmp_path, '{"problem": "x", "answer": 1, "rate": NaN, "id": null}')
    assert read(file) == [("0", "x", "1")]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (27.0, "27"),
        (0.5, "0.5"),
        (10**30, str(10**30)),
        (["7"], "7"),
        (" 7 ", "7"),
        ("$\\frac{1}{2}$", "\\frac{1}{2}"),
        ("$48$, $384$", "$48$, $384$"),
        ("$18.90", "$18.90"),
        ("x < - 2", "x < - 2"),
        ("\\text{the set of all real numbers}", "\\text{the set of all real numbers}"),
        ("必要不充分条件", "必要不充分条件"),
        ("None of the above.", "None of the above."),
        ("So $2+2$ is four.\nThe value is \\boxed{4}.", "4"),
        ("First he sees that two and two are four of them. The answer is 4.", "4"),
    ],
)
def test_what_an_answer_is_read_as(tmp_path, answer, reference):
    assert read(write(tmp_path, {"problem": "x", "answer": answer})) == [("0", "x", reference)]


def test_where_answers_stand_after_hashes_a_bare_number_may_do_without(tmp_path):
    rows = [{"question": "x", "answer": "2 + 3\n#### 5"}, {"question": "y", "answer": "1,005"}]
    assert read(write(tmp_path, *rows)) == [("0", "x", "5"), ("1", "y", "1,005")]
    with pytest.raises(DataError, match="line 3: 'answer' holds no answer after ####, where others have one"):
        load_problems(write(tmp_path, *rows, {"question": "z", "answer": "five"}))


def test_no_file_no_problems_no_split_no_known_kind(tmp_path):
    with pytest.raises(ConfigError, match="no such file; accepted: mini:train"):
        load_problems(str(tmp_path / "none.jsonl"))
    for name in ("empty.jsonl", "empty.json", "empty.csv"):
        (tmp_path / name).write_text("")
        with pytest.raises(DataError, match="holds no problems"):
            load_problems(str(tmp_path / name))
    with pytest.raises(ConfigError, match="unknown mini split 'tset'"):
        load_problems("mini:tset", 1)
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"accepted are files \.jsonl, \.json"):
        load_problems(str(tmp_path / "data.txt"))


def test_blank_lines_and_windows_line_ends_do_not_matter(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(
        b'{"problem": "x", "answer": "1", "id": null}\r\n\r\n{"problem": "y", "answer": "2"}\r\n\n'
    )
    assert read(tmp_path / "d.jsonl") == [("0", "x", "1"), ("2", "y", "2")]


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.JSON.gz"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_json_lines_plain_or_packed_with_a_byte_order_mark_or_without(tmp_path, name, start):
    data = start + "\n".join(map(json.dumps, ROWS)).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [one[1:] for one in read(tmp_path / name)] == [one[1:] for one in READ]


@pytest.mark.parametrize("document", [ROWS, {"version": 1, "data": ROWS}, {"0": ROWS[0], "1": ROWS[1]}])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_document(tmp_path, document, indent):
    for name, pack in (("d.json", bytes), ("d.json.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(b"\xef\xbb\xbf" + json.dumps(document, indent=indent).encode()))
        assert read(tmp_path / name) == READ


def test_one_object_is_one_problem(tmp_path):
    (tmp_path / "1.json").write_text(json.dumps({"problem": "x", "level": 1, "type": "a", "solution": "\\boxed{5}"}))
    assert read(tmp_path / "1.json") == [("0", "x", "5")]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('[{"question": "x", "answer": 1},\n {"question"}]', "line 2: not valid JSON"),
        ('{"question": "x", "answer": 1}\n{"question"', "line 2: not valid JSON"),
        ("3", "must be an array of objects"),
        ("[" * 100_000, "not valid JSON"),
        ('[{"question": "x", "answer": 1}, 3]', "row 1: must be an object"),
        ('{"train": [{"a": 1}], "test": [{"a": 1}]}', "several lists"),
        ('[{"question": "x", "answer": 1}, {"question": "y"}]', "row 1: has no 'answer'"),
    ],
)
def test_a_broken_document(tmp_path, document, message):
    (tmp_path / "d.json").write_text(document)
    with pytest.raises(DataError, match=message):
        load_problems(str(tmp_path / "d.json"))


def test_tables(tmp_path):
    (tmp_path / "d.csv").write_bytes(b'\xef\xbb\xbfID,Problem,Answer\r\na,"x,\r\ny",204\r\nb,z,5\r\n')
    (tmp_path / "d.tsv.gz").write_bytes(gzip.compress(b"Question\tA\tB\tC\tD\tAnswer\nx\t1\t2\t3\t4\tB\n"))
    assert read(tmp_path / "d.csv") == [("a", "x,\r\ny", "204"), ("b", "z", "5")]
    assert read(tmp_path / "d.tsv.gz") == [("0", "x\nA) 1\nB) 2\nC) 3\nD) 4", "B")]
    for broken, message in ((b"a,b\n1\n", "line 2: has not as many"), (b'a,b\n"1', "after line 1: not a valid table")):
        (tmp_path / "d.csv").write_bytes(broken)
        with pytest.raises(DataError, match=message):
            load_problems(str(tmp_path / "d.csv"))


def test_parquet(tmp_path):
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist(ROWS), tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet") == READ
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        load_problems(str(tmp_path / "d.parquet"))


@pytest.mark.parametrize("cut", [-1, -8, 15])
def test_a_broken_gzip_and_other_encodings_are_one_error(tmp_path, cut):
    packed = gzip.compress("\n".join(json.dumps({"question": f"{n}", "answer": n}) for n in range(99)).encode())
    file = tmp_path / "d.jsonl.gz"
    file.write_bytes(packed[:cut])
    with pytest.raises(DataError, match=r"d\.jsonl\.gz: broken gzip"):
        load_problems(str(file))
    file.write_bytes(b'{"question": "x", "answer": 1}')
    with pytest.raises(DataError, match="not gzip, in spite of its name"):
        load_problems(str(file))
    (tmp_path / "d.jsonl").write_bytes('{"question": "x", "answer": 1}'.encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16 text; UTF-8 is accepted"):
        load_problems(str(tmp_path / "d.jsonl"))
    (tmp_path / "d.jsonl").write_bytes('{"question": "é", "answer": 1}'.encode("latin-1"))
    with pytest.raises(DataError, match="line 1: not UTF-8 text"):
        load_problems(str(tmp_path / "d.jsonl"))
    with pytest.raises(ConfigError, match="a folder; accepted: mini:train"):
        load_problems(str(tmp_path))


def test_limit_and_skip_take_the_same_problems_from_all(tmp_path):
    file = write(tmp_path, *({"question": f"{n}", "answer": n} for n in range(5)))
    every = load_problems(file)
    assert load_problems(file, 2) == every[:2] and load_problems(file, 2, 3) == every[3:]
    assert load_problems(file, None, 4) == every[4:]
    with pytest.raises(DataError, match="holds no problems after the first 5"):
        load_problems(file, 1, 5)


def test_without_references(tmp_path):
    file = write(tmp_path, {"problem": "x", "answer": "a story about many words " * 4}, {"problem": "y"})
    data = read_data(file, references=False)
    assert [problem.answer for problem in data.problems] == [None, None]
    assert data.layout == "read as a common layout: problem = problem, no references"
    assert read_data("mini:dev", 1, references=False).problems[0].answer is None
    with pytest.raises(ConfigError, match="contradicts --no-reference"):
        read_data(file, field="answer=answer", references=False)


def test_the_hash_is_of_what_was_read(tmp_path):
    one = read_data(write(tmp_path, *ROWS))
    assert read_data(write(tmp_path, *ROWS, {"question": "3", "answer": 3}), 2).sha256 == one.sha256
    assert read_data(write(tmp_path, ROWS[0], {**ROWS[1], "answer": "5"})).sha256 != one.sha256


def test_a_mini_split():
    problems = load_problems("mini:test", 5)
    assert len({problem.id for problem in problems}) == 5 and all(problem.answer for problem in problems)
    with pytest.raises(ConfigError, match="mini:test has no columns"):
        load_problems("mini:test", 5, field="problem=x")


HEADS = {
    "aime24-test": ["204", "113", "371", "385", "110"],
    "amc23-test": ["27", "36", "45", "3159", "36"],
    "aqua-test": ["A", "E", "A", "B", "B"],
    "asdiv-test": ["9", "15", "16", "6", "14"],
    "carp_en-test": ["b ^ { 2 } - 9 a ^ { 2 }", "20", "x < - 2", "\\frac { 3 } { 2 }", "- 31"],
    "college_math-test": ["10-4 n", "(45,2),(-10,-9)", "\\frac{48 i-56}{85}", "35,36,37", "x^{2}-4 x-2=0"],
    "gaokao2023en-test": ["\\{x|-2\\leq x < 1\\}", "-1-\\sqrt{3}", "-1", "80", "4"],
    "gaokao2024_mix-test": ["C", "C", "D", "A", "B"],
    "mawps-multiarith": ["39", "8", "2", "40", "3"],
    "mawps-test": ["43", "26", "135", "6", "8"],
    "minerva_math-test": ["1.6", "4.5e33", "41.8", "20.39", "0.006"],
    "olympiadbench-test": ["2", "\\frac{1}{2 n+2}", "2^{1009}", "2", "2n-2"],
    "sat_math-test": ["A", "A", "C", "A", "D"],
    "svamp-test": ["145", "19", "3", "198", "63"],
}
"""Reference answers of public data sets' first five rows as a person reads them."""


def test_the_first_rows_of_public_data_sets_where_they_are_at_hand():
    """Every layout has rows of its own in test_layouts.py; this looks at the real ones beside a checkout."""
    for file in RAW_HEADS.glob("*.jsonl"):
        problems = load_problems(str(file))
        assert [problem.answer for problem in problems] == HEADS[file.stem], file.stem
        for problem, row in zip(problems, map(json.loads, file.read_text().splitlines()), strict=True):
            for column in ("Body", "body", "Question", "question", "problem", "content", "input"):
                assert row.get(column, "").strip() in problem.text, (file.stem, column)
            options = row.get("options") or []
            assert all(one in problem.text for one in ([options] if isinstance(options, str) else options))
