"""The solvers of the pruning program against each other, on synthetic trees and on trees of real searches."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ets import Ets, PruneProblem, build_problem
from ets.coverage import cluster_steps
from ets.embedders.tfidf import TfidfEmbedder
from ets.policy import paper_coverage
from ets.solvers import Solver, make_solver
from ets.solvers.highs import HighsSolver
from search.allocate import rebase_allocation
from search.errors import ConfigError
from search.protocols import Policy
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Selection, Step

SIZES = (16, 64, 256, 1024)
DEPTHS = (3, 8)
SOLVER_SECONDS = 120.0
"""Far beyond what any solver here needs: a comparison of times is no place for a limit."""

RECORDED_PROBLEMS = 4
RECORDED_WIDTHS = (16, 64)

_KINDS = (
    "She buys {a} more, now {b} + {a} = {c}.",
    "She sells {a} of them, so {b} - {a} = {c} are left.",
    "First take {a}: {b} + {a} = {c}.",
    "That is {a} times as many, {a} * {b} = {c}.",
    "Half of {b} is {c}.",
    "The rest is {a}, so {b} + {a} = {c}.",
    "He gives {a} away and keeps {c}.",
    "Together they have {b} + {a} = {c}.",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One program, where it comes from, and the tree and policy that pose it."""

    source: str
    problem: PruneProblem
    tree: SearchTree | None = None


