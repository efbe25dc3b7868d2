"""The pruning program of ETS as arrays: what each leaf is worth, what each node costs, what clusters there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.errors import SolverError
from search.tree import SearchTree
from search.types import NodeId

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

NodeCost = Literal["uniform", "tokens"]
"""What a node is charged: the same as every other, or its share of the tokens."""

Status = Literal["optimal", "time limit", "failed"]
"""How a solver ended; what is not "optimal" keeps nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class PruneProblem:
    """Which leaves to keep, after ETS (arXiv 2502.13575). Leaves i, their distinct ancestors j, clusters k.

        maximise   sum_i O_i x_i - lambda_b (sum_j s_j y_j + sum_i s_i x_i) + (lambda_d / K) sum_k c_k
        where      y_j = 1 iff a leaf below j is kept, c_k = 1 iff a leaf of cluster k is kept, one leaf at least

    The shares s add up to 1 over leaves and ancestors: 1 / (M + N) each as in the paper, or by tokens. So at
    lambda_b = 1 keeping everything costs exactly as much as all rewards together are worth.

    Attributes:
        leaf_values: O_i, REBASE's allocation over its sum. (num_leaves,)
        leaf_shares: s_i >= 0. (num_leaves,)
        leaf_parents: index of each leaf's parent among the ancestors; -1 if the leaf is the root. (num_leaves,)
        node_shares: s_j >= 0. (num_nodes,)
        node_parents: index of each ancestor's parent, less than its own; -1 for the root, which comes first.
            (num_nodes,)
        clusters: label of each leaf; the labels in use are 0 .. K - 1. (num_leaves,)
        node_cost_weight: lambda_b >= 0; 0 charges nothing at all.
        coverage_weight: lambda_d >= 0; 0 leaves coverage out.
    """

    leaf_values: Floats
    leaf_shares: Floats
    leaf_parents: Ints
    node_shares: Floats
    node_parents: Ints
    clusters: Ints
    node_cost_weight: float = 1.0
    coverage_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse arrays that are no such program.

        Raises:
            SolverError: says which array is wrong.
        """
        leaves, nodes = len(self.leaf_values), len(self.node_shares)
        if not leaves:
            raise SolverError("a pruning program needs at least one leaf")
        for name, size in (
            ("leaf_shares", leaves),
            ("leaf_parents", leaves),
            ("clusters", leaves),
            ("node_parents", nodes),
        ):
            if getattr(self, name).shape != (size,):
                raise SolverError(f"{name} has the shape {getattr(self, name).shape}, not ({size},)")
        for name in ("leaf_values", "leaf_shares", "node_shares"):
            if not (np.isfinite(getattr(self, name)).all() and (getattr(self, name) >= 0).all()):
                raise SolverError(f"{name} must be finite and not negative")
        for name in ("node_cost_weight", "coverage_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SolverError(f"{name} must be a number of at least 0, not {getattr(self, name)}")
        self._check_structure(leaves, nodes)

    def _check_structure(self, leaves: int, nodes: int) -> None:
        parents, above = self.node_parents, self.leaf_parents
        if nodes == 0:
            if leaves != 1 or above[0] != -1:
                raise SolverError("without ancestors there is one leaf, the root")
        elif parents[0] != -1 or (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, nodes)).any():
            raise SolverError("node_parents must start with -1, the root, and name an earlier node each")
        elif (above < 0).any() or (above >= nodes).any():
            raise SolverError("leaf_parents must name an ancestor each")
        if self.clusters.min() < 0 or len(np.unique(self.clusters)) != self.clusters.max() + 1:
            raise SolverError("clusters must be labelled 0 .. K - 1, each in use")

    @property
    def num_leaves(self) -> int:
        """N."""
        return len(self.leaf_values)

    @property
    def num_nodes(self) -> int:
        """M, the distinct ancestors, the root included."""
        return len(self.node_shares)

    @property
    def num_clusters(self) -> int:
        """K."""
        return int(self.clusters.max()) + 1

    @property
    def leaf_gains(self) -> Floats:
        """Each leaf's value less its own price, (num_leaves,)."""
        return self.leaf_values - self.node_cost_weight * self.leaf_shares

    @property
    def node_prices(self) -> Floats:
        """What each ancestor costs, (num_nodes,)."""
        return self.node_cost_weight * self.node_shares

    @property
    def cluster_value(self) -> float:
        """What one covered cluster is worth, lambda_d / K."""
        return self.coverage_weight / self.num_clusters

    def ancestors(self, kept: Collection[int]) -> set[int]:
        """Indices of the ancestors of some leaves."""
        seen: set[int] = set()
        for leaf in kept:
            node = int(self.leaf_parents[leaf])
            while node >= 0 and node not in seen:
                seen.add(node)
                node = int(self.node_parents[node])
        return seen

    def objective(self, kept: Collection[int]) -> float:
        """The program's value if exactly these leaves are kept; -infinity for none."""
        if not kept:
            return float("-inf")
        leaves = np.fromiter(kept, dtype=np.int64)
        nodes = np.fromiter(self.ancestors(kept), dtype=np.int64)
        covered = len(np.unique(self.clusters[leaves]))
        value = self.leaf_gains[leaves].sum() - self.node_prices[nodes].sum() + self.cluster_value * covered
        return float(value)


