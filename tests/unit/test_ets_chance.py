"""ETS by chance: what one more leaf is worth, what it costs, and who gets the width of the pruned ones."""

import random
from itertools import combinations

import numpy as np
import pytest

from ets import Ets
from ets.chance import Chance, keep_by_chance
from ets.problem import build_problem
from search.errors import ConfigError, PolicyError
from search.policies import Rebase
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step


def grow(tree, parent, *rewards, tokens=5, texts=None, angles=None):
    """Children with these rewards, and vectors at these angles in degrees; without angles all at right angles."""
    ids = []
    for i, reward in enumerate(rewards):
        node = tree.add_child(parent)
        length = tokens[i] if isinstance(tokens, list) else tokens
        text = f"s{node}" if texts is None else texts[i]
        tree.write(Step(node, tuple(range(length)), text, FinishReason.STOP, "m"))
        if reward is not None:
            tree.set_reward(node, reward)
        vector = np.zeros(64)
        vector[node % 64] = 1.0
        if angles is not None:
            vector = np.array([np.cos(np.radians(angles[i])), np.sin(np.radians(angles[i]))])
        tree[node].features["embedding"] = vector
        ids.append(node)
    return ids


def root():
    return SearchTree("t", range(100), "prompt")


def select(policy, tree, width):
    selection = policy.select(tree, width, random.Random(0))
    return {e.node: e.num_children for e in selection.expansions}, dict(selection.reasons), selection.note


def alone(num_leaves):
    return np.arange(num_leaves)


def test_the_chance_of_leaves_that_nothing_tells_apart():
    # The share of right leaves is as likely to be anything: one of n is right with n / (n + 1).
    for reward in (0.0, 0.2, 0.85, 1.0):
        chance = Chance.of_rewards([reward] * 5, alone(5))
        for count in range(1, 6):
            assert chance.of(range(count)) == pytest.approx(count / (count + 1), abs=1e-2)


def test_leaves_of_one_cluster_are_right_or_wrong_together():
    chance = Chance.of_rewards([0.5] * 4, np.array([0, 0, 0, 1]))
    assert chance.of([0, 1, 2]) == chance.of([0])
    assert chance.of([0, 3]) == pytest.approx(2 / 3, abs=1e-3)
    better = Chance.of_rewards([0.3, 0.6, 0.5, 0.5], np.array([0, 0, 1, 2]))
    assert better.of([0, 1]) == better.of([1]) > better.of([0])


def test_a_reward_model_that_is_too_sure_of_all_tells_the_same():
    def shifted(by):
        logits = np.array([-0.5, 0.0, 1.0]) + by
        return Chance.of_rewards((1 / (1 + np.exp(-logits))).tolist(), alone(3)).right

    assert shifted(1.5) == pytest.approx(shifted(0.0))
    assert shifted(-1.5) == pytest.approx(shifted(0.0))


def test_the_next_leaf_is_worth_less_than_the_last():
    tree = root()
    leaves = grow(tree, ROOT, *[0.5] * 20)
    for weight, expected in ((400.0, 1), (40.0, 2), (4.0, 9), (0.4, 20)):
        problem = build_problem(tree, leaves, [0.05] * 20, node_cost_weight=weight, node_cost="tokens")
        kept = keep_by_chance(problem, Chance.of_rewards([0.5] * 20, alone(20)), range(20))
        assert len(kept) == expected, "the n-th is worth 1 / (n (n + 1)), and costs the weight / 400"
        assert kept == list(range(expected)), "of equals the lower position comes first"


@pytest.mark.parametrize("count", [8, 16, 64, 256])
def test_the_same_part_of_a_level_is_kept_at_every_width(count):
    tree = root()
    leaves = grow(tree, ROOT, *[0.5] * count)
    for weight, part in ((9.0, 1 / 3), (2.25, 2 / 3)):
        problem = build_problem(tree, leaves, [1 / count] * count, node_cost_weight=weight, node_cost="tokens")
        kept = keep_by_chance(problem, Chance.of_rewards([0.5] * count, alone(count)), range(count))
        assert len(kept) == pytest.approx(part * count, abs=1 + 0.05 * count)


