"""The mathematical grader: its verdicts, its process, threads, votes; the cases are in tests/golden."""

import os
import signal
import sys
import threading
import time

import pytest

from search.answers.graders import ComparingGrader, Grader
from search.answers.mathematical import MathGrader
from search.answers.values import Verdict
from search.decision.vote import Candidate, vote
from search.errors import ConfigError
from search.setup.registry import make_grader

INTEGRAL = ("\\int_0^1 x^2 dx", "\\int_0^1 y^2 dy")
"""What only math-verify can read."""


@pytest.fixture(scope="module")
def grader():
    made = MathGrader()
    yield made
    made.close()


def test_it_is_a_grader_that_compares(grader):
    assert isinstance(grader, Grader) and isinstance(grader, ComparingGrader)
    made = make_grader("math")
    assert made.name == "math"
    with pytest.raises(ConfigError, match="unknown grader 'maths'"):
        make_grader("maths")


def test_a_verdict_has_three_values_and_no_truth():
    with pytest.raises(TypeError, match="three values"):
        bool(Verdict.DIFFERENT)


def test_what_takes_too_much_work_is_undecided_and_counted():
    made = MathGrader()
    assert made.correct("9^{9^{9^{9}}}", "\\frac{1}{2}") is None
    assert made.num_undecided == 1
    assert made.correct("9^{9^{9^{9}}}", "9^{9^{9^{9}}}") is True, "the same text is the same"
    assert made.correct("0.5", "\\frac{1}{2}") is True and made.num_undecided == 1
    assert made.equivalent("9^{9^{9^{9}}}", "7") is False, "a vote does not merge what is undecided"
    assert made.num_symbolic == 0


def test_formulas_that_are_not_read_are_put_to_math_verify(grader):
    before = grader.num_symbolic
    assert grader.correct("\\int_0^1 x^2 dx", "\\frac{1}{3}") is True
    assert grader.correct("\\int_0^1 x^2 dx", "\\frac{1}{2}") is False
    assert grader.correct("\\sum_{n=1}^{4} n", "10") is True
    assert grader.num_symbolic == before + 3
    assert grader.correct("\\int_0^1 x^2 dx", "\\frac{1}{3}") is True
    assert grader.num_symbolic == before + 3, "what was asked once is kept"


def test_its_word_counts_only_where_both_sides_were_read_to_the_end(grader):
    for one, other in (
        ("\\int_0^1 x^2 dx \\spadesuit 5", "\\frac{1}{3}"),
        ("\\lim_{x \\to 0} x, 7", "0"),
        ("\\frac{1}{3} \\qed \\int", "\\frac{1}{3}"),
    ):
        assert grader.correct(one, other) is False


def test_a_worker_that_was_killed_is_replaced(grader):
    assert grader.correct(*INTEGRAL) is not None
    os.kill(grader._symbolic._worker._process.pid, signal.SIGKILL)
    grader._symbolic._worker._process.wait()
    assert grader.correct("\\int_0^1 x^3 dx", "\\frac{1}{4}") is True


def test_after_close_it_works_again_and_leaves_no_process():
    made = MathGrader()
    assert made.correct("\\int_0^1 x^2 dx", "1/3")
    process = made._symbolic._worker._process
    made.close()
    assert process.returncode is not None
    assert made.correct("\\int_0^2 x dx", "2")
    made.close()
    made.close()


def test_many_threads_share_it(grader):
    wrong = []

    def work(number):
        for step in range(10):
            value = number * 10 + step + 1
            if not grader.correct(f"\\sqrt{{{2 * value * value}}}", f"x={value}\\sqrt2") or grader.correct(
                f"{value}\\sqrt2+1", f"{value}\\sqrt2"
            ):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("search.answers.symbolic.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install math-verify"):
        MathGrader()


def test_without_fork_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="can fork"):
        MathGrader()


def candidates(grader, answers):
    return [Candidate(node, answer, 0.5, grader.key(answer)) for node, answer in enumerate(answers)]


def test_equivalent_answers_are_one_class_in_a_vote(grader):
    voters = candidates(grader, ["\\frac{1}{2}", "3", "0.5", "3", "1/2", "x = \\frac{2}{4}"])
    outcome = vote(voters, "majority", grader.equivalent)
    assert [(one.answer, one.weight) for one in outcome.classes] == [("\\frac{1}{2}", 4.0), ("3", 2.0)]
    assert vote(voters, "majority").classes[0].weight < 4, "by their text alone they are not"


def test_hostile_answers_do_not_hold_up_a_vote(grader):
    answers = [f"{n}^{{9^{{9^{{9}}}}}}" for n in range(11, 41)]
    start = time.perf_counter()
    outcome = vote(candidates(grader, [*answers, "4", "x=4"]), "majority", grader.equivalent)
    assert time.perf_counter() - start < 10
    assert outcome.answer == "4" and outcome.classes[0].weight == 2, "who met a hostile answer is not the worse for it"


def test_a_search_closes_its_grader():
    from search.api import Search

    with Search(grader=MathGrader(), prm=None, method="chain", width=1) as search:
        search.solve("Ben has 13 coins. He gives 4 away. How many coins are left in the end?")
        assert search.grader.correct("\\int_0^1 x^2 dx", "1/3")
        process = search.grader._symbolic._worker._process
    assert process.returncode is not None
