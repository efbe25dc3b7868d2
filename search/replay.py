"""What a tree says of its selections, level by level: what could be kept, what was, and the KV cache of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.allocate import DEFAULT_TEMPERATURE, rebase_allocation
from search.tree import SearchTree
from search.types import NodeId, NodeStatus, Reduce


@dataclass(frozen=True, slots=True)
class Level:
    """One selection below the root.

    Attributes:
        depth: of its candidates.
        candidates: the unfinished leaves it could choose from, in the order of their ids.
        kept: those it gave children.
        kv_tokens: unique tokens of the trajectories kept, as the ledger counts them.
        kv_tokens_candidates: unique tokens of all candidates, before anything is pruned.
    """

    depth: int
    candidates: tuple[NodeId, ...]
    kept: tuple[NodeId, ...]
    kv_tokens: int
    kv_tokens_candidates: int


def replay(tree: SearchTree, levels: Sequence[Sequence[int]]) -> Iterator[Level]:
    """The selections of a search in their order.

    Args:
        tree: as the search left it, or as far as it has come.
        levels: the nodes kept at each selection below the root, as `search.driver.SearchOutcome` has them.
    """
    by_depth: dict[int, list[NodeId]] = {}
    for node in tree:
        if node.status in (NodeStatus.EXPANDED, NodeStatus.PRUNED):
            by_depth.setdefault(node.depth, []).append(node.id)
    for depth, kept in enumerate(levels, start=1):
        candidates = tuple(by_depth.get(depth, ()))
        chosen = tuple(NodeId(node) for node in kept)
        yield Level(depth, candidates, chosen, tree.unique_tokens(chosen), tree.unique_tokens(candidates))


def rebase_kv_tokens(
    tree: SearchTree, level: Level, width: int, reduce: Reduce, temperature: float = DEFAULT_TEMPERATURE
) -> int:
    """KV tokens that REBASE (arXiv 2408.00724) would keep of one selection's candidates.

    Its rule is applied to this search's own candidates, one selection at a time; a search by REBASE would have
    grown another tree, so this is no measurement of one.

    Args:
        tree: as the search left it.
        level: one of its selections.
        width: of the whole search; what finished before this selection is taken off.
        reduce: which reward of a leaf's path counts.
        temperature: REBASE's T.
    """
    finished = sum(node.status is NodeStatus.FINISHED and node.depth <= level.depth for node in tree)
    if not level.candidates or width <= finished:
        return 0
    rewards = [tree.path_reward(node, reduce) for node in level.candidates]
    shares = rebase_allocation(rewards, width - finished, temperature)
    return tree.unique_tokens(node for node, share in zip(level.candidates, shares, strict=True) if share)