@dataclass(frozen=True, slots=True)
class PruneSolution:
    """What a solver found.

    Attributes:
        kept: positions of the kept leaves, rising; empty unless the status is "optimal".
        objective: the program's value there; -infinity unless optimal.
        status: how the solver ended.
        solver: who.
        lp_integral: whether the LP relaxation was integral; None where none was solved.
        seconds: wall time.
        message: what the solver said of an end that is not optimal.
    """

    kept: tuple[int, ...]
    objective: float
    status: Status
    solver: str
    lp_integral: bool | None = None
    seconds: float = 0.0
    message: str = ""


def build_problem(
    tree: SearchTree,
    leaves: Sequence[NodeId],
    values: Sequence[float],
    clusters: ArrayLike | None = None,
    *,
    node_cost_weight: float = 1.0,
    coverage_weight: float = 0.0,
    node_cost: NodeCost = "uniform",
) -> PruneProblem:
    """The program over some leaves of a tree; nodes that none of them descends from play no part.

    Args:
        tree: read only.
        leaves: the candidates; none is an ancestor of another.
        values: O_i of each.
        clusters: label of each, 0 .. K - 1; None for one cluster.
        node_cost_weight: lambda_b.
        coverage_weight: lambda_d.
        node_cost: "uniform", or "tokens": a node is charged its share of the unique tokens on all paths, the
            prompt's included, which is what the cache holds.

    Raises:
        SolverError: no leaves, or clusters that do not fit.
    """
    ancestors = sorted(tree.union(leaves).difference(leaves))  # a parent's id is smaller than its children's
    index = {node: position for position, node in enumerate(ancestors)}
    parents = [-1 if (above := tree[node].parent) is None else index[above] for node in [*ancestors, *leaves]]
    num_nodes = len(ancestors)
    if node_cost == "tokens":
        sizes = np.array([tree.num_step_tokens(node) for node in [*ancestors, *leaves]], dtype=np.float64)
    else:
        sizes = np.ones(len(parents))
    shares = sizes / max(sizes.sum(), 1.0)
    return PruneProblem(
        leaf_values=np.asarray(values, dtype=np.float64),
        leaf_shares=shares[num_nodes:],
        leaf_parents=np.array(parents[num_nodes:], dtype=np.int64),
        node_shares=shares[:num_nodes],
        node_parents=np.array(parents[:num_nodes], dtype=np.int64),
        clusters=np.zeros(len(leaves), dtype=np.int64) if clusters is None else np.asarray(clusters, dtype=np.int64),
        node_cost_weight=node_cost_weight,
        coverage_weight=coverage_weight,
    )