def test_the_prompt_costs_nothing_and_what_is_shared_is_paid_once():
    tree = SearchTree("t", range(100_000), "prompt")
    branch, lone = grow(tree, ROOT, 0.5, 0.5, tokens=[30, 30])
    first, second = grow(tree, branch, 0.5, 0.5, tokens=10)
    (other,) = grow(tree, lone, 0.5, tokens=10)
    problem = build_problem(tree, [first, second, other], [1 / 3] * 3, node_cost_weight=3.0, node_cost="tokens")
    kept = keep_by_chance(problem, Chance.of_rewards([0.5] * 3, alone(3)), range(3))
    # The second one adds 1/6 of chance for 10 of 90 tokens; the other 1/12 for 40.
    assert kept == [0, 1]


def test_no_set_is_much_better_than_what_is_kept():
    rng = random.Random(3)
    for _ in range(60):
        tree = root()
        branches = grow(tree, ROOT, *[0.5] * rng.randint(1, 3), tokens=rng.randint(1, 20))
        leaves = [
            grow(tree, rng.choice(branches), rng.random(), tokens=rng.randint(1, 40))[0]
            for _ in range(rng.randint(2, 7))
        ]
        for node in tree.leaves():
            if node.id not in leaves:
                tree.prune(node.id, "test")
        rewards = [tree[leaf].reward for leaf in leaves]
        chance = Chance.of_rewards(rewards, np.unique([rng.randint(0, 5) for _ in leaves], return_inverse=True)[1])
        problem = build_problem(tree, leaves, rewards, node_cost_weight=0.3 * len(leaves), node_cost="tokens")

        def value(kept, problem=problem, chance=chance):
            nodes = problem.ancestors(kept) - {0}
            price = problem.leaf_shares[list(kept)].sum() + problem.node_shares[sorted(nodes)].sum()
            return chance.of(kept) - 0.3 * price / (1 - problem.node_shares[0])

        found = value(keep_by_chance(problem, chance, range(len(leaves))))
        every = [kept for size in range(1, len(leaves) + 1) for kept in combinations(range(len(leaves)), size)]
        assert found >= max(map(value, every)) - 0.06


def test_short_steps_are_kept_before_long_ones_of_the_same_reward():
    tree = root()
    leaves = grow(tree, ROOT, *[0.5] * 6, tokens=[90, 10, 90, 10, 90, 10])
    counts, reasons, _ = select(Ets(node_cost_weight=12.0), tree, 12)
    assert set(counts) == {leaves[1], leaves[3], leaves[5]}
    assert sum(counts.values()) == 12
    assert reasons[leaves[0]] == (
        "ets: 1 node of its own (90 tokens) for too little more chance of a right path; "
        "REBASE allocated 2 of 12 children; it is a cluster of its own"
    )


def test_a_cluster_keeps_the_width_of_its_pruned_leaves_and_they_name_who_stands_for_them():
    tree = root()
    leaves = grow(tree, ROOT, *[0.5] * 8, angles=[0, 1, 2, 3, 4, 5, 90, 91])
    counts, reasons, note = select(Ets(), tree, 16)
    assert note == ""
    assert counts == {leaves[0]: 12, leaves[6]: 4}, "two of sixteen children for each leaf that said so"
    assert reasons[leaves[5]].endswith(f"; says what node {leaves[0]} says, which is kept (distance 0.00)")
    assert reasons[leaves[7]].endswith(f"; says what node {leaves[6]} says, which is kept (distance 0.00)")


def test_a_cluster_of_which_none_is_kept_is_named_by_its_best():
    tree = root()
    leaves = grow(tree, ROOT, 0.9, 0.02, 0.01, angles=[0, 90, 95], tokens=[5, 500, 600])
    counts, reasons, _ = select(Ets(), tree, 8)
    assert counts == {leaves[0]: 8}
    assert reasons[leaves[1]].endswith("; its cluster's best, of which none is kept")
    assert reasons[leaves[2]].endswith(
        f"; says what node {leaves[1]} says, of whose cluster none is kept (distance 0.00)"
    )


