"""What a policy may answer: a budget overrun or a lost leaf is an error, never silently mended."""

from __future__ import annotations

from search.errors import PolicyError
from search.protocols import Policy
from search.tree import SearchTree
from search.types import NodeStatus, Selection


def check_selection(policy: Policy, tree: SearchTree, selection: Selection, width: int, least: int) -> None:
    """Hold a policy to its contract.

    Args:
        policy: who was asked.
        tree: as it was asked about.
        selection: its answer.
        width: children that it may hand out.
        least: children that it must hand out.

    Raises:
        PolicyError: says what is wrong.
    """
    seen = set(selection.waiting)
    for expansion in selection.expansions:
        node, count = expansion.node, expansion.num_children
        if not 0 <= node < len(tree):
            raise PolicyError(f"policy {policy.name}: there is no node {node}")
        continued = any(tree[child].status is NodeStatus.PENDING for child in tree.children(node))
        able = tree[node].status is NodeStatus.OPEN or (policy.pace == "rolling" and continued)
        if node in seen or not able or count < 1:
            raise PolicyError(f"policy {policy.name}: {count} children for node {node} ({tree[node].status})")
        seen.add(node)
    stray = [node for node in selection.clusters if not 0 <= node < len(tree)]
    if stray:
        raise PolicyError(f"policy {policy.name}: there is no node {stray[0]} to put into a cluster")
    spent = sum(expansion.num_children for expansion in selection.expansions)
    if not least <= spent <= width:
        raise PolicyError(f"policy {policy.name}: handed out {spent} children, the budget is {width}")
