"""ETS, ETS-KV and ETS as published: REBASE's allocation, pruned by what a leaf's own part of the tree costs."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

from ets.chance import Chance, keep_by_chance
from ets.coverage import PAPER_DISTANCE, Clusters, check_distance, cluster_steps
from ets.problem import NodeCost, PruneSolution, build_problem
from ets.reasons import LeafFate, pruned_reason
from ets.solvers import DEFAULT_SECONDS, make_solver
from search.allocate import DEFAULT_TEMPERATURE, rebase_allocation
from search.errors import ConfigError, PolicyError, SolverError, check_choice
from search.tree import Node, SearchTree
from search.types import Expansion, Pace, Reduce, Selection

NODE_COST_WEIGHT = 2.25
"""lambda_b of `Ets`: of equal leaves about which nothing is known two thirds are kept.

Chosen on a real model's solutions of training problems (`ets bench coverage`): the most that costs less than one point
of the problems of which a right path survives.
"""

PAPER_COVERAGE: dict[int, float] = {16: 1.5, 64: 1.4, 256: 1.45}
"""lambda_d by width, as tuned in ETS (arXiv 2502.13575)."""


ALL_APART = "every leaf is a cluster of its own, so coverage finds nothing to merge and ETS may keep as much as REBASE"
"""The note of a selection in which no two leaves are alike: `cluster_distance` or the embedder decides that."""

_NO_CLUSTER = -1


def paper_coverage(width: int) -> float:
    """lambda_d of the tuned width nearest to `width` by ratio; of two as near, the smaller one's."""
    return PAPER_COVERAGE[min(PAPER_COVERAGE, key=lambda tuned: (abs(math.log2(tuned / max(width, 1))), tuned))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pruning:
    """What the three methods have in common.

    Attributes:
        node_cost_weight: lambda_b >= 0; 0 charges nothing.
        node_cost: "uniform" as in the paper, or "tokens": by a node's share of the tree's tokens.
        temperature: T of REBASE's softmax(reward / T).
        reduce: which reward of a leaf's path is meant.
    """

    pace: ClassVar[Pace] = "level"

    node_cost_weight: float = 1.0
    node_cost: NodeCost = "uniform"
    temperature: float = DEFAULT_TEMPERATURE
    reduce: Reduce = "last"

    def __post_init__(self) -> None:
        _check_weight("node_cost_weight", self.node_cost_weight)
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature must be a positive number, not {self.temperature}")
        check_choice("node_cost", self.node_cost, get_args(NodeCost))
        check_choice("reduce", self.reduce, get_args(Reduce))


@dataclass(frozen=True, slots=True, kw_only=True)
class EtsKv(_Pruning):
    """ETS-KV of ETS (arXiv 2502.13575): the pruning program without coverage.

    REBASE allocates the width; the allocation, normalised, is what each leaf is worth; the program keeps the leaves
    worth more than their own part of the tree; REBASE allocates the full width again over those. Of leaves that
    differ in nothing the lower node ids are kept, and of equal sets the larger. A solver that fails, or runs out of
    time, leaves a note, and the step goes on with the first allocation.

    Attributes:
        node_cost_weight: lambda_b >= 0; 0 is REBASE.
        solver: highs, pulp, or tree.
        solver_seconds: time limit of one solve.
    """

    name: ClassVar[str] = "ets-kv"

    solver: str = "highs"
    solver_seconds: float = DEFAULT_SECONDS

    def __post_init__(self) -> None:
        _Pruning.__post_init__(self)
        make_solver(self.solver, self.solver_seconds)

    @property
    def features(self) -> frozenset[str]:
        """None are read."""
        return frozenset()

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Cluster where coverage counts, allocate, prune, allocate again.

        Raises:
            PolicyError: coverage counts, and a leaf has no embedding.
        """
        leaves = tree.leaves()
        if len(leaves) == 1:
            return Selection((Expansion(leaves[0].id, width),))
        clusters, coverage_weight = self._coverage(tree, leaves, width)
        rewards = [tree.path_reward(leaf.id, self.reduce) for leaf in leaves]
        first = rebase_allocation(rewards, width, self.temperature)
        notes = _notes(clusters)
        solution = self._prune(tree, leaves, first, clusters, coverage_weight)
        solved = solution.status == "optimal"
        if solved:
            again = rebase_allocation([rewards[leaf] for leaf in solution.kept], width, self.temperature)
            counts = dict(zip(solution.kept, again, strict=True))
        else:
            counts = dict(enumerate(first))
            what = f"solver {self.solver}: {solution.status}, {solution.message}"
            notes.append(f"{what}; went on with REBASE's allocation")
        fate = LeafFate(self.name, tree, leaves, solution.kept, first, width, solved, clusters)
        return _selection(leaves, counts, fate, notes)

    def _coverage(self, tree: SearchTree, leaves: Sequence[Node], width: int) -> tuple[Clusters | None, float]:
        """The clusters of the leaves, None where they do not count, and lambda_d."""
        return None, 0.0

    def _prune(
        self,
        tree: SearchTree,
        leaves: Sequence[Node],
        allocation: Sequence[int],
        clusters: Clusters | None,
        coverage_weight: float,
    ) -> PruneSolution:
        """The program's optimum; a solver's error becomes a status."""
        total = sum(allocation)
        problem = build_problem(
            tree,
            [leaf.id for leaf in leaves],
            [count / total for count in allocation],
            None if clusters is None else clusters.labels,
            node_cost_weight=self.node_cost_weight,
            coverage_weight=coverage_weight,
            node_cost=self.node_cost,
        )
        try:
            return make_solver(self.solver, self.solver_seconds).solve(problem)
        except SolverError as error:
            return PruneSolution((), float("-inf"), "failed", self.solver, message=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ets(_Pruning):
    """ETS (arXiv 2502.13575) with coverage counted as a chance, and weights that are relative to the level.

    REBASE allocates the width. Of the leaves that get some of it those are kept that raise the chance that one of the
    kept is right (`ets.chance`) by more than their share of the level's tokens is worth; leaves that say the same
    count once. What was allocated to pruned ones goes to kept leaves of the same cluster, else to all that are kept:
    how often the policy comes to a step is evidence too. Needs the node feature "embedding".

    Differs: the paper adds up REBASE's parts of the kept leaves and a bonus for each cluster, which `EtsPaper` does. Of
    real models' steps hardly two are near enough to be one cluster, and then the bonus keeps them all.

    Attributes:
        node_cost_weight: lambda_b >= 0; of up to 256 equal leaves 1 / sqrt(lambda_b) are kept; 0 charges nothing.
        cluster_distance: cosine distance at which clusters are cut; None to find it from the level's own distances.
        node_cost: "tokens": by a step's share of the level's tokens; "uniform", all steps alike.
    """

    name: ClassVar[str] = "ets"
    features: ClassVar[frozenset[str]] = frozenset({"embedding"})

    node_cost_weight: float = NODE_COST_WEIGHT
    cluster_distance: float | None = None
    node_cost: NodeCost = "tokens"

    def __post_init__(self) -> None:
        _Pruning.__post_init__(self)
        check_distance(self.cluster_distance)

    def select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        """Cluster, allocate, prune, hand on.

        Raises:
            PolicyError: a leaf has no embedding.
        """
        leaves = tree.leaves()
        if len(leaves) == 1:
            return Selection((Expansion(leaves[0].id, width),))
        clusters = _clusters(self.name, leaves, self.cluster_distance)
        rewards = [tree.path_reward(leaf.id, self.reduce) for leaf in leaves]
        first = rebase_allocation(rewards, width, self.temperature)
        kept = [position for position, count in enumerate(first) if count]
        if self.node_cost_weight:
            problem = build_problem(
                tree,
                [leaf.id for leaf in leaves],
                [count / width for count in first],
                node_cost_weight=self.node_cost_weight,
                node_cost=self.node_cost,
            )
            kept = sorted(keep_by_chance(problem, Chance.of_rewards(rewards, clusters.labels), kept))
        counts = _give_to_kept(kept, rewards, first, clusters, self.temperature)
        fate = LeafFate(self.name, tree, leaves, kept, first, width, True, clusters, by_chance=True)
        return _selection(leaves, counts, fate, _notes(clusters))


@dataclass(frozen=True, slots=True, kw_only=True)
class EtsPaper(EtsKv):
    """ETS as published (arXiv 2502.13575): ETS-KV with a reward for every semantic cluster that a kept leaf covers.

    Needs the node feature "embedding", unless the coverage weight is 0.

    Attributes:
        node_cost_weight: lambda_b >= 0; 0 charges nothing.
        coverage_weight: lambda_d >= 0; None for the paper's at the nearest width of 16, 64, 256: 1.5, 1.4, 1.45.
        cluster_distance: cosine distance at which clusters are cut; None to find it from the level's own distances.
        solver: highs, or pulp; tree where the coverage weight is 0.
    """

    name: ClassVar[str] = "ets-paper"

    coverage_weight: float | None = None
    cluster_distance: float | None = PAPER_DISTANCE

    def __post_init__(self) -> None:
        EtsKv.__post_init__(self)
        if self.coverage_weight is not None:
            _check_weight("coverage_weight", self.coverage_weight)
        check_distance(self.cluster_distance)
        if self.solver == "tree" and self.coverage_weight != 0:
            raise ConfigError("solver tree takes no coverage; set coverage_weight to 0 or use the method ets-kv")

    @property
    def features(self) -> frozenset[str]:
        """The newest step's embedding, where coverage counts."""
        return frozenset() if self.coverage_weight == 0 else frozenset({"embedding"})

    def _coverage(self, tree: SearchTree, leaves: Sequence[Node], width: int) -> tuple[Clusters | None, float]:
        weight = self.coverage_weight
        if weight is None:
            weight = paper_coverage(width + tree.num_finished)
        return _clusters(self.name, leaves, self.cluster_distance) if weight else None, weight


def _clusters(policy: str, leaves: Sequence[Node], distance: float | None) -> Clusters:
    missing = [leaf.id for leaf in leaves if "embedding" not in leaf.features]
    if missing:
        raise PolicyError(f"{policy}: node {missing[0]} has no embedding")
    texts = [leaf.text.strip() for leaf in leaves]
    return cluster_steps(texts, [leaf.features["embedding"] for leaf in leaves], distance)  # type: ignore[misc]


def _check_weight(option: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{option} must be a number of at least 0, not {value}")


def _notes(clusters: Clusters | None) -> list[str]:
    notes = []
    if clusters is not None and clusters.num_unknown:
        notes.append(f"{clusters.num_unknown} leaves with an embedding that is not finite, each text a cluster")
    if clusters is not None and clusters.num_clusters == len(clusters.labels):
        notes.append(ALL_APART)
    return notes


def _selection(leaves: Sequence[Node], counts: Mapping[int, int], fate: LeafFate, notes: Sequence[str]) -> Selection:
    """From children by position to a selection, every other leaf with its reason."""
    clusters = fate.clusters
    return Selection(
        tuple(Expansion(leaf.id, counts[i]) for i, leaf in enumerate(leaves) if counts.get(i)),
        {leaf.id: pruned_reason(fate, i) for i, leaf in enumerate(leaves) if not counts.get(i)},
        "; ".join(notes),
        {} if clusters is None else {leaf.id: int(clusters.labels[i]) for i, leaf in enumerate(leaves)},
        None if clusters is None else clusters.distance,
    )


def _give_to_kept(
    kept: Sequence[int], rewards: Sequence[float], first: Sequence[int], clusters: Clusters, temperature: float
) -> dict[int, int]:
    """Children for each kept leaf: its own of the first allocation, and those of its cluster's pruned leaves.

    Args:
        kept: positions of the kept leaves.
        rewards: of all leaves.
        first: the allocation before pruning, of all leaves.
        clusters: of all leaves. What a cluster without a kept leaf had is shared by all.
        temperature: of REBASE, which shares what is free.
    """
    counts = Counter({leaf: first[leaf] for leaf in kept})
    members: defaultdict[int, list[int]] = defaultdict(list)
    for leaf in kept:
        members[int(clusters.labels[leaf])].append(leaf)
    free = Counter[int]()
    for leaf, count in enumerate(first):
        if leaf not in counts:
            label = int(clusters.labels[leaf])
            free[label if label in members else _NO_CLUSTER] += count
    for label, width in sorted(free.items()):
        leaves = members.get(label, kept)
        shares = rebase_allocation([rewards[leaf] for leaf in leaves], width, temperature)
        counts.update(dict(zip(leaves, shares, strict=True)))
    return counts
