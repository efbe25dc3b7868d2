"""The state of one search while it runs: what is being written, what lives, and what was selected."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from search.decision.stopping import Decided
from search.ledger import Ledger
from search.loop.pacing import Pacing
from search.loop.progress import Progress, Watch
from search.protocols import ScorerSession, WriterSession
from search.tree import SearchTree
from search.types import ROOT, Expansion, NodeId, NodeStatus, Pace, Problem, Selected

if TYPE_CHECKING:
    from search.loop.speculation import Speculation


@dataclass(slots=True)
class Running:
    """One search between its first selection and its last.

    Attributes:
        problem, tree: what is searched.
        writer, scorer: who writes its steps and scores them, None where nothing does.
        watch: who watches it.
        stopping: what may end it early.
        ledger: what it costs.
        live: nodes whose cache is not released.
        tips: those of them without a live child.
        pending: nodes being written.
        unscored: nodes that are written and being scored.
        writing: the tasks that write.
        news: set when a step is written, scored, or has failed.
        ahead: what writes ahead for it; None where nothing does.
        notes: what policies wanted kept.
        number: of the selection it is at, from 0.
        held: children of the root that are not begun, as the vote may not need them.
        seen: finished trajectories and unscored steps when `stopping` was last asked.
        pacing: the virtual time of a rolling frontier.
        cluster_distances: where the policy cut its clusters, by the number of the selection.
    """

    problem: Problem
    tree: SearchTree
    writer: WriterSession
    scorer: ScorerSession | None
    watch: Watch | None = None
    stopping: Decided | None = None
    ledger: Ledger = field(default_factory=Ledger)
    live: set[NodeId] = field(default_factory=lambda: {ROOT})
    tips: set[NodeId] = field(default_factory=lambda: {ROOT})
    pending: set[NodeId] = field(default_factory=set)
    unscored: set[NodeId] = field(default_factory=set)
    writing: set[asyncio.Task[None]] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    ahead: Speculation | None = None
    notes: list[str] = field(default_factory=list)
    number: int = 0
    held: int = 0
    seen: tuple[int, int] = (0, 0)
    pacing: Pacing = field(default_factory=Pacing)
    _held_tokens: int = 0
    cluster_distances: dict[int, float] = field(default_factory=dict)
    _selected: dict[int, tuple[list[NodeId], list[NodeId], int | None]] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether anything is being written or scored."""
        return bool(self.pending or self.unscored)

    @property
    def continued(self) -> set[NodeId]:
        """The nodes below which something is being written."""
        return {parent for node in self.pending if (parent := self.tree[node].parent) is not None}

    def tell(self, stage: Literal["selected", "written"]) -> None:
        """Show the search to who watches it."""
        if self.watch is not None:
            kv_tokens = sum(len(self.tree[node].ids) for node in self.live)
            self.watch(Progress(stage, self.number, self.tree, self.selections, kv_tokens))

    # Selections

    def hold_back(self, expansions: Sequence[Expansion]) -> list[Expansion]:
        """The expansions of a selection, without new chains as long as the vote does not need them."""
        assert self.stopping is not None
        begun = [one for one in expansions if one.node != ROOT]
        self.held += sum(one.num_children for one in expansions if one.node == ROOT)
        if self.held:
            running = len(begun) + len(self.pending)
            more = self.stopping.num_needed(self.tree, running, self.held, self.unscored)
            self.held -= more
            begun += [Expansion(ROOT, more)] if more else []
        return begun

    def note(self, pace: Pace, leaves: Sequence[NodeId], kept: Collection[NodeId]) -> None:
        """Keep a selection for the figures of the KV cache.

        Where no leaf waits for another there is none as such: its figures are those of the same chains selected level
        by level, all leaves of a depth at once, so that they can be compared with those of methods which do.
        """
        if pace == "leaf":
            for leaf in leaves:
                if leaf != ROOT:
                    self._note(self.tree[leaf].depth, [leaf], [leaf] if leaf in kept else [])
            return
        continued = self.continued - {ROOT} if pace == "rolling" else set()
        if leaves and (candidates := {*leaves, *continued} - {ROOT}):
            self._note(self.number, candidates, {*kept, *continued}, len(self.tree))

    def _note(
        self, number: int, candidates: Collection[NodeId], kept: Collection[NodeId], num_nodes: int | None = None
    ) -> None:
        """Add to the selection of this number what it could choose from, and what it kept, when there were so many."""
        all_candidates, all_kept, _ = self._selected.setdefault(number, ([], [], num_nodes))
        all_candidates.extend(candidates)
        all_kept.extend(kept)

    @property
    def selections(self) -> tuple[Selected, ...]:
        """The selections so far, their nodes in the order of ids."""
        return tuple(
            Selected(tuple(sorted(candidates)), tuple(sorted(kept)), self.cluster_distances.get(number), num_nodes)
            for number, (candidates, kept, num_nodes) in sorted(self._selected.items())
        )

    def sort(self) -> None:
        """Number the nodes by their paths: where steps came in any order, so did their ids."""
        moved = self.tree.sort()
        self._selected = {
            number: ([moved[node] for node in candidates], [moved[node] for node in kept], num_nodes)
            for number, (candidates, kept, num_nodes) in self._selected.items()
        }

    # Ending early

    def stop(self, live: Collection[NodeId], reason: str) -> None:
        """Prune the leaves that live; what is being written is cancelled."""
        self.notes.append(f"selection {self.number}: {reason}")
        for node in live:
            self.tree.prune(node, reason)
        self.pending.clear()
        self.held = 0
        self.pacing.stop()
        for task in self.writing:
            task.cancel()

    def stop_for_time(self, reason: str, scored: bool) -> None:
        """End all trajectories as they are, when time is up and nothing runs any more.

        One whose next steps were all being written ends where it stood before them.

        Args:
            reason: which limit it is.
            scored: whether there is a scorer; a step without a reward then has no part in the vote.
        """
        tree = self.tree
        unwritten = tree.leaves(NodeStatus.PENDING)
        for node in unwritten:
            tree.prune(node.id, f"{reason}, while it was written")
        living = tree.union(
            leaf.id for status in (NodeStatus.OPEN, NodeStatus.FINISHED) for leaf in tree.leaves(status)
        )
        for parent in {node.parent for node in unwritten if node.parent is not None} - living - {ROOT}:
            tree.reopen(parent)
        for node in tree.leaves():
            if node.id == ROOT or (scored and node.reward is None):
                tree.prune(node.id, f"{reason}, before it was scored" if node.id else reason)
            else:
                tree.finish(node.id, reason)
        for node in tree.leaves(NodeStatus.FINISHED):
            if scored and node.reward is None:
                tree.fail(node.id, f"{reason}, before it was scored")

    # What a cache holds

    def started(self, node: NodeId, children: Collection[NodeId]) -> None:
        """Children of a node are going to be written: its last token is read for them."""
        self.pending.update(children)
        self.live.update(children)
        self.tips.discard(node)
        self.tips.update(children)
        if len(self.tree.children(node)) == len(children):  # it was not read before for others
            self._held_tokens += len(self.tree[node].ids) if node == ROOT else 1

    def written(self, node: NodeId) -> None:
        """A node was written, or has failed: its last token has been read by no model yet."""
        self.pending.discard(node)
        self._held_tokens += max(0, len(self.tree[node].ids) - 1)
        self.ledger.holds(self._held_tokens)
        self.news.set()

    def release_dead(self) -> set[NodeId]:
        """The nodes that nothing needs any more; they no longer live."""
        tree, dead, tips = self.tree, set[NodeId](), list(self.tips)
        while tips:
            node = tree[tips.pop()]
            if node.status in (NodeStatus.OPEN, NodeStatus.PENDING) or node.id in self.unscored:
                continue
            dead.add(node.id)
            self.live.discard(node.id)
            self.tips.discard(node.id)
            unread = 0 if node.id == ROOT or tree.children(node.id) else 1
            self._held_tokens -= max(0, len(node.ids) - unread)
            if node.parent is not None and self.live.isdisjoint(tree.children(node.parent)):
                self.tips.add(node.parent)
                tips.append(node.parent)
        return dead
