"""Golds against themselves in other writings, and against near misses: false acceptances none, false rejections few.

The golds are of our own choosing, and all those of the data beside the checkout where it lies there.
"""

import gzip
import json
import time
from itertools import chain
from pathlib import Path

import pytest
from answer_rewritings import near_misses, rewritings

from search.answers import read_answer
from search.answers.mathematical import MathGrader
from search.answers.values import Verdict

DATA = Path(__file__).parents[3] / "shared" / "data"

# fmt: off
OWN = [
    "0", "7", "18", "-5", "72", "1234", "-12", "100", "999999", "2.5", "0.75", "-3.14", "12.50", "70000", "540",
    r"\frac{1}{2}", r"-\frac{3}{4}", r"\frac{17}{5}", r"\frac{22}{7}", r"\frac{1}{1000}", r"\frac{100}{3}",
    r"\sqrt{2}", r"3\sqrt{5}", r"\frac{\sqrt{3}}{2}", r"2+\sqrt{7}", r"\sqrt[3]{4}", r"5\sqrt{2}-3", r"\pi", r"2\pi",
    r"\frac{3\pi}{4}", r"12\pi+4", r"e^2", r"3+4i", r"-2-5i", r"\frac{1+i}{2}", "x^2+2x+1", "3x-7", "2xy", "a^2-b^2",
    r"\frac{x+1}{x-1}", r"\sin^2 x", r"2\cos\theta", "p-q", r"\ln 5", "6t^3", "(1,2)", "(3, -4)",
    r"\left(\frac{1}{2}, 3\right)", "(0, 0, 7)", "(2, 5, 11)", r"\left( 3, \frac{\pi}{2} \right)", r"\{1,2,3\}",
    r"\{-1, 4\}", "1, 2", "3, 5, 7", "-2, 8", r"1 \pm \sqrt{19}", r"\pm 3", "[1,2)", r"(-\infty, 3]", r"[0,\infty)",
    "(2,5)", r"(-\infty,-1)\cup(4,\infty)", r"\left[\frac{1}{2}, 1\right]", "x=5", "y=2x+3", r"x \ge 2", "-3<x<3",
    "x^2+y^2=25", "2x+3y=12", r"50\%", r"12.5\%", r"90^\circ", r"45^{\circ}", r"12\text{ cm}", r"7\text{ hours}",
    r"\$32", r"\$1,250", "5 dollars", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"\begin{pmatrix} 5 \\ -1 \end{pmatrix}", "2516_8", "1010_2", "3:4", "10:45", r"\text{Evelyn}", r"\text{east}",
    r"\text{June 20}", "C", r"\text{(B)}", r"\emptyset",
]
# fmt: on


def recorded() -> list[str]:
    """The golds of the data beside the checkout."""
    golds: list[str] = []
    for name in ("math500-first-400", "gsm8k-test-1119", "multiarith"):
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as lines:
            golds.extend(json.loads(line)["answer"].split("####")[-1].strip() for line in lines)
    for path in sorted((DATA / "raw-heads").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            given = next((row[name] for name in ("answer", "final_answer", "Answer", "target") if row.get(name)), [])
            golds.extend(str(one) for one in (given if isinstance(given, list) else [given]))
    return list(dict.fromkeys(gold for gold in golds if 0 < len(gold) < 150))


@pytest.fixture(scope="module")
def grader():
    made = MathGrader()
    yield made
    made.close()


def graded(grader: MathGrader, golds: list[str]) -> tuple[int, list[object], list[object]]:
    """How many pairs there were, what was falsely accepted and what falsely rejected."""
    accepted: list[object] = []
    rejected: list[object] = []
    num_pairs = 0
    for gold in golds:
        boxed = read_answer(f"So it is $\\boxed{{{gold}}}$.")
        if grader.compare(boxed or "", gold) is not Verdict.SAME:
            rejected.append(("boxed", gold, boxed))
        for pair in chain(rewritings(gold), near_misses(gold)):
            num_pairs += 1
            verdict = grader.compare(pair.answer, pair.reference)
            if pair.same and verdict is not Verdict.SAME:
                rejected.append(pair)
            elif not pair.same and verdict is Verdict.SAME:
                accepted.append(pair)
    return num_pairs, accepted, rejected


def test_our_golds_in_other_writings_and_their_near_misses(grader):
    num_pairs, accepted, rejected = graded(grader, OWN)
    assert num_pairs > 1600
    assert accepted == []
    assert rejected == []


if DATA.exists():

    @pytest.mark.nightly
    def test_all_golds_at_hand(grader):
        golds = recorded()
        asked, compared = grader.num_symbolic, grader.num_compared
        start = time.process_time()
        num_pairs, accepted, rejected = graded(grader, [*golds, *OWN])
        seconds = time.process_time() - start
        assert num_pairs >= 15_000
        assert accepted == []
        assert len(rejected) < 0.005 * num_pairs, rejected
        # Sympy is hardly ever needed, and the rest is quick.
        assert grader.num_symbolic - asked < 0.05 * (grader.num_compared - compared)
        assert seconds / num_pairs < 0.002

    @pytest.mark.nightly
    @pytest.mark.parametrize(("name", "share"), [("gsm8k-test-1119", 0.95), ("math500-first-400", 0.8)])
    def test_answers_of_a_benchmark_are_compared_without_sympy(grader, name, share):
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as lines:
            golds = [json.loads(line)["answer"].split("####")[-1].strip() for line in lines]
        asked, compared = grader.num_symbolic, grader.num_compared
        start = time.process_time()
        for one, other in zip(golds, [*golds[1:], golds[0]], strict=True):
            grader.compare(one, other)
            grader.compare(f"${one}$.", one)
        seconds = time.process_time() - start
        assert grader.num_symbolic - asked <= (1 - share) * (grader.num_compared - compared)
        assert seconds / (2 * len(golds)) < 0.002
