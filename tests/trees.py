"""Trees of every shape for the viewer's tests."""

import random

from search.ledger import Stats
from search.loop.outcome import SearchOutcome
from search.tree import SearchTree
from search.types import FinishReason, NodeId, Problem, Selected, Step
from search.view import problem_view


def add(tree, parent, text, reward=None, writer="draft", cluster=None, estimate=None):
    """A written and scored step; its id."""
    node = tree.add_child(NodeId(parent))
    tokens = tuple(range(max(1, len(text) // 4)))
    tree.write(Step(node, tokens, text, FinishReason.STOP, writer, 0.25, estimate))
    if reward is not None:
        tree.set_reward(node, reward, 0.125)
    tree[node].cluster = cluster
    return node


def view_of(tree, selections=(), name="p", reference=None, verdict=None, **others):
    """The view of a search that grew a tree."""
    problem = Problem(name, "How many?", reference)
    return problem_view(problem, SearchOutcome(problem, tree, Stats(), selections=selections), verdict, **others)


def small_tree():
    """One node of every fate, with its selections: a tree that a person can check."""
    tree = SearchTree("small", range(10), "How many?\n\n")
    best = add(tree, 0, "First, add 3 and 4.\n\n", 0.9, "target", 0, 0.8)
    same = [add(tree, 0, "Guess 8.\n\n", 0.2, "draft", 1, 0.1) for _ in range(3)]
    other = add(tree, 0, "Add 3.\n\n", 0.6, "draft", 0, 0.3)
    for node in same:
        tree.prune(node, "ets: its 1 of 8 children do not pay")
    end = add(tree, best, "The answer is 7.", 0.95, "draft")
    tree.finish(end, "end of text")
    failed = tree.add_child(best)
    tree.fail(failed, "the engine went away")
    last = add(tree, other, "The answer is 8.", 0.3, "target")
    tree.finish(last, "end of text")
    return tree, [Selected((best, *same, other), (best, other), 0.25)], end


def uneven_tree():
    """As MCTS makes one: a leaf that waited is expanded after a deeper one."""
    tree = SearchTree("uneven", range(10), "How many?\n\n")
    first, waiting = (add(tree, 0, text, 0.5) for text in ("Add 3.\n\n", "Take 4.\n\n"))
    deeper = add(tree, first, "Add 4.\n\n", 0.2)
    late = add(tree, waiting, "The answer is 7.", 0.9)
    tree.finish(late, "end of text")
    tree.prune(deeper, "no width left")
    selections = [
        Selected((first, waiting), (first, waiting), num_nodes=3),
        Selected((waiting, deeper), (waiting, deeper), num_nodes=4),
        Selected((deeper,), (), num_nodes=5),
    ]
    return tree, selections, late


def wide_tree(num_nodes, width=64, seed=0):
    """A tree of a search of this width, with its selections; a third of each level is kept."""
    rng = random.Random(seed)
    tree = SearchTree("wide", range(30), "How many?\n\n")
    kept, selections = [tree.root.id], []
    while len(tree) < num_nodes:
        leaves = [
            add(
                tree,
                rng.choice(kept),
                f"Step {rng.randrange(900)} of the solution.\n\n",
                rng.random(),
                "target",
                rng.randrange(8),
            )
            for _ in range(min(width, num_nodes - len(tree)))
        ]
        kept = sorted(rng.sample(leaves, max(1, len(leaves) // 3)))
        selections.append(Selected(tuple(leaves), tuple(kept)))
        for leaf in leaves:
            if leaf not in kept:
                tree.prune(leaf, "ets: not worth its cost")
    return tree, selections
