"""A verdict hangs on the two answers alone: not on order, load, threads or what was graded before."""

import multiprocessing
import random
import threading
import time
from collections import Counter
from itertools import product

import pytest
from answer_rewritings import near_misses, rewritings

from search.answers.compare import same_value
from search.answers.mathematical import MathGrader
from search.answers.reading import read_value
from search.answers.values import Verdict
from search.decision.vote import Candidate, vote

# fmt: off
GOLDS = [
    "18", "-5", "1234", "2.5", r"\frac{17}{5}", r"3\sqrt{5}", r"\frac{3\pi}{4}", "3+4i", "x^2+2x+1", "2xy", "(3, -4)",
    r"\{1,2,3\}", "3, 5, 7", r"\pm 3", "[1,2)", r"(-\infty,-1)\cup(4,\infty)", "x=5", "y=2x+3", "-3<x<3", r"50\%",
    r"12\text{ cm}", r"\$32", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "2516_8", "3:4", r"\text{Evelyn}", "C",
    r"\frac{\sqrt{3}}{2}", r"\sin^2 x", "a^2-b^2", r"90^\circ", r"7\text{ hours}", "9^{9^{9^{9}}}", r"\sqrt{x^2}",
    "99999!",
]
# fmt: on
SYMBOLIC = [(rf"\int_0^{n} x^2 dx", rf"\frac{{{n**3}}}{{3}}") for n in range(1, 4)]


def pairs(number: int) -> list[tuple[str, str]]:
    """Pairs of all kinds and verdicts, in a random order."""
    made = [(pair.answer, pair.reference) for gold in GOLDS for pair in [*rewritings(gold), *near_misses(gold)]]
    chosen = random.Random(5)
    made += [(chosen.choice(GOLDS), chosen.choice(GOLDS)) for _ in range(number - len(made) - len(SYMBOLIC))]
    made += SYMBOLIC
    chosen.shuffle(made)
    return made[:number]


