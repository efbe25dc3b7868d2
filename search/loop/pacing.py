"""Virtual time of a search on a rolling frontier: steps count in the order of their tokens, not of their arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from search.types import NodeId, Step, StepFailure

WINDOW_TOKENS = 4
"""Selections are made at multiples of this time: what ends within a window is compared and scored together."""


@dataclass(slots=True)
class Pacing:
    """The steps of one search that are being written, each at its own virtual time.

    Time is counted in tokens. A step ends as many tokens after the selection that ordered it as it has. A selection is
    due at the end of the window in which a step ends, as soon as every other step is known to end by then or to be
    longer: it sees what has ended by its time and nothing else. So nothing of a search depends on who was faster.

    Attributes:
        now: the time of the last selection.
        arrived: steps that are written and whose time has not come.
        fresh: whether steps have ended that no selection has seen.
        watching: who waits for a step to be longer than it might have been.
    """

    now: int = 0
    arrived: dict[NodeId, Step | StepFailure] = field(default_factory=dict)
    fresh: bool = False
    watching: dict[NodeId, asyncio.Task[None]] = field(default_factory=dict)
    _starts: dict[NodeId, int] = field(default_factory=dict)
    _least: dict[NodeId, int] = field(default_factory=dict)

    def start(self, nodes: Collection[NodeId]) -> None:
        """Steps are ordered now."""
        self._starts.update(dict.fromkeys(nodes, self.now))
        self._least.update(dict.fromkeys(nodes, self.now))

    def arrive(self, result: Step | StepFailure) -> None:
        """A step is written, or has failed, which takes no time; when it counts, time will tell."""
        if (watching := self.watching.pop(result.node, None)) is not None:
            watching.cancel()
        self.arrived[result.node] = result

    def longer(self, node: NodeId, num_tokens: int) -> None:
        """A step that is being written has more than so many tokens."""
        self._least[node] = self._starts[node] + num_tokens
        self.watching.pop(node, None)

    def stop(self) -> None:
        """Nothing that is being written is wanted any more."""
        self.arrived.clear()
        for watching in self.watching.values():
            watching.cancel()

    @property
    def due(self) -> int | None:
        """When the next selection is, if no step ends before those that have arrived; None where none has."""
        if not self.arrived:
            return None
        first = min(map(self._end, self.arrived))
        return max(self.now, -(-first // WINDOW_TOKENS) * WINDOW_TOKENS)

    def unsure(self, pending: Collection[NodeId], time: int) -> Mapping[NodeId, int]:
        """Steps that may end by `time`, with the tokens than which they must be longer not to."""
        return {
            node: time - self._starts[node]
            for node in sorted(pending)
            if node not in self.arrived and self._least[node] < time
        }

    def take(self, time: int) -> list[Step | StepFailure]:
        """It is `time`: the steps that have ended by now, in their order."""
        self.now = time
        ended = sorted((self._end(node), node) for node in self.arrived if self._end(node) <= time)
        return [self.arrived.pop(node) for _, node in ended]

    def _end(self, node: NodeId) -> int:
        result = self.arrived[node]
        return self._starts[node] + (len(result.ids) if isinstance(result, Step) else 0)
