"""The paper's own formulation through PuLP with CBC, as in the released code: to compare with."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ets.problem import PruneProblem, PruneSolution
from ets.solvers.base import DEFAULT_SECONDS, optimal, without
from search.errors import ConfigError
from search.support.extras import install, install_packages

if TYPE_CHECKING:
    import pulp

SCALE = 1e6
"""As in `ets.solvers.highs`: CBC takes no solution that is better by less than 1e-5."""


@dataclass(frozen=True, slots=True)
class PulpSolver:
    """ETS (arXiv 2502.13575) as written: y_j >= x_i for every leaf below j, y_j <= the sum of them, all binary.

    Attributes:
        max_seconds: limit of one solve, which is a process of its own.
    """

    name: ClassVar[str] = "pulp"

    max_seconds: float = DEFAULT_SECONDS

    def __post_init__(self) -> None:
        """Refuse what cannot run.

        Raises:
            ConfigError: PuLP or CBC is not installed.
        """
        if not _cbc(self.max_seconds).available():
            raise ConfigError(f"solver {self.name}: cbc is not here; {install_packages('pulp')}")

    def solve(self, problem: PruneProblem) -> PruneSolution:
        """As `Solver.solve`."""
        import pulp

        start = time.perf_counter()
        program, leaves = _program(problem)
        try:
            program.solve(_cbc(self.max_seconds))
        except pulp.PulpSolverError as error:
            return without(self.name, "failed", str(error), start)
        if program.sol_status != pulp.LpSolutionOptimal:
            message = pulp.LpSolution[program.sol_status]
            ran_out = program.sol_status in (pulp.LpSolutionIntegerFeasible, pulp.LpSolutionNoSolutionFound)
            return without(self.name, "time limit" if ran_out else "failed", message, start)
        kept = [position for position, leaf in enumerate(leaves) if leaf.value() > 0.5]
        return optimal(problem, kept, self.name, start)


def _cbc(seconds: float) -> Any:
    try:
        import pulp
    except ImportError:
        raise ConfigError(f"solver pulp needs PuLP: {install('pulp')}") from None
    bundled = getattr(pulp, "PULP_CBC_CMD", None)  # PuLP 4 has it no more: CBC is then found on the PATH
    return pulp.COIN_CMD(path=bundled and bundled.pulp_cbc_path, msg=False, timeLimit=seconds, gapRel=0.0)


def _program(problem: PruneProblem) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    import pulp

    program = pulp.LpProblem("ets", pulp.LpMaximize)
    leaves = [program.add_variable(f"x{i}", cat="Binary") for i in range(problem.num_leaves)]
    nodes = [program.add_variable(f"y{j}", cat="Binary") for j in range(problem.num_nodes)]
    terms = list(zip(leaves, (SCALE * problem.leaf_gains).tolist(), strict=True))
    terms += zip(nodes, (-SCALE * problem.node_prices).tolist(), strict=True)
    members: defaultdict[int, list[pulp.LpVariable]] = defaultdict(list)
    below: defaultdict[int, list[pulp.LpVariable]] = defaultdict(list)
    for position, leaf in enumerate(leaves):
        members[int(problem.clusters[position])].append(leaf)
        for node in problem.ancestors([position]):
            below[node].append(leaf)
    clusters = []
    if problem.coverage_weight:
        clusters = [program.add_variable(f"c{k}", cat="Binary") for k in range(problem.num_clusters)]
        terms += ((cluster, SCALE * problem.cluster_value) for cluster in clusters)
    program.setObjective(pulp.LpAffineExpression(terms))
    for node, inside in below.items():
        for leaf in inside:
            program += nodes[node] >= leaf
        program += nodes[node] <= pulp.lpSum(inside)
    for label, cluster in enumerate(clusters):
        program += cluster <= pulp.lpSum(members[label])
    program += pulp.lpSum(leaves) >= 1
    return program, leaves