def test_what_rebase_would_not_keep_is_not_kept():
    tree = root()
    leaves = grow(tree, ROOT, 0.99, *[0.3] * 9, tokens=[100, *[1] * 9])
    first = {e.node: e.num_children for e in Rebase().select(tree, 6, random.Random(0)).expansions}
    assert len(first) < 6
    assert select(Ets(node_cost_weight=0.01), tree, 6)[0] == first
    _, reasons, _ = select(Ets(), tree, 6)
    assert reasons[leaves[-1]].startswith("ets: REBASE allocated 0 of 6 children, and it has 1 node of its own (1 tok")


def test_without_a_price_it_is_rebase():
    rng = random.Random(1)
    tree = root()
    for branch in grow(tree, ROOT, 0.5, 0.5, 0.5):
        grow(tree, branch, *[rng.random() for _ in range(6)])
    for width in (1, 7, 18, 40):
        assert Ets(node_cost_weight=0.0).select(tree, width, rng).expansions == (
            Rebase().select(tree, width, rng).expansions
        )


@pytest.mark.parametrize("reward", [0.0, 0.5, 1.0, None])
def test_levels_that_say_nothing(reward):
    same = root()
    leaves = grow(same, ROOT, *[reward] * 4, texts=["same"] * 4, angles=[0] * 4)
    counts, _, note = select(Ets(), same, 8)
    assert (counts, note) == ({leaves[0]: 8}, ""), "equal texts are one step"
    apart = root()
    leaves = grow(apart, ROOT, *[reward] * 4)
    counts, _, note = select(Ets(), apart, 8)
    assert set(counts) == set(leaves[: len(counts)]) and sum(counts.values()) == 8
    assert note.startswith("every leaf is a cluster of its own")
    empty = root()
    grow(empty, ROOT, *[reward] * 3, tokens=0, texts=["", "", ""])
    assert sum(select(Ets(), empty, 8)[0].values()) == 8
    one = root()
    (leaf,) = grow(one, ROOT, reward)
    assert select(Ets(), one, 8) == ({leaf: 8}, {}, "")
    nothing = root()
    assert select(Ets(), nothing, 8) == ({ROOT: 8}, {}, "")


def test_vectors_that_are_not_finite_or_not_there():
    tree = root()
    first, *_ = grow(tree, ROOT, 0.5, 0.5, 0.5, angles=[0, 0, 90])
    tree[first].features["embedding"] = np.array([np.nan, 0.0])
    counts, reasons, note = select(Ets(node_cost_weight=4.5), tree, 6)
    assert sum(counts.values()) == 6 and len(counts) + len(reasons) == 3
    assert note.startswith("1 leaves with an embedding that is not finite, each text a cluster; every leaf is")
    del tree[first].features["embedding"]
    with pytest.raises(PolicyError, match=f"ets: node {first} has no embedding"):
        select(Ets(), tree, 6)


def test_the_order_of_leaves_does_not_matter():
    rng = random.Random(5)
    for _ in range(20):
        count = rng.randint(2, 12)
        rewards = [rng.random() for _ in range(count)]
        tokens = [rng.randint(1, 60) for _ in range(count)]
        angles = [rng.randint(0, 360) for _ in range(count)]
        texts = [f"text {i}" for i in range(count)]
        kept = []
        for _ in range(2):
            order = rng.sample(range(count), count)
            tree = root()
            pick = lambda values, order=order: [values[i] for i in order]  # noqa: E731
            grow(tree, ROOT, *pick(rewards), tokens=pick(tokens), texts=pick(texts), angles=pick(angles))
            kept.append({tree[node].text: num for node, num in select(Ets(), tree, 16)[0].items()})
        assert kept[0].keys() == kept[1].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"node_cost_weight": -1.0}, "node_cost_weight must be a number of at least 0, not -1.0"),
        ({"cluster_distance": 3.0}, r"cluster_distance must be in \[0, 2\], not 3.0"),
        ({"node_cost": "bytes"}, "node_cost must be one of uniform, tokens, not 'bytes'"),
        ({"temperature": 0.0}, "temperature must be a positive number, not 0.0"),
        ({"reduce": "max"}, "reduce must be one of last, min, mean, prod, not 'max'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Ets(**options)
