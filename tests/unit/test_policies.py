"""Every policy on trees small enough to work out by hand."""

import random

import pytest

from search.errors import ConfigError
from search.policies import Beam, BestOfN, Dvts, Mcts, ParticleFilter, Rebase
from search.tree import SearchTree
from search.types import ROOT, Expansion, FinishReason, NodeId, Selection, Step


def grow(tree, parent, *rewards):
    """Children of `parent` with these rewards, open; returns their ids."""
    ids = []
    for reward in rewards:
        node = tree.add_child(parent)
        tree.write(Step(node, (node,), f"s{node}\n\n", FinishReason.STOP, "m"))
        if reward is not None:
            tree.set_reward(node, reward)
        ids.append(node)
    return ids


def new_tree():
    return SearchTree("t", (1, 2), "prompt")


def select(policy, tree, width, seed=0):
    selection = policy.select(tree, width, random.Random(seed))
    return {e.node: e.num_children for e in selection.expansions}, dict(selection.reasons)


@pytest.mark.parametrize("policy", [BestOfN(), Beam(), Dvts(), Rebase(), ParticleFilter()], ids=lambda p: p.name)
def test_the_root_gets_the_whole_width(policy):
    assert policy.select(new_tree(), 16, random.Random(0)).expansions == (Expansion(ROOT, 16),)


def test_best_of_n_keeps_every_chain():
    tree = new_tree()
    nodes = grow(tree, ROOT, 0.1, 0.9, 0.5)
    assert select(BestOfN(), tree, 3) == (dict.fromkeys(nodes, 1), {})
    counts, reasons = select(BestOfN(), tree, 2)
    assert counts == {nodes[0]: 1, nodes[1]: 1}
    assert reasons == {nodes[2]: "best-of-n: chain 3 of 3, 2 left in the width"}
    # One chain that is left is not spread out again.
    tree.finish(nodes[0], "end of text")
    tree.fail(nodes[1], "lost")
    assert select(BestOfN(), tree, 2) == ({nodes[2]: 1}, {})


