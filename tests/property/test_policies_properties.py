"""The contract of every policy, over random trees. A new policy joins by a line in POLICIES."""

import copy
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ets import Ets, EtsKv
from search.policies import Beam, BestOfN, Dvts, Mcts, ParticleFilter, Rebase
from search.protocols import Policy
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, NodeStatus, Step

POLICIES = {
    "best-of-n": BestOfN(),
    "beam": Beam(),
    "beam, 3 kept, min": Beam(num_keep=3, reduce="min"),
    "dvts": Dvts(),
    "dvts, 3 subtrees, prod": Dvts(num_subtrees=3, reduce="prod"),
    "rebase": Rebase(),
    "rebase, round, mean": Rebase(temperature=0.05, rounding="round", reduce="mean"),
    "ets": Ets(),
    "ets, tokens, distance 1": Ets(node_cost="tokens", node_cost_weight=1.5, cluster_distance=1.0, reduce="min"),
    "ets-kv": EtsKv(),
    "mcts": Mcts(),
    "mcts, 3 leaves, prod": Mcts(num_leaves=3, num_children=2, exploration=0.0, reduce="prod"),
    "particle": ParticleFilter(),
    "particle, systematic": ParticleFilter(resampling="systematic", weight="reward", temperature=0.5),
}
ORDER_FREE = [name for name in POLICIES if name.startswith(("beam", "rebase", "ets-kv"))]

REWARDS = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
FATES = st.sampled_from(["open", "open", "open", "finished", "pruned", "failed"])


@st.composite
def trees(draw: st.DrawFn) -> SearchTree:
    """A tree in the middle of a search: nodes of every fate, and at least one open leaf."""
    tree = SearchTree("t", (0,), "prompt")
    for number in range(draw(st.integers(0, 24))):
        parents = [n.id for n in tree if n.status in (NodeStatus.OPEN, NodeStatus.EXPANDED)]
        node = tree.add_child(draw(st.sampled_from(parents)) if parents and number else ROOT)
        tree.write(Step(node, (number + 1,), f"step {number}", FinishReason.STOP, "m"))
        tree[node].features["embedding"] = [float(draw(st.integers(-2, 2))) for _ in range(3)]
        reward = draw(REWARDS)
        if reward is not None:
            tree.set_reward(node, reward)
        fate = draw(FATES)
        if fate == "finished":
            tree.finish(node, "end of text")
        elif fate == "pruned":
            tree.prune(node, "test")
        elif fate == "failed":
            tree.fail(node, "test")
    assume(tree.leaves())
    return tree


@pytest.mark.parametrize("name", POLICIES)
@given(tree=trees(), width=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_the_contract(name: str, tree: SearchTree, width: int, seed: int) -> None:
    policy = POLICIES[name]
    assert isinstance(policy, Policy)
    before = copy.deepcopy(tree.nodes)
    selection = policy.select(tree, width, random.Random(seed))

    assert tree.nodes == before, "a policy changes nothing"
    assert policy.select(tree, width, random.Random(seed)) == selection, "the same seed, the same selection"

    expanded = [expansion.node for expansion in selection.expansions]
    leaves = {leaf.id for leaf in tree.leaves()}
    assert len(set(expanded)) == len(expanded), "each leaf once"
    assert leaves.issuperset(expanded), "open leaves alone"
    assert all(expansion.num_children >= 1 for expansion in selection.expansions)
    assert 1 <= sum(expansion.num_children for expansion in selection.expansions) <= width
    assert selection.waiting <= leaves - set(expanded), "what waits is an open leaf"
    assert set(selection.reasons) == leaves - set(expanded) - selection.waiting, (
        "nothing vanishes, and nothing else gets a reason"
    )
    assert all(reason.startswith(f"{policy.name}: ") for reason in selection.reasons.values())


@pytest.mark.parametrize("name", ORDER_FREE)
@given(
    rewards=st.lists(st.floats(0, 1), min_size=1, max_size=20, unique=True),
    width=st.integers(1, 40),
    rng=st.randoms(use_true_random=False),
)
def test_the_numbering_of_leaves_does_not_matter(
    name: str, rewards: list[float], width: int, rng: random.Random
) -> None:
    def counts(ordered: list[float]) -> dict[float, int]:
        tree = SearchTree("t", (0,), "prompt")
        for reward in ordered:
            node = tree.add_child(ROOT)
            tree.write(Step(node, (1,), "s", FinishReason.STOP, "m"))
            tree.set_reward(node, reward)
        selection = POLICIES[name].select(tree, width, random.Random(0))
        return {ordered[NodeId(e.node) - 1]: e.num_children for e in selection.expansions}

    assert counts(rewards) == counts(rng.sample(rewards, len(rewards)))
