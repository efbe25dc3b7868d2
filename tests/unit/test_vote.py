"""Votes worked by hand."""

import math

import pytest

from search.answers.graders import PlainGrader
from search.decision.vote import Candidate, candidates, vote
from search.errors import ConfigError
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Step


def c(node, answer, reward=None, key=None):
    return Candidate(NodeId(node), answer, reward, key)


# 7 has three voices of 0.2 each, 5 two of 0.5 and 0.4, 9 one of 0.8; one trajectory is silent.
VOTERS = [
    c(1, "7", 0.2),
    c(2, "5", 0.5),
    c(3, "7", 0.2),
    c(4, None, 1.0),
    c(5, "9", 0.8),
    c(6, "7", 0.2),
    c(7, "5", 0.4),
]


def test_the_rules_differ():
    majority = vote(VOTERS, "majority")
    assert (majority.answer, majority.tally) == ("7", {"7": 3, "5": 2, "9": 1})
    weighted = vote(VOTERS, "weighted")
    assert weighted.answer == "5"
    assert weighted.tally == pytest.approx({"5": 0.9, "9": 0.8, "7": 0.6})
    assert list(weighted.tally) == ["5", "9", "7"]
    best = vote(VOTERS, "best")
    assert (best.answer, best.tally) == ("9", {"9": 0.8, "5": 0.5, "7": 0.2})
    assert weighted.winner == 2
    assert weighted.num_silent == 1


@pytest.mark.parametrize("rule", ["majority", "weighted", "normalised", "best"])
def test_ties_go_to_the_lowest_node_whatever_the_order(rule):
    voters = [c(3, "b", 0.5), c(2, "a", 0.5), c(9, "a", 0.5), c(8, "b", 0.5)]
    for passed in (voters, voters[::-1]):
        outcome = vote(passed, rule)
        assert outcome.answer == "a"
        assert outcome.winner == 2
        assert outcome.classes[0].nodes == (2, 9)


def test_normalised_weighs_how_far_a_reward_stands_out_in_its_problem():
    low, high = math.exp(-0.5), math.exp(0.5)
    assert vote([c(1, "a", 0.9), c(2, "b", 0.1), c(3, None, 0.5)], "normalised").tally == {"a": high, "b": low}
    # Sure or unsure, high or low: what counts is the order, and by how much of the spread.
    assert vote([c(1, "a", 0.11), c(2, "b", 0.1)], "normalised").tally == pytest.approx({"a": high, "b": low})
    assert vote([c(1, "a", 1.0), c(2, "b", 0.0)], "normalised").tally == pytest.approx({"a": high, "b": low})
    assert vote([c(1, "a", 0.4), c(2, "b", 0.4), c(3, "b", 0.4)], "normalised").tally == {"b": 2.0, "a": 1.0}
    # One that stands out outweighs two that do not, and not many.
    assert vote([c(1, "a", 0.9), c(2, "b", 0.3), c(3, "b", 0.3)], "weighted").answer == "a"
    assert vote([c(1, "a", 0.9), c(2, "b", 0.3), c(3, "b", 0.3)], "normalised").answer == "a"
    assert vote([c(1, "a", 0.9), *(c(n, "b", 0.3) for n in range(2, 6))], "normalised").answer == "b"


def test_the_sum_of_weights_does_not_depend_on_the_order():
    # 0.1 + 0.2 + 0.3 is not 0.6 in floats when added one by one.
    voters = [c(1, "a", 0.1), c(2, "a", 0.2), c(3, "a", 0.3), c(4, "b", 0.6)]
    assert vote(voters, "weighted").answer == "a"
    assert vote(voters[::-1], "weighted").answer == "a"


def test_equal_keys_are_one_answer_in_its_first_writing():
    voters = [c(1, "5", 0.1, "5"), c(2, "1,000", 0.3, "1000"), c(3, "1000.0", 0.2, "1000")]
    outcome = vote(voters, "majority")
    assert outcome.tally == {"1,000": 2, "5": 1}


def test_answers_may_be_equivalent_without_equal_keys():
    voters = [c(1, "1/2"), c(2, "0.5"), c(3, "2"), c(4, "0.5")]
    outcome = vote(voters, "majority", lambda a, b: {a, b} == {"1/2", "0.5"})
    assert outcome.tally == {"1/2": 3, "2": 1}
    assert outcome.classes[0].nodes == (1, 2, 4)


def test_nobody_or_silence():
    assert vote([], "weighted").answer is None
    outcome = vote([c(1, None), c(2, None)], "weighted")
    assert (outcome.answer, outcome.winner, outcome.num_silent) == (None, None, 2)


def test_rules_that_need_rewards_say_so():
    for rule in ("weighted", "normalised", "best"):
        with pytest.raises(ConfigError, match="trajectory 2 has none"):
            vote([c(1, "a", 0.5), c(2, "b")], rule)
    assert vote([c(1, "a"), c(2, "b"), c(3, "b")], "majority").answer == "b"
    with pytest.raises(ConfigError, match="majority, weighted, normalised, best, not 'mean'"):
        vote([], "mean")  # type: ignore[arg-type]


def test_candidates_of_a_tree_are_its_finished_trajectories():
    tree = SearchTree("t", (1,), "prompt: the answer is 3")

    def write(parent, text, reward):
        node = tree.add_child(parent)
        tree.write(Step(node, (2,), text, FinishReason.STOP, "m"))
        if reward is not None:
            tree.set_reward(node, reward)
        return node

    step = write(ROOT, "Add.\n\n", 0.5)
    good = write(step, r"The answer is \boxed{07}.", 0.8)
    silent = write(step, "Hm.", None)
    failed = write(step, r"\boxed{8}", 0.9)
    pruned = write(ROOT, r"\boxed{9}", 0.9)
    tree.finish(good, "end of text")
    tree.finish(silent, "limit")
    tree.fail(failed, "lost")
    tree.prune(pruned, "test")
    found = candidates(tree, "prod", PlainGrader())
    assert found == (c(good, "07", 0.4, "7"), c(silent, None, 0.5))
    assert [candidates(tree, how, PlainGrader())[0].reward for how in ("last", "min", "mean")] == [0.8, 0.5, 0.65]
    with pytest.raises(ConfigError, match="reduce must be one of"):
        candidates(tree, "max", PlainGrader())  # type: ignore[arg-type]
