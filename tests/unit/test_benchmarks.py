"""Benchmarks from a local cache as `datasets` keeps it, without a network, read as a file of their rows is read."""

import json
import os
import subprocess
import sys

import pytest

from search.errors import ConfigError, DataError
from search.problems.benchmarks import BENCHMARKS
from search.problems.data import load_problems, read_data
from search.types import Problem

ROWS = {
    "gsm8k": [
        {"question": "Ann has 2 eggs and buys 3. How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
        {"question": "And 1,000 more?", "answer": "5 + 1,000\n#### 1,005"},
    ],
    "math500": [
        {"problem": "What is $1/2+0$?", "solution": "Half.", "answer": "\\frac{1}{2}", "subject": "Algebra",
         "level": 1, "unique_id": "test/algebra/1.json"},
    ],
    "olympiadbench": [
        {"id": 1606, "question": "Find both.", "final_answer": ["$2$", "$-2$"], "is_multiple_answer": True,
         "unit": None, "answer_type": "Numerical", "error": None, "language": "English", "modality": "Text-only"},
    ],
    "aime": [{"id": 60, "problem": "Find it.", "solution": "204", "answer": "204", "url": "x", "year": "2024"}],
}  # fmt: skip
PROBLEMS = {
    "gsm8k": [
        Problem("gsm8k/0", "Ann has 2 eggs and buys 3. How many?", "5"),
        Problem("gsm8k/1", "And 1,000 more?", "1,005"),
    ],
    "math500": [Problem("math500/test/algebra/1.json", "What is $1/2+0$?", "\\frac{1}{2}")],
    "olympiadbench": [Problem("olympiadbench/1606", "Find both.", "2, -2")],
    "aime": [Problem("aime/60", "Find it.", "204")],
}

WRITE = """
import json, sys
from pathlib import Path
import datasets
from datasets.arrow_writer import ArrowWriter
from datasets.naming import camelcase_to_snakecase
from datasets.splits import SplitDict, SplitInfo

for hub_id, subset, split, rows in json.loads(sys.argv[2]):
    owner, name = hub_id.split("/")
    name, config = camelcase_to_snakecase(name), subset or "default"
    folder = Path(sys.argv[1]) / f"{owner}___{name}" / config / "0.0.0" / "abc123"
    folder.mkdir(parents=True)
    made = datasets.Dataset.from_list(rows)
    writer = ArrowWriter(path=str(folder / f"{name}-{split}.arrow"), features=made.features)
    for row in rows:
        writer.write(row)
    writer.finalize()
    info = made.info.copy()
    info.splits = SplitDict({split: SplitInfo(split, num_examples=len(rows), dataset_name=name)}, dataset_name=name)
    info.builder_name, info.dataset_name, info.config_name = "parquet", name, config
    info.version = datasets.Version("0.0.0")
    info.write_to_directory(str(folder))
"""

READ = """
import json, sys
from search.problems.data import load_problems
print(json.dumps({name: [[p.id, p.text, p.answer] for p in load_problems(name)] for name in sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """An environment without a network, with each benchmark in its cache."""
    folder = tmp_path_factory.mktemp("cache")
    env = {**os.environ, "HF_DATASETS_CACHE": str(folder), "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    sets = [(one.hub_id, one.subset, one.split, ROWS[name]) for name, one in BENCHMARKS.items()]
    subprocess.run([sys.executable, "-c", WRITE, str(folder), json.dumps(sets)], env=env, check=True)
    return env


def test_every_benchmark_is_read_from_the_cache(offline):
    command = [sys.executable, "-c", READ, *BENCHMARKS]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name: [Problem(*one) for one in rows] for name, rows in json.loads(done.stdout).items()} == PROBLEMS


def test_what_is_not_in_the_cache_is_one_clear_error(offline, tmp_path):
    env = {**offline, "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", "eval", "--data", "gsm8k"],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "cannot load openai/gsm8k" in last and ".jsonl file" in last, done.stderr
    assert "Traceback" not in done.stderr


class FakeDatasets:
    def __init__(self, rows):
        self.rows = rows

    def is_progress_bar_enabled(self):
        return False

    def disable_progress_bars(self):
        pass

    def load_dataset(self, hub_id, subset, split):
        assert (hub_id, subset, split) == ("openai/gsm8k", "main", "test")
        return self.rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "x"}, "row 1: has no 'answer'"),
        ({"question": "x", "answer": "no hashes"}, "row 1: 'answer' holds no answer after ####"),
        ({"question": " ", "answer": "#### 5"}, "row 1: the problem's text is empty"),
        ({"question": "x", "answer": "####"}, "row 1: 'answer' holds nothing after ####"),
        ({"question": None, "answer": "#### 1"}, "row 1: needs a text under 'question'"),
    ],
)
def test_a_row_of_another_layout_is_named(monkeypatch, row, message):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([ROWS["gsm8k"][0], row]))
    with pytest.raises(DataError, match=message):
        load_problems("gsm8k")


def test_a_benchmark_and_a_file_of_its_rows_are_the_same_problems(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(ROWS["gsm8k"]))
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS["gsm8k"])))
    hub, file = read_data("gsm8k"), read_data(str(tmp_path / "test.jsonl"))
    assert [(one.text, one.answer) for one in hub.problems] == [(one.text, one.answer) for one in file.problems]
    assert hub.layout == file.layout == "read as gsm8k: problem = question, reference = answer after ####"


def test_limit_and_skip(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(ROWS["gsm8k"]))
    assert load_problems("gsm8k", 1) == PROBLEMS["gsm8k"][:1]
    assert load_problems("gsm8k", 1, 1) == PROBLEMS["gsm8k"][1:]
    with pytest.raises(DataError, match="no problems after the first 2"):
        load_problems("gsm8k", 1, 2)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"needs the datasets library: .*pip install"):
        load_problems("math500")