def test_beam_by_hand():
    tree = new_tree()
    nodes = grow(tree, ROOT, *[0.1, 0.8, 0.3, 0.8, 0.5, 0.9, 0.2, 0.4, 0.6, 0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    # Width 16 keeps sqrt(16) = 4: rewards 0.9, 0.8, 0.8, 0.7; 16 / 4 children each.
    counts, reasons = select(Beam(), tree, 16)
    assert counts == {nodes[i]: 4 for i in (1, 3, 5, 9)}
    assert reasons[nodes[8]] == "beam: rank 5 of 16, 4 kept"
    assert reasons[nodes[15]] == "beam: rank 16 of 16, 4 kept"
    assert len(reasons) == 12
    # Width 10 left keeps ceil(3.16) = 4; 3 3 2 2 in falling reward, the lower id first of the two at 0.8.
    assert select(Beam(), tree, 10)[0] == {nodes[5]: 3, nodes[1]: 3, nodes[3]: 2, nodes[9]: 2}
    assert select(Beam(num_keep=2), tree, 16)[0] == {nodes[5]: 8, nodes[1]: 8}
    assert select(Beam(num_keep=5), tree, 2)[0] == {nodes[5]: 1, nodes[1]: 1}


def test_the_reduction_decides_what_beam_reads():
    tree = new_tree()
    first, second = grow(tree, ROOT, 0.9, 0.3)
    (below_first,) = grow(tree, first, 0.5)
    (below_second,) = grow(tree, second, 0.6)
    # last: 0.5 < 0.6; min: 0.5 > 0.3; mean: 0.7 > 0.45; prod: 0.45 > 0.18.
    assert select(Beam(num_keep=1), tree, 1)[0] == {below_second: 1}
    for reduce in ("min", "mean", "prod"):
        assert select(Beam(num_keep=1, reduce=reduce), tree, 1)[0] == {below_first: 1}


def test_dvts_subtrees_by_hand():
    tree = new_tree()
    # Nine children of the root: sqrt(9) = 3 subtrees, ranks 0-2, 3-5, 6-8.
    top = grow(tree, ROOT, 0.2, 0.9, 0.8, 0.1, 0.3, 0.2, 0.7, 0.7, 0.1)
    counts, reasons = select(Dvts(), tree, 9)
    # The best of each: 0.9, 0.3, and of the two 0.7 the lower id; 0.8 loses although it is better than 0.3.
    assert counts == {top[1]: 3, top[4]: 3, top[6]: 3}
    assert reasons[top[2]] == "dvts: not the best of subtree 1"
    assert reasons[top[8]] == "dvts: not the best of subtree 3"
    for node in reasons:
        tree.prune(node, reasons[node])

    a = grow(tree, top[1], 0.4, 0.5, 0.6)
    b = grow(tree, top[4], 0.9, 0.1, 0.1)
    c = grow(tree, top[6], 0.2, 0.3, 0.1)
    # Subtree 2 ends: its three trajectories finish, width 6 is left for the two that live.
    for node in b:
        tree.finish(node, "end of text")
    counts, reasons = select(Dvts(), tree, 6)
    assert counts == {a[2]: 3, c[1]: 3}
    assert set(reasons) == {a[0], a[1], c[0], c[2]}
    # A width of eight in all is cut into three, three and two.
    assert select(Dvts(), tree, 5)[0] == {a[2]: 3, c[1]: 2}
    # Fewer children than live subtrees: the better leaf goes on, and the other says why not.
    counts, reasons = select(Dvts(), tree, 1)
    assert counts == {a[2]: 1}
    assert reasons[c[1]] == "dvts: 2 subtrees live, 1 children left, none for 3"


def test_dvts_takes_an_ended_trajectory_from_its_own_subtree():
    tree = new_tree()
    top = grow(tree, ROOT, *[0.5] * 4)
    for node in (top[1], top[3]):
        tree.prune(node, "test")
    a, b = grow(tree, top[0], 0.9, 0.1), grow(tree, top[2], 0.4, 0.3)
    tree.finish(a[1], "end of text")
    assert select(Dvts(), tree, 3)[0] == {a[0]: 1, b[0]: 2}, "not two for the first: its own trajectory ended"
    tree.fail(b[0], "lost")
    tree.fail(b[1], "lost")
    assert select(Dvts(), tree, 3)[0] == {a[0]: 3}, "what no live subtree can use"
    used = new_tree()
    one, other = grow(used, ROOT, 0.5, 0.5)
    *ended, lives = grow(used, one, *[0.5] * 3)
    (free,) = grow(used, other, 0.1)
    for node in ended:
        used.finish(node, "end of text")
    counts, reasons = select(Dvts(num_subtrees=2), used, 2)
    assert counts == {free: 2}
    assert reasons[lives] == "dvts: 2 subtrees live, 2 children left, none for 1"


def test_dvts_cuts_what_does_not_divide_evenly():
    tree = new_tree()
    top = grow(tree, ROOT, *[0.5] * 7)
    # ceil(sqrt(7)) = 3 subtrees of the ranks 0-2, 3-4, 5-6; equal rewards, so the lowest id of each.
    assert select(Dvts(), tree, 7)[0] == {top[0]: 3, top[3]: 2, top[5]: 2}
    # Two subtrees: 0-3 and 4-6.
    assert select(Dvts(num_subtrees=2), tree, 7)[0] == {top[0]: 4, top[4]: 3}
    assert len(select(Dvts(num_subtrees=99), tree, 7)[0]) == 7


def test_dvts_keeps_its_subtrees_when_a_child_of_the_root_fails():
    tree = new_tree()
    top = [tree.add_child(ROOT) for _ in range(4)]
    tree.fail(top[1], "lost")
    for node, reward in zip((top[0], top[2], top[3]), (0.1, 0.2, 0.3), strict=True):
        tree.write(Step(node, (1,), "s", FinishReason.STOP, "m"))
        tree.set_reward(node, reward)
    assert select(Dvts(), tree, 4)[0] == {top[0]: 2, top[3]: 2}


def test_rebase_by_hand():
    tree = new_tree()
    nodes = grow(tree, ROOT, 0.1, 0.5, 0.9, 0.5, 0.8)
    # The arithmetic is in test_allocate.py.
    counts, reasons = select(Rebase(), tree, 16)
    assert counts == {nodes[1]: 1, nodes[2]: 9, nodes[3]: 1, nodes[4]: 5}
    assert reasons == {nodes[0]: "rebase: allocated 0 of 16 children"}
    assert select(Rebase(rounding="round"), tree, 16)[0] == {nodes[1]: 1, nodes[2]: 8, nodes[3]: 1, nodes[4]: 5}
    assert select(Rebase(temperature=0.1), tree, 16)[0] == {nodes[2]: 12, nodes[4]: 4}


def test_without_a_scorer_rebase_is_even():
    tree = new_tree()
    nodes = grow(tree, ROOT, None, None, None)
    assert select(Rebase(), tree, 6)[0] == dict.fromkeys(nodes, 2)


class Scripted(random.Random):
    """`random()` gives these numbers in turn."""

    def __init__(self, numbers):
        super().__init__(0)
        self.numbers = iter(numbers)

    def random(self):
        return next(self.numbers)


def test_mcts_by_hand():
    tree = new_tree()
    policy = Mcts(num_children=2, exploration=0.5)
    assert policy.select(tree, 16, random.Random(0)) == Selection((Expansion(ROOT, 2),))
    good, poor = grow(tree, ROOT, 0.8, 0.3)
    # Both tried once: the values alone differ. The other leaf is not lost, it waits.
    assert policy.select(tree, 16, random.Random(0)) == Selection((Expansion(good, 2),), waiting=frozenset({poor}))
    bad, worse = grow(tree, good, 0.1, 0.0)
    # Below good: mean 0.9 / 3 = 0.3 of 3 paths; poor: 0.3 of 1. Equal values, and poor has been tried less.
    assert policy.select(tree, 16, random.Random(0)).expansions == (Expansion(poor, 2),)
    # Several leaves in one round: poor is taken, so the next is the better one below good; the width then ends.
    both = Mcts(num_children=2, num_leaves=4).select(tree, 3, random.Random(0))
    assert both == Selection((Expansion(poor, 2), Expansion(bad, 1)), waiting=frozenset({worse}))
    # Greedy goes to the best step wherever it is; of the last width one child alone.
    assert Mcts(exploration=0.0).select(tree, 1, random.Random(0)).expansions == (Expansion(bad, 1),)
    tree.finish(bad, "end of text")
    tree.fail(worse, "lost")
    assert policy.select(tree, 16, random.Random(0)) == Selection((Expansion(poor, 2),))


def test_particle_filtering_by_hand():
    policy = ParticleFilter()
    # Odds of 0.2, 0.5, 0.8 are 1/4, 1, 4: probabilities 1/21, 4/21, 16/21.
    assert policy.probabilities([0.2, 0.5, 0.8]) == pytest.approx([1 / 21, 4 / 21, 16 / 21])
    assert ParticleFilter(temperature=0.5).probabilities([0.2, 0.5]) == pytest.approx([1 / 17, 16 / 17])
    assert ParticleFilter(weight="reward").probabilities([0.2, 0.5, 0.8]) == pytest.approx([2 / 15, 5 / 15, 8 / 15])

    tree = new_tree()
    nodes = grow(tree, ROOT, 0.2, 0.5, 0.8)
    # Bounds 0.048, 0.238, 1: the draws fall on 0, 2, 1, 2.
    selection = policy.select(tree, 4, Scripted([0.04, 0.5, 0.1, 0.99]))
    assert selection.expansions == (Expansion(nodes[0], 1), Expansion(nodes[1], 1), Expansion(nodes[2], 2))
    # Systematic with offset 0.5: points 0.125, 0.375, 0.625, 0.875; the first leaf is missed.
    selection = ParticleFilter(resampling="systematic").select(tree, 4, Scripted([0.5]))
    assert selection.expansions == (Expansion(nodes[1], 1), Expansion(nodes[2], 3))
    assert selection.reasons == {nodes[0]: "particle: not among 4 draws, probability 0.0476"}


def test_particles_are_drawn_by_their_odds():
    tree = new_tree()
    low, high = grow(tree, ROOT, 0.25, 0.75)
    for resampling, slack in (("multinomial", 0.03), ("systematic", 0.002)):
        policy = ParticleFilter(resampling=resampling)
        drawn = sum(select(policy, tree, 10, seed)[0].get(low, 0) for seed in range(2000))
        assert drawn / 20_000 == pytest.approx(0.1, abs=slack)
    assert high == NodeId(2)


def test_certain_rewards_do_not_break_particles():
    tree = new_tree()
    zero, one = grow(tree, ROOT, 0.0, 1.0)
    assert select(ParticleFilter(), tree, 8)[0] == {one: 8}
    tree.prune(one, "test")
    assert select(ParticleFilter(weight="reward"), tree, 8)[0] == {zero: 8}


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        (Beam, {"num_keep": 0}, "num_keep must be at least 1, not 0"),
        (Beam, {"reduce": "max"}, "reduce must be one of last, min, mean, prod, not 'max'"),
        (BestOfN, {"reduce": ""}, "reduce must be one of"),
        (Dvts, {"num_subtrees": -1}, "num_subtrees must be at least 1"),
        (Rebase, {"temperature": 0.0}, "temperature must be a positive number"),
        (Rebase, {"temperature": float("nan")}, "temperature must be a positive number"),
        (Rebase, {"rounding": "up"}, "rounding must be one of ceil, round, not 'up'"),
        (Mcts, {"num_leaves": 0}, "num_leaves must be at least 1, not 0"),
        (Mcts, {"exploration": -1.0}, "exploration must be a number of at least 0"),
        (ParticleFilter, {"temperature": -1.0}, "temperature must be a positive number"),
        (ParticleFilter, {"weight": "odds"}, "weight must be one of logit, reward"),
        (ParticleFilter, {"resampling": "x"}, "resampling must be one of multinomial, systematic"),
    ],
)
def test_wrong_options_are_refused(policy, options, message):
    with pytest.raises(ConfigError, match=message):
        policy(**options)
