"""Plain grading."""

import time

import pytest

from search.answers.graders import Grader, IntegerGrader, PlainGrader, canonical_answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,234", "1234"),
        ("1{,}234,567.50", "1234567.5"),
        ("+7", "7"),
        ("007", "7"),
        ("5.0", "5"),
        ("5.", "5"),
        (".5", "0.5"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("-3.10", "-3.1"),
        ("$18", "18"),
        (r"\$18.00", "18"),
        ("$18$", "18"),
        (r"\(18\)", "18"),
        ("50%", "50"),
        (r"50\%", "50"),
        (" x + 1 ", "x+1"),
        (r"\frac{1}{2}\,", r"\frac{1}{2}"),
        ("9" * 5000, "9" * 5000 + ".000"),
    ],
)
def test_equal_answers(one, other):
    assert canonical_answer(one) == canonical_answer(other)
    assert PlainGrader().correct(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1,23", "123"), ("12", "1.2"), ("7", "-7"), ("1/2", "2"), ("x", "X"), ("5", "5 apples"), ("1,234,56", "123456")],
)
def test_unequal_answers(one, other):
    assert not PlainGrader().correct(one, other)


def test_plain_grading_of_no_answer_and_of_whole_references():
    grader = PlainGrader()
    assert isinstance(grader, Grader)
    assert not grader.correct(None, "5")
    assert not grader.correct("", "")
    assert not grader.correct("$", "%")
    assert grader.correct("72", "He sells 48 / 2 = 24.\n#### 72")
    assert not grader.correct("48", "He sells 48 / 2 = 24.\n#### 72")


def test_integers_are_exact():
    grader = IntegerGrader()
    assert isinstance(grader, Grader)
    assert grader.correct(" 0042 ", "42")
    assert grader.correct("-0", "0")
    assert grader.key("+05") == grader.key("5") == "5"
    for wrong in ("42.0", "4 2", "42 apples", "4,2", "²", "٤٢", "", "-", None):
        assert not grader.correct(wrong, "42")
    assert not grader.correct("a", "a")
    assert grader.correct("9" * 10_000, "9" * 10_000)


HOSTILE = {
    "open braces": ("", "{", ""),
    "open boxes": ("", r"\boxed{", ""),
    "closing braces": (r"\boxed{", "}", ""),
    "spaces": (r"The answer is \boxed", " ", ""),
    "backslashes": (r"\boxed{", "\\", ""),
    "phrases": ("", "answer is ", ""),
    "hashes": ("", "#", ""),
    "digits": ("The answer is ", "9", ""),
    "thousands": (r"\boxed{1", ",000", "}"),
}
"""What comes first, what is repeated, what comes last."""


@pytest.mark.parametrize("megabytes", [2, pytest.param(10, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_megabytes_take_linear_time(name, megabytes):
    first, piece, last = HOSTILE[name]
    text = first + piece * (megabytes * 1_000_000 // len(piece)) + last
    start = time.process_time()
    assert not PlainGrader().correct(text, "1")
    assert not IntegerGrader().correct(text, "1")
    # Anything quadratic would take many minutes.
    assert time.process_time() - start < 2 * megabytes
