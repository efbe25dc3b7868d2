"""The mathematical grader takes any text: no exception, and no hang over a second."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.answers.mathematical import MathGrader

WORDS = [
    "\\boxed{",
    "{",
    "}",
    "\\frac",
    "\\sqrt",
    "\\left(",
    "\\right)",
    "[",
    ")",
    "(",
    "]",
    ",",
    "\\{",
    "\\}",
    "^",
    "_",
]
MORE = [
    "1",
    "2",
    "9",
    "00",
    "x",
    "y",
    "+",
    "-",
    "*",
    "/",
    "=",
    "<",
    "\\cup",
    "\\infty",
    "\\pi",
    "\\text{cm}",
    "%",
    "\\%",
]
ODD = [
    "$",
    "!",
    "\\int",
    "\\sum",
    "\\lim",
    "\\log",
    "\\begin{pmatrix}",
    "\\\\",
    "&",
    "\\end{pmatrix}",
    "i",
    "e",
    "é",
    "\ud800",
]
FORMULAS = st.lists(st.sampled_from([*WORDS, *MORE, *ODD]), max_size=12).map("".join)
TEXTS = st.one_of(st.text(max_size=60), FORMULAS)

HOSTILE = [
    "9^{9^{9^{9}}}",
    "99999999^{99999999}",
    "10^{10^{10}}",
    "(" * 400 + "1" + ")" * 400,
    "\\frac{" * 200 + "1" + "}{2}" * 200,
    "\\sqrt{" * 100 + "2" + "}" * 100,
    "+".join(f"x^{{{n}}}" for n in range(150)),
    "(x+1)^{300}(y+1)^{300}",
    "1" * 900,
    "99999999!",
    "\\int_0^1 \\frac{\\sin(x^7)}{\\log(1+x^9)} dx",
    "\\sum_{n=1}^{99999999} \\frac{1}{n^3}",
    "\\{" + ",".join(map(str, range(250))) + "\\}",
    "\\binom{99999999}{49999999}",
    "a" * 100_000,
    "{" * 100_000,
    "1," * 50_000,
    "\\text{" * 20_000,
    "1 " + "a/" * 40_000,
]


@pytest.fixture(scope="module")
def grader():
    made = MathGrader()
    made.correct("x", "y")
    yield made
    made.close()


@given(TEXTS, TEXTS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
def test_any_text_is_taken(grader, text, reference):
    answer = grader.extract(text)
    for one in (answer, text):
        assert grader.correct(one, reference) in (True, False, None)
    assert grader.compare(text, reference) is grader.compare(reference, text)
    assert grader.equivalent(text, text) is (grader.key(text) != "")


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_expression_costs_little(grader, number):
    start = time.process_time()
    assert grader.correct(HOSTILE[number], "2") is not True
    assert time.process_time() - start < 3
    assert grader.correct("\\frac{1}{2}", "0.5"), "the next answer is graded as ever"


@given(st.fractions())
@settings(deadline=None, max_examples=60)
def test_a_fraction_is_itself_in_every_writing(grader, value):
    top, bottom = value.numerator, value.denominator
    written = f"\\frac{{{top}}}{{{bottom}}}"
    assert grader.correct(f"{top}/{bottom}", written)
    assert grader.correct(f"\\frac{{{3 * top}}}{{{3 * bottom}}}", written)
    assert not grader.correct(f"\\frac{{{top + bottom}}}{{{bottom}}}", written)
