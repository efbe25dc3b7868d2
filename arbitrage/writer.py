"""The draft/target writer: the draft writes each step, a router decides, and the target writes where it escalates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from arbitrage.models import ModelView
from arbitrage.walks import DRAFT, TARGET
from search.errors import EngineError, ScoringError
from search.ledger import StageClock
from search.protocols import Engine, Router, Tokenizer
from search.streams import apply, closing, merge
from search.tree import SearchTree
from search.types import (
    Child,
    Decision,
    FinishReason,
    Generation,
    NodeId,
    Prefix,
    Sampling,
    Segment,
    Step,
    StepFailure,
    Usage,
    WriteJob,
)

_TARGET_SEED = 0xD1B54A32D192ED03


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A draft's step that is written before it is known whether the step above it stays.

    Attributes:
        child: the key and the seed it is written under.
        writing: gives the step.
    """

    child: Child
    writing: asyncio.Task[Generation]


class DraftTargetWriter:
    """Writes with two models under a router; a writer like any other, so any search runs with it.

    The target receives one request for each escalated step and none otherwise, but for a router that must see both.

    Pipelined, the draft goes on with the next step while the router judges this one; an escalation cancels that. A
    step depends on its prefix and its seed alone, so the result is the same. It works where the next step's node is
    known beforehand (`WriteJob.follower`): in a search of width 1.
    """

    def __init__(self, draft: ModelView, target: ModelView, router: Router, *, pipeline: bool = False) -> None:
        """Put the parts together; the target's tokenizer must be the trees'."""
        self.draft, self.target, self.router, self.pipeline = draft, target, router, pipeline
        self._ahead: dict[str, _Ahead] = {}
        self._routing: dict[str, StageClock] = {}

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines as "draft" and "target", and the router's own, if any, as "router"."""
        return {DRAFT: self.draft.engine, TARGET: self.target.engine, **self.router.engines}

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's."""
        return self.target.tokenizer

    async def write(
        self, tree: SearchTree, jobs: Sequence[WriteJob], sampling: Sampling
    ) -> AsyncGenerator[Step | StepFailure, None]:
        """Write every child of every job; a step that cannot be written, or not routed, is yielded as a failure."""
        async for result in merge([self._write_job(tree, job, sampling) for job in jobs]):
            yield result

    async def _write_job(
        self, tree: SearchTree, job: WriteJob, sampling: Sampling
    ) -> AsyncGenerator[Step | StepFailure, None]:
        limited = replace(sampling, max_new_tokens=job.max_new_tokens)
        children = [Child(int(child), tree[child].seed) for child in job.children]
        owed = dict.fromkeys(job.children)

        async def settle(draft: Step) -> Step | StepFailure:
            try:
                return await self._settle(tree, job, draft, limited, sampling)
            except (EngineError, ScoringError) as error:
                return StepFailure(draft.node, str(error))

        async def target_alone(child: Child) -> AsyncGenerator[Step | StepFailure, None]:
            try:
                yield await self._write_target(tree, job.node, child, limited)
            except EngineError as error:
                yield StepFailure(NodeId(child.key), str(error))

        drafted = "draft" in self.router.needs
        results = (
            apply(settle, self._drafts(tree, job.node, children, limited))
            if drafted
            else merge([target_alone(child) for child in children])
        )
        problem = "the engine ended without this step"
        try:
            async with closing(results) as settled:
                async for result in settled:
                    del owed[result.node]
                    yield result
        except EngineError as error:
            problem = str(error)
        for node in owed:
            yield StepFailure(node, problem)

    # Writing

    async def _drafts(
        self, tree: SearchTree, node: NodeId, children: Sequence[Child], limited: Sampling
    ) -> AsyncGenerator[Step, None]:
        """The draft's steps: those written ahead, else by one request."""
        ahead = self._ahead.pop(tree.id, None)
        if ahead is not None:
            written = await self._take(ahead, children, limited)
            if written is not None:
                yield self._step(tree, self.draft, written, DRAFT)
                return
        prefix = self.draft.prefix(tree, node)
        async with closing(self.draft.generate(tree, prefix, children, limited)) as made:
            async for generation in made:
                yield self._step(tree, self.draft, generation, DRAFT)

    async def _write_target(self, tree: SearchTree, node: NodeId, child: Child, limited: Sampling) -> Step:
        """The target's step, by one request of its own."""
        prefix = self.target.prefix(tree, node)
        async with closing(self.target.generate(tree, prefix, [child], limited)) as made:
            async for generation in made:
                return self._step(tree, self.target, generation, TARGET)
        raise EngineError("the engine ended without this step", endpoint=self.target.engine.info.model)

    def _step(self, tree: SearchTree, model: ModelView, made: Generation, writer: str) -> Step:
        ids = model.tree_ids(tree, made)
        return Step(NodeId(made.key), ids, made.text, made.finish, writer, made.seconds)

    async def _settle(
        self, tree: SearchTree, job: WriteJob, draft: Step, limited: Sampling, sampling: Sampling
    ) -> Step:
        """Ask the router, and the target where it is to write."""
        if draft.finish is FinishReason.ABORT or not draft.ids:
            return draft  # nothing to judge: the search fails the node
        # Not the draft's own random numbers again: by them the target would often err where the draft did.
        child = Child(int(draft.node), tree[draft.node].seed ^ _TARGET_SEED)
        self._start_ahead(tree, job, draft, sampling)
        target = None
        try:
            if "target" in self.router.needs:
                target = await self._write_target(tree, job.node, child, limited)
            decision = await self._decide(tree, draft, target)
        except BaseException:
            await self._cancel_ahead(tree)
            raise
        if not decision.escalate:
            if target is not None:
                self.target.forget(tree, draft.node)
            return replace(draft, estimate=decision.estimate)
        # The target does not wait until the draft's server has stopped what it writes ahead.
        dropping = asyncio.create_task(self._drop(tree, draft))
        try:
            target = target or await self._write_target(tree, job.node, child, limited)
        finally:
            await dropping
        seconds = draft.seconds + target.seconds
        return replace(target, seconds=seconds, estimate=decision.estimate, dropped_tokens=len(draft.ids))

    async def _drop(self, tree: SearchTree, draft: Step) -> None:
        """Stop what is written below a draft that does not stay, and give back what is cached for it."""
        await self._cancel_ahead(tree)
        self.draft.forget(tree, draft.node)
        await self.draft.engine.release(tree.id, {draft.node})

    async def _decide(self, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        with self._routing.setdefault(tree.id, StageClock()).running():
            return await self.router.route(tree, draft, target)

    # Writing ahead

    def _start_ahead(self, tree: SearchTree, job: WriteJob, draft: Step, sampling: Sampling) -> None:
        """Let the draft go on below its own step, as if that were to stay."""
        goes_on = draft.finish in (FinishReason.STOP, FinishReason.LENGTH)
        if not self.pipeline or job.follower is None or not goes_on:
            return
        above = self.draft.prefix(tree, job.node)
        prefix = Prefix(above.tree, (*above.segments, Segment(int(draft.node), self.draft.step_ids(tree, draft))))
        writing = asyncio.create_task(self._write_ahead(tree, prefix, job.follower, sampling))
        self._ahead[tree.id] = _Ahead(job.follower, writing)

    async def _write_ahead(self, tree: SearchTree, prefix: Prefix, child: Child, sampling: Sampling) -> Generation:
        async with closing(self.draft.generate(tree, prefix, [child], sampling)) as made:
            async for generation in made:
                return generation
        raise EngineError("the engine ended without this step", endpoint=self.draft.engine.info.model)

    async def _take(self, ahead: _Ahead, children: Sequence[Child], limited: Sampling) -> Generation | None:
        """The step written ahead, if it is what would be written now."""
        if [ahead.child] != list(children):
            await _cancelled(ahead.writing)
            return None
        try:
            made = await ahead.writing
        except EngineError:
            return None  # asked for in vain; asked again, it fails or not on its own account
        except asyncio.CancelledError:
            ahead.writing.cancel()
            raise
        # The limits of the trajectory were not known ahead: a step that ended by itself within them is the same.
        ended = made.finish in (FinishReason.STOP, FinishReason.EOS)
        return made if ended and len(made.ids) <= limited.max_new_tokens else None

    async def _cancel_ahead(self, tree: SearchTree) -> None:
        ahead = self._ahead.pop(tree.id, None)
        if ahead is not None:
            await _cancelled(ahead.writing)

    # Accounts

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What draft, target and router did for a tree; the router's seconds are those of its decisions."""
        clock = self._routing.get(tree.id, StageClock())
        router = {role: replace(usage, seconds=clock.seconds) for role, usage in self.router.usage(tree).items()}
        return {DRAFT: self.draft.usage(tree), TARGET: self.target.usage(tree), **router}

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes, or for the whole tree, wherever it is."""
        if nodes is None:
            await self._cancel_ahead(tree)
            self._routing.pop(tree.id, None)
        for part in (self.draft, self.target, self.router):
            await part.release(tree, nodes)


async def _cancelled(task: asyncio.Task[Generation]) -> None:
    """Cancel a task and wait until it has stopped, whatever it came to."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
