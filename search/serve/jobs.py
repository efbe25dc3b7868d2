"""Searches that run and the last that ended: who watches them, and what a page of live trees shows."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from search.api import Search
from search.ledger import Stats
from search.loop.outcome import SearchOutcome
from search.loop.progress import Progress
from search.results.result import Result
from search.serve.best import best
from search.serve.body import Asked
from search.serve.decided import DecidedSteps
from search.serve.forms import Form
from search.tree import Node, SearchTree
from search.types import NodeId, NodeStatus, Problem, Prompt, Selected

State = Literal["waiting", "running", "finished", "failed", "cancelled"]

MAX_ENDED = 32
MAX_ENDED_NODES = 50_000
"""Searches that ended are kept up to so many, and up to so many nodes of theirs."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A step of the answer is decided."""

    node: Node


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """The search went on.

    Attributes:
        fields: stage, selection (its number, from 0), leaves (trajectories that live), nodes, tokens (in the tree),
            kv_tokens.
    """

    fields: Mapping[str, Any]


Event = StepEvent | ProgressEvent


@dataclass(slots=True, eq=False)
class Job:
    """One request's search.

    Attributes:
        id: of the completion.
        asked: what was asked for.
        model: its name as the client gave it.
        problem, prompt, seed, search: what is searched, and how.
        deadline: seconds from its arrival to its answer; None: it has all the time.
        ends_at: the same in the loop's time.
        headers: of its request, for who traces it.
        arrived: Unix seconds.
        events: what a stream sends while the search runs; None where nobody streams.
        state: where it stands.
        began: whether its turn came.
        stopped: whether the server ended it, and not its client.
        seconds_queued: before it began.
        late: whether its deadline, or another limit of seconds, ended it: the answer is the best so far.
    """

    id: str
    model: str
    asked: Asked
    problem: Problem
    prompt: Prompt
    seed: int
    search: Search
    deadline: float | None = None
    ends_at: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    arrived: float = field(default_factory=time.time)
    events: asyncio.Queue[Event | None] | None = None
    state: State = "waiting"
    began: bool = False
    stopped: bool = False
    seconds_queued: float = 0.0
    late: bool = False
    tree: SearchTree | None = None
    selections: tuple[Selected, ...] = ()
    result: Result | None = None
    error: str | None = None
    _decided: DecidedSteps = field(default_factory=DecidedSteps)

    def watch(self, progress: Progress) -> None:
        """Note where the search stands, and tell who streams it."""
        tree = self.tree = progress.tree
        self.selections = tuple(progress.selections)
        if self.events is None:
            return
        live = (NodeStatus.OPEN, NodeStatus.PENDING, NodeStatus.FINISHED)
        fields = {
            "stage": progress.stage,
            "selection": progress.number,
            "leaves": sum(node.status in live for node in tree),
            "nodes": len(tree),
            "tokens": sum(len(node.ids) for node in tree),
            "kv_tokens": progress.kv_tokens,
        }
        self.events.put_nowait(ProgressEvent(fields))
        for node in self._decided.advance(tree):
            self.events.put_nowait(StepEvent(node))

    def rest(self, end: NodeId) -> list[Node]:
        """The steps of the answer that were not decided before the vote."""
        assert self.tree is not None
        return self._decided.rest(self.tree, end)

    def end(self, state: State, result: Result | None = None, error: str | None = None) -> None:
        """Note how it ended. What the search hung on its nodes is let go; the tree stays for the page."""
        self.state, self.result, self.error = state, result, error
        for node in self.tree or ():
            node.features.clear()
        if self.events is not None:
            self.events.put_nowait(None)

    @property
    def form(self) -> Form:
        """How its trajectories are told."""
        return Form(self.asked.raw, self.search.settings.thinking != "drop", self.asked.ends)

    @property
    def running(self) -> bool:
        """Whether it is under way, or yet to come."""
        return self.state in ("waiting", "running")

    @property
    def num_nodes(self) -> int:
        """Nodes of its tree so far."""
        return 0 if self.tree is None else len(self.tree)

    def summary(self) -> dict[str, Any]:
        """A line of the list of live searches."""
        settings = self.search.settings
        return {
            "id": self.id,
            "problem": self.problem.text,
            "reference": None,
            "answer": None if self.result is None else self.result.answer,
            "correct": None,
            "error": self.error,
            "running": self.running,
            "method": settings.method_name,
            "width": settings.width,
            "num_nodes": self.num_nodes,
            "state": self.state,
            "arrived": self.arrived,
        }

    def view(self) -> dict[str, Any]:
        """The search with its tree, as the page draws it."""
        from search.view import problem_view

        result, settings, problem = self.result, self.search.settings, Problem(self.id, self.problem.text)
        outcome = None if self.tree is None else SearchOutcome(problem, self.tree, Stats(), selections=self.selections)
        verdict = None
        if result is not None:
            # What was given out is shown, also where no trajectory had an answer.
            given = best(result, 1)
            outcome, verdict = result, replace(result.verdict, correct=None)
            verdict = replace(verdict, winner=given[0].node if given else None)
        return problem_view(
            problem,
            outcome,
            verdict,
            error=self.error,
            method=settings.method_name,
            width=settings.width,
            running=self.running,
        )


class Jobs:
    """All that run or wait, and the last that ran, by id; memory is bounded by their number and their nodes."""

    def __init__(self, max_ended: int = MAX_ENDED, max_ended_nodes: int = MAX_ENDED_NODES) -> None:
        """Keep at most so many that ended."""
        self.active: dict[str, tuple[Job, asyncio.Task[Result]]] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._max_ended, self._max_ended_nodes = max_ended, max_ended_nodes

    def started(self, job: Job, task: asyncio.Task[Result]) -> None:
        """Take note of a job; it counts as ended when its task is done."""
        self.active[job.id] = (job, task)
        task.add_done_callback(lambda done: self._end(job, done))

    def _end(self, job: Job, task: asyncio.Task[Result]) -> None:
        if not task.cancelled():
            task.exception()  # whoever waits for the task has it; where nobody does, it is no news
        if job.running:  # cancelled before it could begin
            job.end("cancelled", error="cancelled")
        del self.active[job.id]
        if job.began:
            self._ended[job.id] = job
        while len(self._ended) > self._max_ended or (
            len(self._ended) > 1 and sum(ended.num_nodes for ended in self._ended.values()) > self._max_ended_nodes
        ):
            self._ended.popitem(last=False)

    def stop_all(self) -> int:
        """Cancel what runs or waits, for the server's own sake; how many that were."""
        for job, task in self.active.values():
            job.stopped = True
            task.cancel()
        return len(self.active)

    def find(self, job_id: str) -> Job | None:
        """A job that runs or is still kept."""
        active = self.active.get(job_id)
        return self._ended.get(job_id) if active is None else active[0]

    def list(self) -> list[Job]:
        """Newest first."""
        every = [*self._ended.values(), *(job for job, _ in self.active.values())]
        return sorted(every, key=lambda job: -job.arrived)
