"""Searches that stop when their vote is decided: never with another answer, and with fewer tokens."""

import random

import pytest
from fake_engine import FakeEngine, Fault
from markov import LabelModel, story_model
from virtual_clock import timed

from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search.answers.graders import PlainGrader
from search.decision.stopping import Decided, probability_kept
from search.decision.vote import candidates, vote
from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import Beam, BestOfN, Dvts, ParticleFilter, Rebase
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Problem, Step

POLICIES = [BestOfN(), Beam(), Dvts(), Rebase(), ParticleFilter()]
GRADER = PlainGrader()


class Comparing(PlainGrader):
    """Finds answers of unequal keys equal: 1 and 2 are both 12."""

    def equivalent(self, one, other):
        return one == other or {one, other} <= {"1", "2", "12"}

    def close(self):
        pass


def voted(*votes):
    """A tree whose finished trajectories give these answers with these rewards, in this order."""
    tree = SearchTree("t", (1,), "q")
    for answer, reward in votes:
        node = tree.add_child(ROOT)
        tree.write(Step(node, (2,), f"The answer is {answer}.", FinishReason.EOS, "m"))
        tree.set_reward(node, reward)
        tree.finish(node, "end of text")
    return tree


def reason(tree, num_left, rule="weighted", grader=GRADER, confidence=None, unscored=()):
    return Decided(rule, "last", grader, confidence).reason(tree, num_left, unscored)


def test_decided_by_hand():
    tree = voted(("7", 0.9), ("7", 0.9), ("7", 0.9), ("8", 0.5))
    # 2.7 against 0.5: two more of 1 cannot change it, a third could.
    assert reason(tree, 2) == "the vote is decided: 2.7 against 0.5 with 2 trajectories left"
    assert reason(tree, 3) == ""
    # 3 votes against 1: with two left there could be a tie.
    assert reason(tree, 1, "majority") and not reason(tree, 2, "majority")
    for rule in ("best", "normalised"):
        assert reason(tree, 0, rule) == "", "a better one may always come, and with none left the search ends anyway"
    # What is not scored yet has no weight, and may have any.
    assert reason(tree, 0, unscored={1}) and not reason(tree, 1, unscored={1})
    assert not reason(voted(), 1) and not reason(voted(("?", 0.9)), 1, unscored={1})


def test_answers_that_may_turn_out_equal_count_together():
    tree = voted(("7", 1.0), ("7", 1.0), ("1", 0.9), ("2", 0.9))
    assert reason(tree, 1) and not reason(tree, 1, grader=Comparing())
    # 3 and 4 differ for it too.
    assert reason(voted(("7", 1.0), ("7", 1.0), ("3", 0.9), ("4", 0.9)), 1, grader=Comparing())


@pytest.mark.parametrize("rule", ["majority", "weighted"])
@pytest.mark.parametrize("grader", [GRADER, Comparing()], ids=["plain", "comparing"])
def test_what_is_decided_no_continuation_changes(rule, grader):
    rng, num_decided = random.Random(rule), 0
    equivalent = getattr(grader, "equivalent", None)
    for _ in range(1500):
        known = [
            (rng.choice(["7", "7", "7", "1", "2"]), rng.choice([0.0, 0.3, 1.0, rng.random()]))
            for _ in range(rng.randint(1, 7))
        ]
        num_left = rng.randint(1, 3)
        tree = voted(*known)
        if not reason(tree, num_left, rule, grader):
            continue
        num_decided += 1
        before = vote(candidates(tree, "last", grader), rule, equivalent)
        for rival in ("1", "2", "12", "9"):
            more = [(rival, 1.0)] * num_left
            for votes in ([*known, *more], [*more, *known]):  # a flat search numbers late ones anywhere
                after = vote(candidates(voted(*votes), "last", grader), rule, equivalent)
                assert after.answer == before.answer or (equivalent and equivalent(after.answer, before.answer))
    assert num_decided > 100


def test_a_tie_is_decided_where_it_is_known_who_wins_it():
    def why(tree, num_left, rule="majority", by_path=True):
        return Decided(rule, "last", GRADER, by_path=by_path).reason(tree, num_left, ())

    tree = voted(("7", 1.0), ("7", 1.0), ("8", 1.0))
    assert why(tree, 1) == "the vote is decided: 2 against 1 with 1 trajectories left"
    assert not why(tree, 2) and not why(tree, 1, by_path=False) and not why(tree, 1, "weighted")
    assert not why(voted(("8", 1.0), ("7", 1.0), ("7", 1.0)), 1), "the 8 stands before"
    assert why(voted(("7", 1.0), ("7", 1.0)), 2), "whatever has not come stands behind"
    begun = SearchTree("t", (1,), "q")
    early = begun.add_child(ROOT)
    for _ in range(2):
        node = begun.add_child(ROOT)
        begun.write(Step(node, (2,), "The answer is 7.", FinishReason.EOS, "m"))
        begun.finish(node, "end of text")
    assert not why(begun, 2), "what is still written may be an 8 that stands before"
    begun.fail(early, "lost")
    assert why(begun, 2)


