"""Where trajectories end although the model would go on."""

from __future__ import annotations

from dataclasses import dataclass

from search.tree import SearchTree
from search.types import FinishReason, NodeId

_END_REASONS = {
    FinishReason.EOS: "end of text",
    FinishReason.CONTEXT: "context full",
}


def out_of_time(seconds: float | None) -> str:
    """Why trajectories end, or are left out, when a search's wall seconds are over."""
    return f"limit of {seconds} seconds"


def is_out_of_time(reason: str) -> bool:
    """Whether a node's reason is one that `out_of_time` began."""
    return reason.startswith("limit of ") and " seconds" in reason


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a search stops although the model would go on.

    Attributes:
        max_tokens: tokens of one trajectory, the prompt not counted.
        max_depth: steps of one trajectory.
        max_seconds: wall seconds of one problem; None for no limit.
        final: phrases by which a step is known to be a solution's last, for models that would go on.
        whole: whether a step that its limit ended ends its trajectory, as steps are cut from whole solutions.
    """

    max_tokens: int = 1024
    max_depth: int = 25
    max_seconds: float | None = None
    final: tuple[str, ...] = ()
    whole: bool = False

    def room(self, tree: SearchTree, node_id: NodeId, max_step_tokens: int) -> int:
        """Tokens that are left for one step below a node, at least 1."""
        return max(1, min(self.max_tokens - _written_tokens(tree, node_id), max_step_tokens))

    def end(self, tree: SearchTree, node_id: NodeId, finish: FinishReason, context_tokens: int) -> str:
        """Why a trajectory ends with this written node; empty if it goes on.

        Args:
            tree: where the node stands.
            node_id: its newest step.
            finish: how that ended.
            context_tokens: of the models that would have to go on.
        """
        node = tree[node_id]
        if finish in _END_REASONS:
            return _END_REASONS[finish]
        if self.whole and finish is FinishReason.LENGTH:
            return "limit of a solution's tokens"
        if _written_tokens(tree, node_id) >= self.max_tokens:
            return f"limit of {self.max_tokens} tokens"
        if node.depth >= self.max_depth:
            return f"limit of {self.max_depth} steps"
        if any(phrase in node.text for phrase in self.final):
            return "final answer"
        return _END_REASONS[FinishReason.CONTEXT] if node.num_path_tokens >= context_tokens else ""


def _written_tokens(tree: SearchTree, node_id: NodeId) -> int:
    return tree[node_id].num_path_tokens - tree.root.num_path_tokens
