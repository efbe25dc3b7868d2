"""What several policies need: the candidates with their rewards, and the check of the options they share."""

from __future__ import annotations

from typing import NamedTuple, get_args

from search.errors import ConfigError, check_choice
from search.tree import SearchTree
from search.types import NodeId, Reduce


class Leaf(NamedTuple):
    """An open leaf and the reward of its path."""

    node: NodeId
    reward: float


def open_leaves(tree: SearchTree, reduce: Reduce) -> list[Leaf]:
    """The open leaves in the order of their ids, each with its path's reward (1 without a scorer)."""
    return [Leaf(node.id, tree.path_reward(node.id, reduce)) for node in tree.leaves()]


def check_reduce(reduce: str) -> None:
    """Refuse an unknown way to reduce rewards."""
    check_choice("reduce", reduce, get_args(Reduce))


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not positive, NaN and infinity included."""
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name} must be a positive number, not {value}")


def check_count(name: str, value: int | None) -> None:
    """Refuse a count below 1; None stands for the default."""
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be at least 1, not {value}")
