"""Extraction and grading take any text."""

from hypothesis import given
from hypothesis import strategies as st

from search.answers import read_answer
from search.answers.graders import IntegerGrader, PlainGrader

WORDS = ["\\boxed{", "\\boxed", "{", "}", "\\", "\\{", "\\}", "####", "The answer is", ":", ".", "$", "%", ",", "{,}"]
MORE = ["1", "000", "-", "+", " ", "\n", "x", "\\frac", "é", "\x00", "\ud800", "٣"]
PIECES = st.sampled_from([*WORDS, *MORE])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))


@given(TEXTS, TEXTS)
def test_any_text_is_taken(text, reference):
    answer = read_answer(text)
    assert answer is None or answer == answer.strip() != ""
    for grader in (PlainGrader(), IntegerGrader()):
        assert isinstance(grader.correct(answer, reference), bool)
        assert isinstance(grader.correct(text, reference), bool)
        grader.key(text)


@given(st.integers(), st.sampled_from(["{}", "{}.0", " {} ", "${}$", "{}%", "+{}"]))
def test_numbers_are_found_in_boxes_and_graded_by_value(number, form):
    if form == "+{}" and number < 0:
        return
    text = f"So \\boxed{{1}} was wrong: \\boxed{{{form.format(number)}}} is right."
    answer = read_answer(text)
    assert PlainGrader().correct(answer, f"{number:,}")
    assert not PlainGrader().correct(answer, str(number + 1))


@given(st.recursive(st.just("x"), lambda inner: st.builds("{{{}{}}}".format, inner, inner), max_leaves=30))
def test_braces_nest_as_deep_as_may_be(content):
    assert read_answer(f"a \\boxed{{{content}}} }} b") == content
