"""The mathematical grader's process: limits, restarts, threads, votes; the cases are in tests/golden."""

import os
import signal
import sys
import threading
import time

import pytest

from search.errors import ConfigError
from search.grade import ComparingGrader, Grader
from search.math_grade import MathGrader
from search.registry import make_grader
from search.vote import Candidate, vote


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


def test_an_endless_comparison_is_counted_and_the_next_one_is_not_harmed():
    with_limit = MathGrader(cpu_seconds=0.2)
    assert with_limit.correct("9^{9^{9^{9}}}", "\\frac{1}{2}") is False
    assert with_limit.num_undecided == 1
    assert with_limit.correct("0.5", "\\frac{1}{2}") is True and with_limit.num_undecided == 1
    with_limit.close()


def test_hostile_answers_cost_a_vote_their_number_and_not_its_square():
    made = MathGrader(cpu_seconds=0.1)
    answers = [f"{n}^{{9^{{9^{{9}}}}}}" for n in range(11, 19)]
    voters = [Candidate(node, answer, 0.5, made.key(answer)) for node, answer in enumerate([*answers, "4", "x=4"])]
    start = time.perf_counter()
    outcome = vote(voters, "majority", made.equivalent)
    assert time.perf_counter() - start < 15, "45 comparisons are given up, but few are waited for"
    assert outcome.answer == "4" and outcome.classes[0].weight == 2, "who met a hostile answer is not the worse for it"
    assert made._hopeless == {made.key(answer) for answer in answers}
    made.close()


def test_a_worker_that_was_killed_is_started_again(grader):
    assert grader.correct("0.5", "\\frac{1}{2}")
    before = grader.num_undecided
    os.kill(grader._worker._process.pid, signal.SIGKILL)
    grader._worker._process.wait()
    grader.correct("0.25", "\\frac{1}{4}")
    assert grader.correct("0.25", "\\frac{1}{4}") and grader.num_undecided <= before + 1


def test_after_close_it_works_again_and_leaves_no_process():
    made = MathGrader()
    assert made.correct("0.5", "\\frac{1}{2}")
    process = made._worker._process
    made.close()
    assert process.returncode is not None
    assert made.correct("0.5", "\\frac{1}{2}")
    made.close()
    made.close()


def test_many_threads_share_it(grader):
    wrong = []

    def work(number):
        for step in range(10):
            value = number * 10 + step
            if not grader.correct(f"\\frac{{{2 * value}}}{{2}}", f"x={value}") or grader.correct(
                f"{value}+1", str(value)
            ):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("search.math_grade.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install math-verify"):
        MathGrader()


def test_without_fork_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="can fork"):
        MathGrader()


def test_equivalent_answers_are_one_class_in_a_vote(grader):
    answers = ["\\frac{1}{2}", "3", "0.5", "3", "1/2", "x = \\frac{2}{4}"]
    voters = [
        Candidate(node, answer, 0.5, grader.key(answer))
        for node, answer in enumerate(answers)  # type: ignore[arg-type]
    ]
    outcome = vote(voters, "majority", grader.equivalent)
    assert [(one.answer, one.weight) for one in outcome.classes] == [("\\frac{1}{2}", 4.0), ("3", 2.0)]
    assert vote(voters, "majority").classes[0].weight < 4, "by their text alone they are not"


def test_a_search_closes_its_grader():
    from search.api import Search

    with Search(grader=MathGrader(), prm=None, method="chain", width=1) as search:
        search.solve("Ben has 13 coins. He gives 4 away. How many coins are left in the end?")
        assert search.grader.correct("0.5", "\\frac{1}{2}")
        process = search.grader._worker._process
    assert process.returncode is not None