def test_of_counted_votes_no_continuation_changes_the_winner_of_a_tie():
    """Of up to seven chains some have ended, in any order; the others end with any answers."""
    rng, num_ties = random.Random(5), 0
    for _ in range(1500):
        answers = [rng.choice(["7", "7", "7", "8", "9"]) for _ in range(rng.randint(2, 7))]
        num_begun = rng.randint(1, len(answers))
        ended = {number for number in range(num_begun) if rng.random() < 0.8}
        tree = SearchTree("t", (1,), "q")
        for number in range(num_begun):
            node = tree.add_child(ROOT)
            if number in ended:
                tree.write(Step(node, (2,), f"The answer is {answers[number]}.", FinishReason.EOS, "m"))
                tree.finish(node, "end of text")
        num_left = len(answers) - len(ended)
        if not num_left or not Decided("majority", "last", GRADER, by_path=True).reason(tree, num_left, ()):
            continue
        num_ties += not reason(tree, num_left, "majority")
        winners = {
            vote(candidates(voted(*((answer, 1.0) for answer in whole)), "last", GRADER), "majority").answer
            for rival in ("7", "8", "9", "10")
            for whole in [[answer if at in ended else rival for at, answer in enumerate(answers)]]
        }
        assert winners == {vote(candidates(tree, "last", GRADER), "majority").answer}
    assert num_ties > 30


def test_the_probability_that_the_leader_stays_ahead():
    assert probability_kept(3, 1, 0) == 1.0 and probability_kept(3, 1, 1) == pytest.approx(1.0)
    assert probability_kept(2, 2, 0) == 0.0 and probability_kept(2, 2, 0, wins_tie=True) == 1.0
    # One vote between equals: Polya's urn of 3, 3 and 1.
    assert probability_kept(2, 2, 1) == pytest.approx(3 / 7)
    assert probability_kept(2, 2, 1, num_neither=2) == pytest.approx(3 / 9)
    assert probability_kept(2, 2, 1, num_neither=2, wins_tie=True) == pytest.approx(6 / 9)
    # Of 2, 1 and 1: two more keep it ahead unless one goes to the rival and none to the leader.
    assert probability_kept(1, 0, 2) == pytest.approx(1 - (1 * 2 + 2 * 1 * 1) / (4 * 5))
    # Of ever more to come it is the posterior that its share is above the other's: 1 - 2^-(n + 1) for n against none.
    assert probability_kept(3, 0, 1000) == pytest.approx(1 - 0.5**4, abs=1e-3)
    assert 0.99 < probability_kept(250, 200, 1000) < probability_kept(250, 200, 100) <= 1


@pytest.mark.parametrize("num_before", [1, 3, 5])
def test_that_probability_is_how_often_it_stays_ahead(num_before):
    """Shares of three drawn evenly, as the prior has it; among those where the votes so far stand alike."""
    rng, stays = random.Random(num_before), {}
    for _ in range(60_000):
        low, high = sorted((rng.random(), rng.random()))
        votes = rng.choices("abc", (low, high - low, 1 - high), k=12)
        before = [votes[:num_before].count(answer) for answer in "abc"]
        if before[0] > before[1]:
            stays.setdefault(tuple(before), []).append(votes.count("a") > votes.count("b"))
    for (first, second, neither), kept in stays.items():
        if len(kept) > 2000:
            expected = probability_kept(first, second, 12 - num_before, neither)
            assert sum(kept) / len(kept) == pytest.approx(expected, abs=0.03)


def test_confidence_stops_where_certainty_does_not():
    tree = voted(*[("7", 1.0)] * 4)
    assert not reason(tree, 12) and not reason(tree, 12, confidence=0.99)
    assert reason(tree, 12, confidence=0.95) == "the vote is 0.984 certain: 4 against 0 with 12 trajectories left"
    # What may turn out to be one answer is not taken for one: that alone is what certainty needs.
    split = voted(*[("7", 1.0)] * 6, ("1", 1.0), ("2", 1.0), ("3", 1.0))
    assert not reason(split, 4, grader=Comparing()) and reason(split, 4, grader=Comparing(), confidence=0.95)


def solve(policy, stopping, number, sparing=False, **options):
    prm = FakeEngine(LabelModel())
    scorer = PrmScorer(prm, LabelTokenCodec(prm.tokenizer, PrmConfig()))
    engine = FakeEngine(story_model(right=0.8), **options)
    driver = Driver(policy, ModelWriter(engine), scorer, width=16, stopping=stopping, sparing=sparing)
    outcome, seconds = timed(driver.solve(Problem(f"p{number}", "Add 3."), "Add 3.\n\n"))
    for one in (engine, prm):
        assert {one.usage(call.prefix.tree).kv_tokens_held for call in one.calls} == {0}
    return outcome, seconds


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_method_gives_the_answer_of_its_whole_width_for_less(policy):
    spent = saved = stopped = 0
    for number in range(12):
        whole, _ = solve(policy, None, number)
        early, _ = solve(policy, lambda: Decided("weighted", "last", GRADER), number)
        answers = [vote(candidates(one.tree, "last", GRADER)).answer for one in (whole, early)]
        assert answers[0] == answers[1]
        spent += whole.stats.policy_tokens
        saved += whole.stats.policy_tokens - early.stats.policy_tokens
        if early.stats.num_finished < whole.stats.num_finished:
            stopped += 1
            (note,) = early.notes
            assert "the vote is decided: " in note
            assert any(node.reason in note for node in early.tree.leaves(NodeStatus.PRUNED))
        assert not early.tree.leaves() and not early.tree.leaves(NodeStatus.PENDING)
    assert stopped > 0 and saved > 0.03 * spent


