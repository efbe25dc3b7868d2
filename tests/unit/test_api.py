"""The Python API over fake engines: parts of one's own, sync and async, many at once, failures, re-use."""

import asyncio
import threading

import pytest
from fake_engine import FakeEngine, Fault
from markov import LabelModel

from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search import ConfigError, Failure, Problem, Search
from search.errors import ScoringError
from search.loop.writer import ModelWriter
from search.policies import Beam
from search.types import Expansion, Selection

QUESTION = "Add 3."


def scorer(**options):
    engine = FakeEngine(LabelModel(), **options)
    return PrmScorer(engine, LabelTokenCodec(engine.tokenizer, PrmConfig()))


def make(**options):
    return Search(**{"policy": FakeEngine(), "prm": scorer(), "width": 6, **options})


def test_sync_and_async_give_the_same():
    with make() as search:
        first = search.solve(QUESTION)
        second = asyncio.run(search.asolve(QUESTION))
    assert first.answer == second.answer and first.trajectories == second.trajectories
    assert first.stats.computed_tokens == second.stats.computed_tokens
    assert first.correct is None and first.method == "ets" and first.width == 6


def test_an_engine_that_is_given_is_taken_and_its_model_not_looked_for():
    with Search(policy="owner/nowhere", prm="none", method="best-of-n", width=2) as search:
        search.use(FakeEngine(), None)
        assert search.solve(QUESTION).trajectories


def test_solving_from_inside_a_running_loop_as_in_a_notebook():
    async def cell():
        with make() as search:
            return search.solve(QUESTION)

    assert asyncio.run(cell()).trajectories


def test_the_winner_is_one_of_the_trajectories_and_the_tally_adds_up():
    with make(width=16) as search:
        result = search.solve(Problem("p", QUESTION, "4"))
    assert result.text in {one.text for one in result.trajectories}
    rewards = sum(one.reward for one in result.trajectories if one.answer is not None)
    assert sum(result.tally.values()) == pytest.approx(rewards)
    assert next(iter(result.tally)) == result.answer and result.correct == (result.answer == "4")


def test_many_problems_each_once_whatever_the_concurrency():
    problems = [Problem(str(i), QUESTION, "4") for i in range(9)]
    answers = []
    for concurrency in (1, 4, 32):
        with make() as search:
            results = {result.problem.id: result.answer for result in search.solve_many(problems, concurrency)}
        assert sorted(results) == sorted(problem.id for problem in problems)
        answers.append(results)
    assert answers[0] == answers[1] == answers[2]


def test_never_more_problems_at_once_than_asked_for():
    engine = FakeEngine(seconds_per_call=0.002)
    with make(policy=engine) as search:
        list(search.solve_many([Problem(str(i), QUESTION) for i in range(8)], concurrency=2))
    order = [call.prefix.tree.partition("#")[0] for call in engine.calls]
    first = {tree: order.index(tree) for tree in order}
    last = {tree: len(order) - 1 - order[::-1].index(tree) for tree in order}
    assert all(sum(first[t] <= at <= last[t] for t in first) <= 2 for at in range(len(order)))


def test_a_problem_that_breaks_is_a_failure_and_the_others_go_on():
    with make(prm=scorer(faults=[Fault("label_logprobs", 1, kind="nan")])) as search:
        results = list(search.solve_many([Problem(str(i), QUESTION) for i in range(3)], concurrency=1))
    failures = [result for result in results if isinstance(result, Failure)]
    assert len(failures) == 1 and isinstance(failures[0].error, ScoringError) and len(results) == 3


def test_leaving_the_iterator_early_stops_what_runs():
    engine = FakeEngine(seconds_per_token=0.002)
    with make(policy=engine) as search:
        for _ in search.solve_many((Problem(str(i), QUESTION) for i in range(1000)), concurrency=2):
            break
    assert len({call.prefix.tree for call in engine.calls}) < 20


def test_without_a_reward_model_the_vote_is_by_majority():
    with make(prm=None, method="best-of-n") as search:
        result = search.solve(QUESTION)
    assert search.settings.vote == "majority" and all(one.reward is None for one in result.trajectories)


def test_a_policy_of_ones_own():
    class First:
        name = "first"
        pace = "level"
        features = frozenset()

        def select(self, tree, width, rng):
            return Selection((Expansion(tree.leaves()[0].id, width),))

    with make(method=First()) as search:
        result = search.solve(QUESTION)
    assert result.method == "first" and any(n.reason == "first: not selected" for n in result.tree)


def test_a_writer_of_ones_own():
    with make(policy=ModelWriter(FakeEngine(), "mine")) as search:
        assert {node.writer for node in search.solve(QUESTION).tree} == {"", "mine"}


def test_greedy_is_one_path_at_temperature_zero():
    with make(method="greedy", width=1) as search:
        first, second = search.solve(QUESTION), search.solve(Problem("other id", QUESTION))
    assert search.settings.temperature == 0
    assert [n.ids for n in first.tree] == [n.ids for n in second.tree]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rebas"}, "unknown method 'rebas'"),
        ({"width": 0}, "width = 0"),
        ({"widht": 3}, "unknown setting 'widht'"),
        ({"prm": None, "vote": "best"}, "vote best needs a reward model"),
        ({"options": {"heat": 1}}, "no option 'heat'"),
        ({"grader": "maths"}, "grader = 'maths'"),
        ({"grader": object()}, "grader must be str or Grader or None, not <object"),
        ({"prm": 3}, "prm must be str or Scorer or None, not 3"),
        ({"method": Problem}, "method must be str or Policy, not <class"),
        ({"policy": None}, "policy must be str or Engine or Writer, not None"),
    ],
)
def test_wrong_arguments_are_said_when_they_are_given(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_wrong_calls():
    with make() as search:
        with pytest.raises(ConfigError, match="the problem is empty"):
            search.solve("  ")
        with pytest.raises(ConfigError, match="concurrency 0"):
            list(search.solve_many([], concurrency=0))


def test_own_policies_keep_their_own_options():
    with make(method=Beam(num_keep=1), width=4) as search:
        result = search.solve(QUESTION)
    assert all(len(one.kept) == 1 for one in result.selections)


def test_closing_ends_the_thread_and_a_closed_search_works_again():
    search = make()
    search.solve(QUESTION)
    search.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "search"]


def test_a_generator_of_problems_may_itself_solve():
    with make() as search:

        def asked():
            for i in range(3):
                yield Problem(str(i), search.solve(QUESTION).problem.text)

        assert len(list(search.solve_many(asked(), concurrency=2))) == 3


def test_settings_and_arguments_do_not_mix():
    from search import SearchSettings

    with pytest.raises(ConfigError, match="not both"):
        Search(settings=SearchSettings(), width=3)
    with pytest.raises(ConfigError, match="not both"):
        Search(settings=SearchSettings(), seed=3)


def test_a_problem_that_is_no_unicode_is_refused():
    with make() as search, pytest.raises(ConfigError, match="not valid Unicode"):
        search.solve("caf\udcff")
