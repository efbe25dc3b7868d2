"""What a tree says of its selections: what could be kept, what was, and the KV cache of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.allocate import rebase_allocation
from search.ledger import KvTokens
from search.tree import SearchTree
from search.types import NodeId, NodeStatus, Reduce, Selected


@dataclass(frozen=True, slots=True)
class Replayed:
    """One selection below the root.

    Attributes:
        depth: of its deepest candidate; that of all of them where the method works level by level.
        candidates: the unfinished leaves it could choose from, in the order of their ids; on a rolling frontier also
            what stood above the steps that were being written.
        kept: those it gave children or let wait.
        num_nodes: nodes that there were: those with lower ids.
        kv_tokens: unique tokens of the trajectories kept, and of all candidates before anything was pruned.
        cluster_distance: where the policy cut its clusters; None where it made none.
    """

    depth: int
    candidates: tuple[NodeId, ...]
    kept: tuple[NodeId, ...]
    num_nodes: int
    kv_tokens: KvTokens
    cluster_distance: float | None = None


def replay(tree: SearchTree, selections: Sequence[Selected]) -> Iterator[Replayed]:
    """The selections of a search in their order, as `search.loop.outcome.SearchOutcome` has them.

    Args:
        tree: as the search left it, or as far as it has come.
        selections: its own.
    """
    for one in selections:
        depth = max(tree[node].depth for node in one.candidates)
        kv_tokens = KvTokens(tree.unique_tokens(one.kept), tree.unique_tokens(one.candidates))
        # Records of before it was kept: as far as is known then, but for what finished at once.
        num_nodes = max(one.candidates) + 1 if one.num_nodes is None else one.num_nodes
        yield Replayed(depth, one.candidates, one.kept, num_nodes, kv_tokens, one.cluster_distance)


def is_by_depth(tree: SearchTree, selections: Sequence[Selected]) -> bool:
    """Whether each selection was between the leaves of one depth, and no two of the same."""
    depths = [{tree[node].depth for node in one.candidates} for one in selections]
    return all(len(one) == 1 for one in depths) and len(set().union(*depths)) == len(depths)


def being_written(tree: SearchTree, replayed: Sequence[Replayed]) -> Iterator[list[NodeId]]:
    """For each selection the steps that were being written below what it kept, as on a rolling frontier.

    Steps that had finished by then, or had failed, cannot be told from those that had not, and are among them.
    """
    seen: set[NodeId] = set()
    for one in replayed:
        seen.update(one.candidates)
        kept = set(one.kept)
        yield [node.id for node in tree.nodes[: one.num_nodes] if node.parent in kept and node.id not in seen]


def rebase_kv_tokens(tree: SearchTree, selection: Replayed, width: int, reduce: Reduce) -> int:
    """KV tokens that REBASE (arXiv 2408.00724) would keep of one selection's candidates.

    Its rule is applied to this search's own candidates, one selection at a time; a search by REBASE would have
    grown another tree, so this is no measurement of one.

    Args:
        tree: as the search left it.
        selection: one of its selections.
        width: of the whole search; what had finished at this selection is taken off.
        reduce: which reward of a leaf's path counts.
    """
    finished = sum(node.status is NodeStatus.FINISHED and node.depth <= selection.depth for node in tree)
    if not selection.candidates or width <= finished:
        return 0
    rewards = [tree.path_reward(node, reduce) for node in selection.candidates]
    shares = rebase_allocation(rewards, width - finished)
    return tree.unique_tokens(node for node, share in zip(selection.candidates, shares, strict=True) if share)