def test_a_flat_search_stops_what_is_being_written():
    """The longest chains are cut in the middle of a step, at once."""
    (whole, seconds), (early, sooner) = (
        solve(BestOfN(), stopping, 1, seconds_per_token=1)
        for stopping in (None, lambda: Decided("majority", "last", GRADER))
    )
    assert sooner < seconds and early.stats.policy_tokens < whole.stats.policy_tokens
    cut = [node for node in early.tree.leaves(NodeStatus.PRUNED) if not node.ids]
    assert cut and all("the vote is decided" in node.reason for node in cut)
    assert early.stats.num_failed == 0


def test_chains_are_begun_as_the_vote_needs_them():
    """Nine of sixteen that agree decide, or eight that win a tie; each that disagrees makes more needed."""

    def needed(votes, num_running, num_held, rule="majority", unscored=(), confidence=None):
        return Decided(rule, "last", GRADER, confidence).num_needed(voted(*votes), num_running, num_held, unscored)

    assert needed([], 0, 16) == 9
    assert needed([("7", 1.0)] * 3, 6, 7) == 0
    assert needed([("7", 1.0)] * 3 + [("8", 1.0)], 5, 7) == 1, "8 for 7 might meet 8 for 8"
    assert needed([("7", 1.0)] * 3 + [("8", 1.0)], 6, 6) == 0
    assert needed([("7", 1.0)] * 2 + [("8", 1.0), ("9", 1.0)], 5, 7) == 1
    assert needed([("7", 1.0), ("8", 1.0)] * 3, 0, 2) == 2, "a tie so far"
    assert needed([("7", 0.5)] * 9, 0, 7, "weighted") == 2
    assert needed([("7", 0.5)] * 9, 0, 7, "weighted", unscored={1, 2}) == 1
    assert needed([], 0, 16, confidence=0.95) == 3 and needed([("7", 1.0)] * 2, 0, 14, confidence=0.95) == 1
    assert needed([("7", 1.0)] * 3 + [("8", 1.0)], 0, 12, confidence=0.95) == 2, "5 for 7 against 1 for 8, 10 to come"
    assert Decided("majority", "last", GRADER, by_path=True).num_needed(voted(), 0, 16, ()) == 8, "the first win a tie"
    assert needed([("7", 1.0)], 0, 15, "best") == needed([("7", 1.0)], 0, 15, "normalised") == 15


@pytest.mark.parametrize("rule", ["majority", "weighted"])
def test_a_flat_search_that_begins_only_what_it_needs_gives_the_same_answer_for_less(rule):
    whole_tokens = early_tokens = sparing_tokens = 0
    for number in range(12):
        runs = [
            solve(BestOfN(), stopping, number, sparing, seconds_per_token=1)[0]
            for stopping, sparing in ((None, True), (lambda: Decided(rule, "last", GRADER), False),
                                      (lambda: Decided(rule, "last", GRADER), True))
        ]  # fmt: skip
        whole, early, sparing = runs
        answers = {vote(candidates(one.tree, "last", GRADER), rule).answer for one in runs}
        assert len(answers) == 1
        assert len(whole.tree.children(ROOT)) == len(early.tree.children(ROOT)) == 16
        first = [[one.tree[child].ids for child in one.tree.children(ROOT)] for one in (whole, sparing)]
        assert all(ids in ((), same) for same, ids in zip(*first, strict=False)), "the same chains, cut or whole"
        assert sparing.stats.kv_tokens_engine_peak <= whole.stats.kv_tokens_engine_peak
        assert not sparing.tree.leaves() and not sparing.tree.leaves(NodeStatus.PENDING)
        whole_tokens += whole.stats.policy_tokens
        early_tokens += early.stats.policy_tokens
        sparing_tokens += sparing.stats.policy_tokens
    assert sparing_tokens < (0.95 if rule == "majority" else 1.0) * early_tokens < whole_tokens


def test_chains_that_fail_do_not_leave_a_sparing_search_waiting():
    faults = [Fault("generate", call) for call in range(2, 40, 3)]
    outcome, _ = solve(BestOfN(), lambda: Decided("majority", "last", GRADER), 3, True, faults=faults)
    assert outcome.stats.num_failed > 0 and outcome.stats.num_finished > 0
    assert not outcome.tree.leaves() and not outcome.tree.leaves(NodeStatus.PENDING)