def run(repeats: int = 5, seed: int = 0, sizes: Sequence[int] = SIZES, recorded: bool = True) -> dict[str, Any]:
    """Solve the same programs with every solver in turn, in one process.

    Args:
        repeats: rounds over all solvers for each tree.
        seed: of the synthetic trees.
        sizes: leaves of the synthetic trees.
        recorded: whether trees of real searches on the mini family are solved too.

    Returns:
        `figures` by number of leaves N, over the synthetic trees of depth 3 and 8: `cbc_over_highs_N`, median ratio of
        neighbouring runs of PuLP/CBC on the paper's formulation and of `highs`; medians in milliseconds `highs_ms_N`,
        `lp_ms_N` (`highs` without its reduction), `cbc_ms_N`, `tree_ms_N` (coverage weight 0), and `select_ms_N`: the
        policy's whole selection, clustering included and embedding left out; `max_gap`, the largest difference of two
        solvers' objectives. `rows`: one for each kind of tree. With PuLP absent its figures are left out.
    """
    rivals: dict[str, Solver] = {
        "highs": make_solver("highs", SOLVER_SECONDS),
        "lp": HighsSolver(SOLVER_SECONDS, reduce=False),
    }
    try:
        rivals["cbc"] = make_solver("pulp", SOLVER_SECONDS)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
    samples = [_synthetic(size, depth, seed) for size in sizes for depth in DEPTHS]
    if recorded:
        samples += _recorded(seed)
    rows = []
    for sample in samples:
        rows.append(_measure(sample, rivals, repeats))
        sys.stderr.write(" ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
        sys.stderr.write("\n")
    figures: dict[str, float | int] = {}
    for size in sizes:
        alike = [row for row in rows if row["num_leaves"] == size and row["source"].startswith("synthetic")]
        for key in ("cbc_over_highs", "highs_ms", "lp_ms", "cbc_ms", "tree_ms", "select_ms"):
            values = [row[key] for row in alike if key in row]
            if values:
                figures[f"{key}_{size}"] = statistics.median(values)
    figures["max_gap"] = max(row["max_gap"] for row in rows)
    return {"seed": seed, "repeats": repeats, "figures": figures, "rows": rows}


def _measure(sample: Sample, rivals: dict[str, Solver], repeats: int) -> dict[str, Any]:
    problem = sample.problem
    seconds: dict[str, list[float]] = {name: [] for name in (*rivals, "tree", "select")}
    values: list[float] = []
    integral = None
    bare, policy = replace(problem, coverage_weight=0.0), Ets()
    for _ in range(repeats):
        for name, solver in rivals.items():
            solution = solver.solve(problem)
            if solution.status != "optimal":
                raise RuntimeError(f"{name} on {sample.source}: {solution.status}, {solution.message}")
            seconds[name].append(solution.seconds)
            values.append(solution.objective)
            integral = solution.lp_integral if name == "lp" else integral
        seconds["tree"].append(make_solver("tree").solve(bare).seconds)
        if sample.tree is not None:
            start = time.perf_counter()
            policy.select(sample.tree, problem.num_leaves, random.Random(0))
            seconds["select"].append(time.perf_counter() - start)
    row: dict[str, Any] = {
        "source": sample.source,
        "num_leaves": problem.num_leaves,
        "num_nodes": problem.num_nodes,
        "num_clusters": problem.num_clusters,
        "lp_integral": integral,
        "max_gap": max(values) - min(values),
    }
    for name, taken in seconds.items():
        if taken:
            row[f"{name}_ms"] = 1000 * statistics.median(taken)
    if "cbc" in rivals:
        row["cbc_over_highs"] = statistics.median(
            cbc / highs for cbc, highs in zip(seconds["cbc"], seconds["highs"], strict=True)
        )
    return row


# Trees


def _synthetic(size: int, depth: int, seed: int) -> Sample:
    """A tree as REBASE grows it, its last level open: rewards drift, steps are of eight kinds with their numbers."""
    rng = random.Random(f"{seed} {size} {depth}")
    tree = SearchTree("synthetic", range(40), "prompt")
    parents: list[tuple[NodeId, float, int]] = [(ROOT, 0.6, size)]
    for _ in range(depth):
        level = [_grow(tree, parent, reward, rng) for parent, reward, count in parents for _ in range(count)]
        counts = rebase_allocation([reward for _, reward in level], size)
        parents = [(node, reward, count) for (node, reward), count in zip(level, counts, strict=True) if count]
    for node in tree.leaves():
        if node.depth < depth:
            tree.prune(node.id, "not selected")
    leaves = tree.leaves()
    for leaf, vector in zip(leaves, TfidfEmbedder().embed([leaf.text for leaf in leaves]), strict=True):
        leaf.features["embedding"] = vector
    return Sample(f"synthetic, depth {depth}", _program(tree, counts, size), tree)


def _program(tree: SearchTree, counts: Sequence[int], width: int) -> PruneProblem:
    """The program over a tree's open leaves, which REBASE gives so many children."""
    leaves = tree.leaves()
    vectors: list[Any] = [leaf.features["embedding"] for leaf in leaves]
    return build_problem(
        tree,
        [leaf.id for leaf in leaves],
        [count / sum(counts) for count in counts],
        cluster_steps([leaf.text.strip() for leaf in leaves], vectors, None).labels,
        coverage_weight=paper_coverage(width),
    )


def _grow(tree: SearchTree, parent: NodeId, reward: float, rng: random.Random) -> tuple[NodeId, float]:
    node = tree.add_child(parent)
    a, b, c = (rng.randint(2, 20) for _ in range(3))
    text = rng.choice(_KINDS).format(a=a, b=b, c=c)
    tree.write(Step(node, tuple(range(rng.randint(8, 30))), text, FinishReason.STOP, "synthetic"))
    reward = min(1.0, max(0.0, rng.gauss(reward, 0.2)))
    tree.set_reward(node, reward)
    return node, reward


class _Recorder:
    """A policy that keeps the programs another one poses."""

    def __init__(self, policy: Ets, source: str) -> None:
        self.policy, self.source = policy, source
        self.name, self.pace, self.features = policy.name, policy.pace, policy.features
        self.samples: list[Sample] = []

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        leaves = tree.leaves()
        if len(leaves) > 1:
            rewards = [tree.path_reward(leaf.id, self.policy.reduce) for leaf in leaves]
            problem = _program(tree, rebase_allocation(rewards, width), width + tree.num_finished)
            self.samples.append(Sample(self.source, problem))
        return self.policy.select(tree, width, rng)


def _recorded(seed: int) -> list[Sample]:
    """The largest program of each of some real searches; none where the mini family is not here."""
    from ets.embedders import make_embedder
    from search.api import Search
    from search.problems.data import load_problems

    samples = []
    for width in RECORDED_WIDTHS:
        recorder = _Recorder(Ets(), f"recorded, width {width}")
        policy: Policy = recorder
        with Search(method=policy, width=width, seed=seed, features=[make_embedder("tfidf")]) as search:
            for problem in load_problems("mini:dev", RECORDED_PROBLEMS):
                recorder.samples.clear()
                search.solve(problem)
                samples.append(max(recorder.samples, key=lambda sample: sample.problem.num_nodes))
    return samples
