"""The search tree: append-only, shared prefixes stored once, every node kept with its fate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from html import escape as html_text

from search.steps import open_thought, without_thoughts
from search.types import ROOT, Ahead, NodeId, NodeStatus, Prefix, Reduce, Segment, Step

STEP_ABOVE_FAILED = "a step above it failed"
"""Why a step failed that was written while the one above it was still being scored."""

_OPEN_DEPTH = 2
"""Levels of a tree that a notebook shows open."""

_WRITTEN = (NodeStatus.OPEN, NodeStatus.EXPANDED, NodeStatus.FINISHED)


@dataclass(slots=True)
class Node:
    """One step of a solution, or the prompt (the root). Changed through `SearchTree` alone.

    Attributes:
        id: position in the tree.
        parent: None for the root.
        depth: number of steps from the root; the root has 0.
        ids: the token ids this node adds.
        text: the text this node adds.
        reward: the process reward of this step in [0, 1]; None until scored, or without a scorer.
        writer: the model that wrote it.
        status: where it stands.
        reason: why it finished, was pruned, or failed; empty while it lives.
        seed: the 64-bit seed of its sampling, and its key in engines. It follows from the root's seed and the node's
            path, the child numbers from the root, so it is the same whatever was created before.
        seconds_write: time its writing took.
        seconds_score: time its scoring took.
        estimate: the router's estimate; None where there was no router.
        dropped_tokens: tokens of a replaced draft.
        forced_tokens: how many of the last ids no model wrote, as they had to end a thought.
        logprobs: as in `Step`.
        cluster: the group of its level that a policy put it in; None where none did.
        num_path_tokens: tokens from the root's first to this node's last.
        features: what policies asked for, by name (e.g. "embedding").
    """

    id: NodeId
    parent: NodeId | None
    depth: int
    ids: tuple[int, ...] = ()
    text: str = ""
    reward: float | None = None
    writer: str = ""
    status: NodeStatus = NodeStatus.PENDING
    reason: str = ""
    seed: int = 0
    seconds_write: float = 0.0
    seconds_score: float = 0.0
    estimate: float | None = None
    dropped_tokens: int = 0
    forced_tokens: int = 0
    logprobs: tuple[float, ...] | None = None
    cluster: int | None = None
    num_path_tokens: int = 0
    features: dict[str, object] = field(default_factory=dict)


def derive_seed(*parts: object) -> int:
    """A 64-bit seed from whatever tells two draws apart, e.g. the run's seed, the problem's id and a node's path."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def reduce_rewards(rewards: Iterable[float], how: Reduce) -> float:
    """Reduce the rewards of a path's steps to one number in [0, 1]; a path without steps gives 1."""
    values = list(rewards)
    if not values:
        return 1.0
    if how == "last":
        return values[-1]
    if how == "min":
        return min(values)
    if how == "mean":
        return math.fsum(values) / len(values)
    return math.prod(values)