def verdicts(grader: MathGrader, asked: list[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
    return {pair: grader.compare(*pair) for pair in asked}


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_the_load_the_order_and_the_threads_change_nothing():
    asked = pairs(2000)
    assert len(asked) == 2000
    first = MathGrader()
    expected = verdicts(first, asked)
    assert set(expected.values()) == set(Verdict), "all three verdicts are among them"
    busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(4)]
    for process in busy:
        process.start()
    try:
        for order in (sorted(asked), sorted(asked, reverse=True)):
            read_value.cache_clear()
            other = MathGrader()
            other._symbolic = (
                first._symbolic
            )  # a process started is seconds spent, and each answer has a fork of its own
            assert verdicts(other, order) == expected
        read_value.cache_clear()
        shared = MathGrader()
        shared._symbolic = first._symbolic
        found: list[dict[tuple[str, str], Verdict]] = []
        threads = [
            threading.Thread(target=lambda part=asked[n::8]: found.append(verdicts(shared, part))) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and {pair: verdict for part in found for pair, verdict in part.items()} == expected
    finally:
        for process in busy:
            process.kill()
            process.join()
        first.close()


def _spin() -> None:
    while True:
        sum(range(10_000))


def test_a_comparison_is_symmetric_and_reflexive():
    values = {answer: read_value(answer) for pair in pairs(2000) for answer in pair}
    chosen = random.Random(7)
    names = sorted(values)
    for one in names:
        assert same_value(values[one], values[one]) is Verdict.SAME
    for _ in range(3000):
        one, other = chosen.choice(names), chosen.choice(names)
        assert same_value(values[one], values[other]) is same_value(values[other], values[one]), (one, other)


# fmt: off
EXACT = [
    "1/2", "0.5", r"\frac{2}{4}", "½", "2", "2.0", r"\sqrt{4}", "-2", r"2\sqrt{2}", r"\sqrt{8}", "(1,2)",
    r"\left(1, 2\right)", r"\{1,2\}", r"\{2,1\}", "[1,2]", "[1.0, 2]", "x^2-1", "(x-1)(x+1)", "x^2+1", "yes",
    r"\text{Yes}", "no", "5 km", "5000 meters", "3:4", "6:8", r"\pi", "π", "3.14", r"x \ge 2", r"[2, \infty)",
]
# fmt: on
"""Answers that leave nothing out: among them, to be the same is an equivalence."""


def test_of_answers_that_leave_nothing_out_what_is_the_same_as_one_is_the_same():
    grader = MathGrader()
    for one, two, three in product(EXACT, repeat=3):
        if grader.equivalent(one, two) and grader.equivalent(two, three):
            assert grader.equivalent(one, three), (one, two, three)


@pytest.mark.parametrize("seed", range(12))
def test_a_vote_does_not_hang_on_the_order_of_its_answers(seed):
    grader = MathGrader()
    chosen = random.Random(seed)
    pool = [
        *EXACT,
        "5",
        "5 m",
        "5 km",
        "5 cents",
        "5 dollars",
        "50%",
        "50",
        "0.5",
        "12",
        "12 cm",
        "12 m",
        "2:30",
        "2:30 pm",
    ]
    answers = [chosen.choice(pool) for _ in range(14)]
    classes = set()
    for _ in range(6):
        chosen.shuffle(answers)
        voters = [Candidate(node, answer, None, grader.key(answer)) for node, answer in enumerate(answers)]
        outcome = vote(voters, "majority", grader.equivalent)
        members = [sorted(answers[node] for node in one.nodes) for one in outcome.classes]
        assert sum(len(one) for one in members) == len(answers)
        for one in members:
            assert all(grader.equivalent(a, b) for a in one for b in one), "each is the same as every other"
        classes.add(tuple(sorted(map(tuple, members))))
    assert len(classes) == 1


def test_what_says_less_joins_the_larger_class():
    grader = MathGrader()
    answers = ["5 m", "5 km", "5", "5 km"]
    voters = [Candidate(node, answer, None, grader.key(answer)) for node, answer in enumerate(answers)]
    outcome = vote(voters, "majority", grader.equivalent)
    assert [(one.answer, one.nodes) for one in outcome.classes] == [("5 km", (1, 2, 3)), ("5 m", (0,))]


# fmt: off
HOSTILE = [
    *(f"{n}^{{{m}^{{9^{{9}}}}}}" for n, m in product(range(2, 10), range(2, 10))),
    *(f"{10**n}!" for n in range(1, 12)), *(f"{'(' * n}1{')' * n}" for n in (10, 100, 400, 2000)),
    *("{" * n + "1" + "}" * n for n in (10, 100, 400, 2000)),
    *("\\frac{" * n + "1" + "}{2}" * n for n in (5, 50, 200)), *("\\sqrt{" * n + "2" + "}" * n for n in (5, 50, 200)),
    *("\\sqrt" * n + "2" for n in (5, 50, 500)), *("-" * n + "1" for n in (3, 100, 1900)),
    *("2^" * n + "2" for n in (3, 6, 50, 600)), *("(" * n for n in (1, 50, 5000)), *("}" * n for n in (1, 50, 5000)),
    *("{" * n for n in (1, 50, 5000)), *("\\" * n for n in (1, 50, 5000)), *("$" * n for n in (1, 3, 5000)),
    *("9" * n for n in (10, 999, 1001, 100_000)), *("1/" + "3" * n for n in (10, 900, 100_000)),
    *("0." + "7" * n for n in (10, 900, 100_000)), *("1," * n + "1" for n in (5, 150, 50_000)),
    *("\\{" + ",".join(map(str, range(n))) + "\\}" for n in (10, 250, 600)),
    *("+".join(f"x^{{{k}}}" for k in range(n)) for n in (5, 60, 300)),
    *(f"(x+1)^{{{n}}}(y+1)^{{{n}}}" for n in (5, 60, 300, 10**9)), *("x" * n for n in (2, 100, 100_000)),
    *("\\text{" * n for n in (1, 300, 20_000)), *(f"\\binom{{{n}}}{{{n // 2}}}" for n in (10, 10**4, 10**9)),
    *("1 " * n for n in (2, 300, 50_000)), *("=" * n for n in (1, 300)), *("x<" * n + "1" for n in (1, 3, 200)),
    *("|" * n for n in (1, 2, 3, 400)), *("\\pm " * n + "1" for n in (1, 2, 3, 60)),
    *("\\cup".join(f"({k},{k + 1})" for k in range(n)) for n in (2, 40)), "\0", "1\0", "\0" * 100, "\ud800",
    "1\ud800", "«", "»", "«1»", "⏎", "¤", "\u202e1", "１２³⁴", "1e999", "1e-999", "0/0", "1/0", r"\frac{1}{0}",
    r"\sqrt{-1}", r"\log_1 5", r"\ln 0", r"0^{0}", r"0^{-1}", r"\tan 90^\circ", r"\arcsin 2", r"(-1)^{1/2}",
    r"\int_0^1 \frac{\sin(x^7)}{\log(1+x^9)} dx", r"\sum_{n=1}^{99999999} \frac{1}{n^3}",
    r"\lim_{x \to \infty} x^{x^{x}}", r"\begin{pmatrix}" + "&".join("1" * 9 for _ in range(100)) + r"\end{pmatrix}",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"e^{e^{e^{e^{9}}}}", r"10^{10^{10}}", r"\sin(10^{10^{8}})",
    r"99999999^{99999999}", r"(1+10^{-9})^{10^{9}}", "!" * 500,
]
# fmt: on


def test_there_are_enough_hostile_answers():
    assert len(HOSTILE) >= 200
    assert max(Counter(HOSTILE).values()) <= 3


def test_hostile_answers_cost_little_and_are_nothing_else():
    grader = MathGrader()
    for answer in HOSTILE:
        start = time.process_time()
        assert grader.correct(answer, "12345.678") is not True, answer[:80]
        assert grader.compare("\\sqrt{7}", answer) is not Verdict.SAME, answer[:80]
        assert grader.compare(answer, answer) in (Verdict.SAME, Verdict.DIFFERENT)
        assert time.process_time() - start < 3, answer[:80]
    assert grader.correct("0.5", "\\frac{1}{2}"), "the next answer is graded as ever"
    grader.close()
