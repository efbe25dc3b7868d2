import random
from collections import Counter
from dataclasses import asdict

import pytest

from search.mini.checker import Fault, answer_of, check_steps, split_steps
from search.mini.problems import MiniProblem, Operation, problems
from search.mini.solutions import (
    CLEAN_RATES,
    DRAFT_RATES,
    TARGET_RATES,
    SlipRates,
    write_solution,
)
from search.mini.wording import WORDING_OF_VERB


def story(start: int, *ops: tuple[str, int], answer: int) -> MiniProblem:
    operations = tuple(Operation(WORDING_OF_VERB[verb], number) for verb, number in ops)
    return MiniProblem("x", "", str(answer), "dev", 0, "Ann", start, operations)


STORY = story(35, ("buys", 19), ("drops", 12), ("swaps", 2), answer=84)
RIGHT = [
    "She buys 19 more, first 10, now 35 + 10 = 45.",
    "Ann buys the other 9, so 45 + 9 = 54.",
    "She drops 12, then 54 - 12 = 42.",
    "She swaps each for 2, first 40 x 2 = 80.",
    "She swaps the other 2, 2 x 2 = 4, now 80 + 4 = 84.",
    "The answer is \\boxed{84}.",
]


def faults(steps: list[str], found: MiniProblem = STORY) -> list[Fault | None]:
    return [step.fault for step in check_steps(found, steps).steps]


def test_a_right_solution_is_right_step_by_step() -> None:
    verdict = check_steps(STORY, RIGHT)
    assert all(step.right and step.so_far for step in verdict.steps)
    assert verdict.answer == "84"
    assert verdict.correct
    assert verdict.steps[-1].is_answer


def test_a_direct_path_is_right_as_well() -> None:
    steps = ["She buys 19 more, now 35 + 19 = 54.", RIGHT[2], "Ann swaps each for 2, so 42 x 2 = 84.", RIGHT[5]]
    assert check_steps(STORY, steps).correct


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("She buys 19 more, now 35 + 19 = 44.", Fault.CARRY),
        ("She buys 19 more, now 35 + 19 = 55.", Fault.NOISE),
        ("She buys 19 more, now 35 + 19 = 99.", Fault.ARITHMETIC),
        ("She buys 19 more, now 36 + 19 = 55.", Fault.COPY),
        ("She buys 18 more, now 35 + 18 = 53.", Fault.COPY),
        ("She finds 19 more, now 35 + 19 = 54.", Fault.COPY),
        ("She buys 19 more, first 9, now 35 + 9 = 44.", Fault.COPY),
        ("She buys the other 9, now 35 + 9 = 44.", Fault.ORDER),
        ("She drops 12, now 35 - 12 = 23.", Fault.ORDER),
        ("He buys 19 more, now 35 + 19 = 54.", Fault.FORMAT),
        ("The answer is \\boxed{35}.", Fault.ORDER),
        ("", Fault.FORMAT),
        ("She buys 19 more, now 35 + 19 = 54", Fault.FORMAT),
    ],
)
def test_a_wrong_first_step_is_told_by_its_fault(step: str, fault: Fault) -> None:
    assert faults([step]) == [fault]


def test_traps_are_told_by_name() -> None:
    found = story(20, ("drops", 5), ("makes", 3), answer=45)
    assert faults(["She drops 5, now 20 + 5 = 25."], found) == [Fault.DROP]
    steps = ["She drops 5, now 20 - 5 = 15.", "She makes 3 times as many, so 15 + 3 = 18."]
    assert faults(steps, found) == [None, Fault.MAKE]


def test_borrow_and_table_slips_are_told_by_name() -> None:
    found = story(42, ("sells", 19), ("cuts", 4), answer=92)
    steps = ["She sells 19, now 42 - 19 = 33.", "She cuts each into 4, now 33 x 4 = 99."]
    assert faults(steps, found) == [Fault.BORROW, Fault.TABLE]


def test_a_forgotten_half_makes_the_next_step_wrong() -> None:
    steps = [RIGHT[0], "She drops 12, then 45 - 12 = 33.", "She swaps each for 2, now 33 x 2 = 66."]
    assert faults(steps) == [None, Fault.FORGET, None]
    assert faults([*steps[:1], "The answer is \\boxed{45}."]) == [None, Fault.FORGET]


def test_after_an_error_a_consistent_step_is_right_but_its_path_is_not() -> None:
    steps = ["She buys 19 more, now 35 + 19 = 44.", "She drops 12, now 44 - 12 = 32."]
    last = check_steps(STORY, steps).steps[-1]
    assert last.right
    assert not last.so_far


def test_nothing_comes_after_the_answer() -> None:
    assert faults([*RIGHT, RIGHT[5]])[-1] is Fault.FORMAT
    assert faults([*RIGHT, RIGHT[2]])[-1] is Fault.FORMAT


def test_a_wrong_statement_of_the_answer() -> None:
    verdict = check_steps(STORY, [*RIGHT[:-1], "The answer is \\boxed{48}."])
    assert verdict.steps[-1].fault is Fault.ANSWER
    assert not verdict.correct


def test_a_repeated_step_is_out_of_order() -> None:
    assert faults(["She buys 19 more, now 35 + 19 = 54.", "She buys 19 more, now 54 + 19 = 73."])[1] is Fault.ORDER


def test_separators_and_answers() -> None:
    assert split_steps("a\n\nb\n\n") == ["a", "b"]
    assert answer_of("The answer is \\boxed{04}.") == "4"
    assert answer_of("The answer is") is None


@pytest.mark.parametrize("rates", [CLEAN_RATES, TARGET_RATES, DRAFT_RATES, SlipRates(*[0.4] * 9)])
def test_the_checker_finds_the_labels_of_the_corpus(rates: SlipRates) -> None:
    rng = random.Random(3)
    seen: Counter[Fault | None] = Counter()
    for found in problems("dev", 150):
        solution = write_solution(found, rng, rates)
        assert len(solution.steps) <= 10
        assert len(solution.steps) >= 4 or rates.skip > 0
        verdict = check_steps(found, [step.text for step in solution.steps])
        assert [step.right for step in verdict.steps] == [step.right for step in solution.steps]
        assert verdict.answer == str(solution.answer)
        for written, read in zip(solution.steps, verdict.steps, strict=True):
            seen[written.slip] += 1
            if written.slip not in (None, Fault.NOISE, Fault.SKIP):
                assert read.fault is not None
                assert read.fault.value == written.slip
    slips = {Fault(name) for name, rate in asdict(rates).items() if rate > 0}
    assert {slip for slip in seen if slip is not None} == slips


def test_clean_solutions_reach_the_answer() -> None:
    rng = random.Random(4)
    assert all(str(write_solution(p, rng, CLEAN_RATES).answer) == p.answer for p in problems("dev-hard", 60))
