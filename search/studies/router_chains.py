"""Chains under a router, read back from records, as the routers' bench measures them: outcomes and work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.record import ProblemRecord
from search.report import Run
from search.studies.router_costs import JUDGE_OF, Work, costs_of, work_of
from search.studies.router_curves import Outcomes
from search.studies.traces import Chain, TracedStep

TARGET = "target"


def chain_of(record: ProblemRecord) -> Chain:
    """A record's chain. Whether an escalation was in vain is not in a record: it needs both steps' rewards."""
    assert record.tree is not None
    root, *nodes = record.tree.nodes
    steps = []
    for node in nodes:
        escalated = node.writer == TARGET
        drafted = node.dropped_tokens if escalated else len(node.ids)
        steps.append(TracedStep(escalated, drafted, len(node.ids) if escalated else 0, in_vain=False))
    return Chain(len(root.ids), tuple(steps), record.correct is True)


def works_of(run: Run, kind: str) -> list[dict[str, Work]]:
    """What draft, target and router did for each problem."""
    judge = JUDGE_OF.get(kind, "none")
    return [work_of(chain_of(record), judge, drafts=kind != "always") for record in run.records]


def parameters_of(runs: Sequence[Run]) -> dict[str, float]:
    """Parameters by role, as the records' engines said; 0 where none did."""
    found = {"draft": 0.0, TARGET: 0.0, "router": 0.0}
    for run in runs:
        for role, cost in run.summary.models.items():
            if role in found:
                found[role] = max(found[role], float(cost.num_parameters or 0))
    return found


def outcomes_of(run: Run, kind: str, parameters: Mapping[str, float]) -> Outcomes:
    """A run for the comparison of curves, with the costs of `COSTS`."""
    return Outcomes.of([chain_of(record) for record in run.records], costs_of(works_of(run, kind), parameters))