class SearchTree:
    """Nodes by id, with their children; ids are dense, and a parent's id is smaller than its children's.

    Attributes:
        id, question: as given.
        nodes: all nodes by id.
        ahead: what marks the requests that are made for this tree; None for a search's own.
    """

    def __init__(
        self,
        tree_id: str,
        prompt_ids: Iterable[int],
        prompt_text: str,
        question: str | None = None,
        seed: int = 0,
    ) -> None:
        """Start a tree at its prompt.

        Args:
            tree_id: unique among the trees an engine serves at one time; also the routing key.
            prompt_ids: the prompt's token ids for the policy model; at least one.
            prompt_text: the same prompt as text.
            question: the bare question, for models that put it into a prompt of their own; `prompt_text` if None.
            seed: the root's, from which all others follow.
        """
        ids = tuple(prompt_ids)
        self.id = tree_id
        self.ahead: Ahead | None = None
        self.question = prompt_text if question is None else question
        self.nodes: list[Node] = [
            Node(ROOT, None, 0, ids, prompt_text, status=NodeStatus.OPEN, seed=seed, num_path_tokens=len(ids))
        ]
        self._seeds = {seed}
        self._children: list[list[NodeId]] = [[]]
        self._num_finished = 0

    # Reading

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, node_id: NodeId) -> Node:
        return self.nodes[node_id]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def root(self) -> Node:
        """The prompt's node."""
        return self.nodes[ROOT]

    @property
    def num_finished(self) -> int:
        """How many trajectories have finished."""
        return self._num_finished

    def children(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """Ids of a node's children in the order of creation."""
        return tuple(self._children[node_id])

    def leaves(self, status: NodeStatus = NodeStatus.OPEN) -> list[Node]:
        """All nodes of one status in the order of their ids; by default those that may be expanded."""
        return [node for node in self.nodes if node.status is status]

    def path(self, node_id: NodeId) -> list[Node]:
        """The nodes from the root to `node_id`, both included."""
        nodes = [self.nodes[node_id]]
        while (parent := nodes[-1].parent) is not None:
            nodes.append(self.nodes[parent])
        nodes.reverse()
        return nodes

    def in_order(self) -> list[NodeId]:
        """All ids by the nodes' paths: a node, then its first child with all below it, then its second one, ..."""
        order, ahead = list[NodeId](), [ROOT]
        while ahead:
            order.append(ahead.pop())
            ahead.extend(reversed(self._children[order[-1]]))
        return order

    def num_step_tokens(self, node_id: NodeId) -> int:
        """Tokens that a node adds to its path; the root's are the prompt's."""
        node = self.nodes[node_id]
        return node.num_path_tokens - (0 if node.parent is None else self.nodes[node.parent].num_path_tokens)

    def prefix(self, node_id: NodeId) -> Prefix:
        """The path to `node_id` as an engine takes it."""
        segments = []
        for node in self.path(node_id):
            # What was put behind a step is a segment of its own, so that an engine finds what it wrote in its cache.
            written = len(node.ids) - node.forced_tokens
            segments.append(Segment(node.seed, node.ids[:written]))
            if node.forced_tokens:
                segments.append(Segment(~node.seed, node.ids[written:]))
        return Prefix(self.id, tuple(segments), self.ahead)

    def keys(self, node_ids: Iterable[NodeId]) -> set[int]:
        """What engines call these nodes."""
        return {self.nodes[node_id].seed for node_id in node_ids}

    @property
    def opening(self) -> str:
        """The tag by which the prompt opened a thought; empty where it opened none. A question's own tag opens none."""
        prompt, tag = self.root.text, open_thought(self.root.text)
        asked = self.question != prompt and self.question.rstrip().endswith(tag)
        return "" if tag and asked else tag

    def steps_text(self, node_id: NodeId) -> str:
        """The text of a trajectory without its prompt."""
        return "".join(node.text for node in self.path(node_id)[1:])

    def solution_text(self, node_id: NodeId) -> str:
        """The same for its reader: with the tag of a thought that the prompt opened and the trajectory went on with."""
        return (f"{self.opening}\n" if self.opening else "") + self.steps_text(node_id)

    def spoken_text(self, node_id: NodeId) -> str:
        """What of it is no thought; that of a node begins with that of its parent."""
        return without_thoughts(self.solution_text(node_id))

    def _repr_html_(self) -> str:
        """As a notebook shows it: the steps as nested lists, the first levels open."""
        return f"<div>{html_text(self.question)}{self._html_below(ROOT)}</div>"

    def _html_below(self, node_id: NodeId) -> str:
        """The steps below a node. Chains of single children stay in one list, so that depth is that of branches."""
        items = []
        for child in self.children(node_id):
            shown, last = [self._html_step(self.nodes[child])], child
            while len(below := self.children(last)) == 1:
                last = below[0]
                shown.append(self._html_step(self.nodes[last]))
            whole = "<br>".join(shown)
            if self.children(last):
                opened = " open" if self.nodes[child].depth <= _OPEN_DEPTH else ""
                whole = f"<details{opened}><summary>{whole}</summary>{self._html_below(last)}</details>"
            items.append(f"<li>{whole}</li>")
        return f"<ul>{''.join(items)}</ul>" if items else ""

    def _html_step(self, node: Node) -> str:
        reward = "" if node.reward is None else f" <b>{node.reward:.2f}</b>"
        reason = f" ({node.reason})" if node.reason else ""
        return f"<small>{node.status.value}{html_text(reason)}</small>{reward} {html_text(node.text.strip())}"

    def path_reward(self, node_id: NodeId, how: Reduce) -> float:
        """One reward for the path to `node_id`; steps without a reward are left out.

        A path on which no step has a reward gives 1, so that every policy also runs without a scorer.
        """
        return reduce_rewards((n.reward for n in self.path(node_id)[1:] if n.reward is not None), how)

    def union(self, node_ids: Iterable[NodeId]) -> set[NodeId]:
        """All nodes on the paths to `node_ids`."""
        seen: set[NodeId] = set()
        for node_id in node_ids:
            current: NodeId | None = node_id
            while current is not None and current not in seen:
                seen.add(current)
                current = self.nodes[current].parent
        return seen

    def unique_tokens(self, node_ids: Iterable[NodeId]) -> int:
        """Tokens on the paths to `node_ids`, each shared token counted once."""
        return sum(len(self.nodes[node_id].ids) for node_id in self.union(node_ids))

    # Growing

    def fork(self) -> SearchTree:
        """A copy to look ahead on: the same to engines, by name and keys, but its requests are marked as made ahead."""
        copied = copy(self)
        copied.nodes = [replace(node, features=dict(node.features)) for node in self.nodes]
        copied._children = [list(children) for children in self._children]
        copied._seeds = set(self._seeds)
        copied.ahead = Ahead()
        return copied

    def child_seed(self, parent: NodeId, number: int) -> int:
        """The seed of the child of this number (from 0) below `parent`, whether or not it is there yet."""
        return derive_seed(self.nodes[parent].seed, number)

    def add_child(self, parent: NodeId) -> NodeId:
        """Append a pending child below `parent` and return its id. The parent becomes expanded."""
        above = self.nodes[parent]
        seed = self.child_seed(parent, len(self._children[parent]))
        assert seed not in self._seeds, "two paths have one 64-bit hash"
        self._seeds.add(seed)
        assert above.status in (NodeStatus.OPEN, NodeStatus.EXPANDED), f"node {parent} is {above.status}"
        node_id = NodeId(len(self.nodes))
        self.nodes.append(Node(node_id, parent, above.depth + 1, seed=seed))
        self._children.append([])
        self._children[parent].append(node_id)
        above.status = NodeStatus.EXPANDED
        return node_id

    def restore(self, node: Node) -> None:
        """Append a node read from a record; its id must be the next one and its parent known."""
        assert node.id == len(self.nodes) and node.parent is not None
        self.nodes.append(node)
        self._children.append([])
        self._children[node.parent].append(node.id)
        self._num_finished += node.status is NodeStatus.FINISHED

    def write(self, step: Step) -> Node:
        """Fill a pending node with the step written for it; the node becomes open."""
        node = self.nodes[step.node]
        assert node.status is NodeStatus.PENDING, f"node {step.node} is {node.status}"
        assert node.parent is not None
        node.ids, node.text, node.writer = step.ids, step.text, step.writer
        node.seconds_write, node.estimate = step.seconds, step.estimate
        node.dropped_tokens, node.forced_tokens = step.dropped_tokens, step.forced_tokens
        node.logprobs = step.logprobs
        node.num_path_tokens = self.nodes[node.parent].num_path_tokens + len(step.ids)
        node.status = NodeStatus.OPEN
        return node

    def set_reward(self, node_id: NodeId, reward: float, seconds: float = 0.0) -> None:
        """Give a written node its reward in [0, 1]."""
        node = self.nodes[node_id]
        node.reward, node.seconds_score = reward, seconds

    def reopen(self, node_id: NodeId) -> None:
        """Make a leaf again of an expanded node below which nothing lives."""
        assert self.nodes[node_id].status is NodeStatus.EXPANDED, f"node {node_id} is {self.nodes[node_id].status}"
        self.nodes[node_id].status = NodeStatus.OPEN

    def finish(self, node_id: NodeId, reason: str) -> None:
        """End a trajectory at an open node."""
        self._close(node_id, NodeStatus.FINISHED, reason)
        self._num_finished += 1

    def prune(self, node_id: NodeId, reason: str) -> None:
        """Leave a node out of the search, with its reason."""
        self._close(node_id, NodeStatus.PRUNED, reason)

    def fail(self, node_id: NodeId, reason: str) -> None:
        """Mark a node whose writing or scoring failed, and all that has been written below it meanwhile.

        What had finished is no longer counted as finished.
        """
        assert reason, "a closed node needs its reason"
        failed = [node_id]
        while failed:
            node = self.nodes[failed.pop()]
            self._num_finished -= node.status is NodeStatus.FINISHED
            node.status, node.reason = NodeStatus.FAILED, reason if node.id == node_id else STEP_ABOVE_FAILED
            failed += [child for child in self._children[node.id] if self.nodes[child].status in _WRITTEN]

    def sort(self) -> list[NodeId]:
        """Number the nodes anew, as `in_order` has them.

        A tree whose steps came in any order is then the same tree as if they had come in another.

        Returns:
            The new id of each old one.
        """
        order = self.in_order()
        moved = [ROOT] * len(order)
        for new, old in enumerate(order):
            moved[old] = NodeId(new)
        self._children = [[moved[child] for child in self._children[old]] for old in order]
        self.nodes = [self.nodes[old] for old in order]
        for new, node in enumerate(self.nodes):
            node.id = NodeId(new)
            node.parent = None if node.parent is None else moved[node.parent]
        return moved

    def _close(self, node_id: NodeId, status: NodeStatus, reason: str) -> None:
        node = self.nodes[node_id]
        assert node.status in (NodeStatus.OPEN, NodeStatus.PENDING), f"node {node_id} is {node.status}"
        assert reason, "a closed node needs its reason"
        node.status, node.reason = status, reason
