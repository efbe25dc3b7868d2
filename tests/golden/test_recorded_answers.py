"""The reader against a person, on recorded solutions of a real model; they lie beside the checkout, not within it.

Where they do not lie there the labels alone are checked. Texts of the same kinds are in
tests/unit/test_answer_reader.py.
"""

import gzip
import hashlib
import json
import random
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from search.answers import read_answer

HERE = Path(__file__).parent
RECORDED = HERE.parents[2] / "shared" / "data" / "qwen-coder-1.5b-gsm8k-train-solutions.jsonl.gz"


class Label(NamedTuple):
    row: int
    digest: str
    answer: str | None


def labels() -> list[Label]:
    rows = []
    for line in (HERE / "recorded_answers.txt").read_text().splitlines():
        if not line.startswith("#"):
            row, digest, answer = line.split()
            rows.append(Label(int(row), digest, None if answer == "-" else answer))
    return rows


LABELS = labels()


def value(answer: str | None) -> Fraction | None:
    return None if answer is None else Fraction(answer.replace(",", "").removesuffix("\\%").removesuffix("%"))


def test_the_labels_are_of_a_random_sample_and_of_both_kinds():
    assert [label.row for label in LABELS] == sorted(random.Random(20260726).sample(range(3360), 200))
    silent = sum(label.answer is None for label in LABELS)
    assert 30 <= silent <= 80
    assert all(value(label.answer) is not None for label in LABELS if label.answer is not None)


def agreement(path: Path) -> list[Label]:
    """The labels with which the reader does not agree."""
    with gzip.open(path, "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    differing = []
    for label in LABELS:
        text = texts[label.row]
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == label.digest, f"row {label.row} is another text"
        if value(read_answer(text)) != value(label.answer):
            differing.append(label)
    return differing


if RECORDED.exists():

    def test_the_reader_finds_what_a_person_would():
        differing = agreement(RECORDED)
        assert len(differing) <= 4, differing
        assert all(label.answer is not None for label in differing), "and reads none where a person reads none"
