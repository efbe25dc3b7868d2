from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.mini.checker import answer_of, check_steps, split_steps
from search.mini.problems import problem
from search.mini.tokenizer import EOS_TOKEN, PAD_TOKEN, decode, encode
from search.mini.wording import WORDINGS

WORDS = st.sampled_from(
    [
        *(word for wording in WORDINGS for word in wording.template.split()),
        *[
            "She",
            "He",
            "Ann",
            "first",
            "other",
            "the",
            "now",
            "so",
            "then",
            "x",
            "+",
            "-",
            "=",
            ",",
            ".",
            "0",
            "7",
            "12",
            "999999999999",
            "The",
            "answer",
            "is",
            "\\boxed{",
            "}.",
            "\n\n",
        ],
    ]
)
TEXTS = st.one_of(st.text(), st.lists(WORDS).map(" ".join))


@settings(deadline=None)
@given(st.integers(0, 20), st.lists(TEXTS, max_size=6))
def test_any_text_gets_a_verdict(index: int, steps: list[str]) -> None:
    verdict = check_steps(problem("dev", index), steps)
    assert len(verdict.steps) == len(steps)
    assert sum(step.so_far for step in verdict.steps) <= sum(step.right for step in verdict.steps)
    for step in verdict.steps:
        assert step.right == (step.fault is None)
        assert step.right or not step.so_far


@settings(deadline=None)
@given(TEXTS)
def test_any_text_can_be_cut_and_read(text: str) -> None:
    assert all(step.strip() for step in split_steps(text))
    answer = answer_of(text)
    assert answer is None or answer.isdigit()


@settings(deadline=None)
@given(st.text())
def test_any_text_round_trips_through_the_tokenizer(text: str) -> None:
    assume(EOS_TOKEN not in text and PAD_TOKEN not in text)
    assert decode(encode(text)) == text
