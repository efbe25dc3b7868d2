"""The draft/target writer: the draft writes each step, a router decides, and the target writes where it escalates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from arbitrage.models import ModelSession, ModelView
from arbitrage.walks import DRAFT, TARGET
from search.errors import EngineError, ScoringError
from search.ledger import StageClock
from search.protocols import Engine, Router, RouterSession, Tokenizer
from search.support.streams import apply, closing, merge
from search.tree import SearchTree
from search.types import (
    Ahead,
    Child,
    Decision,
    FinishReason,
    NodeId,
    Sampling,
    Step,
    StepFailure,
    Usage,
    WriteJob,
)

_TARGET_SEED = 0xD1B54A32D192ED03


class DraftTargetWriter:
    """Writes with two models under a router; a writer like any other, so any search runs with it.

    The target receives one request for each escalated step and none otherwise, but for a router that must see both.

    Pipelined, the draft goes on with the first step below its own while the router judges that; an escalation cancels
    it. A step depends on its prefix and its seed alone, and the seed on its path, so the result is the same.
    """

    writes_ahead = True

    def __init__(self, draft: ModelView, target: ModelView, router: Router, *, pipeline: bool = False) -> None:
        """Put the parts together; the target's tokenizer must be the trees'."""
        self.draft, self.target, self.router, self.pipeline = draft, target, router, pipeline

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines as "draft" and "target", and the router's own, if any, as "router"."""
        return {DRAFT: self.draft.engine, TARGET: self.target.engine, **self.router.engines}

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's."""
        return self.target.tokenizer

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[DraftTargetSession]:
        """With both models and the router."""
        async with (
            self.draft.open(tree) as draft,
            self.target.open(tree) as target,
            self.router.open(tree) as router,
        ):
            yield DraftTargetSession(self, draft, target, router)


class DraftTargetSession:
    """Draft, target and router at work on one tree."""

    def __init__(
        self, writer: DraftTargetWriter, draft: ModelSession, target: ModelSession, router: RouterSession
    ) -> None:
        """Write as `writer` does."""
        self._needs, self._pipeline = writer.router.needs, writer.pipeline
        self._needs_logprobs = getattr(writer.router, "needs_logprobs", False)
        self._draft, self._target, self._router = draft, target, router
        self._routing = StageClock()

    async def write(
        self, tree: SearchTree, jobs: Sequence[WriteJob], sampling: Sampling
    ) -> AsyncGenerator[Step | StepFailure, None]:
        """Write every child of every job; a step that cannot be written, or not routed, is yielded as a failure."""
        sampling = self._as_read(sampling)
        async for result in merge([self._write_job(tree, job, sampling) for job in jobs]):
            yield result

    def _as_read(self, sampling: Sampling) -> Sampling:
        """With the log-probabilities kept where the router reads them."""
        return replace(sampling, logprobs=sampling.logprobs or self._needs_logprobs)

    async def _write_job(
        self, tree: SearchTree, job: WriteJob, sampling: Sampling
    ) -> AsyncGenerator[Step | StepFailure, None]:
        limited = replace(sampling, max_new_tokens=job.max_new_tokens)
        owed = dict.fromkeys(job.children)

        async def settle(draft: Step) -> Step | StepFailure:
            try:
                return await self._settle(tree, draft, limited, sampling)
            except (EngineError, ScoringError) as error:
                return StepFailure(draft.node, str(error))

        async def target_alone(node: NodeId) -> AsyncGenerator[Step | StepFailure, None]:
            try:
                yield await self._write_target(tree, node, tree[node].seed, limited)
            except EngineError as error:
                yield StepFailure(node, str(error))

        drafted = "draft" in self._needs
        results = (
            apply(settle, self._drafts(tree, job, limited))
            if drafted
            else merge([target_alone(child) for child in job.children])
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

    async def _drafts(self, tree: SearchTree, job: WriteJob, limited: Sampling) -> AsyncGenerator[Step, None]:
        """The draft's steps, by one request."""
        owed = {tree[child].seed: child for child in job.children}
        prefix = self._draft.prefix(tree, job.node)
        children = [Child(seed, seed) for seed in owed]
        async with closing(self._draft.generate(prefix, children, limited)) as generations:
            async for generation in generations:
                yield self._draft.step(owed[generation.key], generation, DRAFT)

    async def _write_target(self, tree: SearchTree, node: NodeId, seed: int, limited: Sampling) -> Step:
        """The target's step, by one request of its own."""
        above = tree[node].parent
        assert above is not None
        prefix, child = self._target.prefix(tree, above), Child(tree[node].seed, seed)
        async with closing(self._target.generate(prefix, [child], limited)) as generations:
            async for generation in generations:
                return self._target.step(node, generation, TARGET)
        raise EngineError("the engine ended without this step", endpoint=self._target.engine.info.model)

    async def _settle(self, tree: SearchTree, draft: Step, limited: Sampling, sampling: Sampling) -> Step:
        """Ask the router, and the target where it is to write."""
        if draft.finish is FinishReason.ABORT or not draft.ids:
            return draft  # nothing to judge: the search fails the node
        # Not the draft's own random numbers again: by them the target would often err where the draft did.
        seed = tree[draft.node].seed ^ _TARGET_SEED
        self._start_ahead(tree, draft, sampling)
        target = None
        if "target" in self._needs:
            target = await self._write_target(tree, draft.node, seed, limited)
        decision = await self._decide(tree, draft, target)
        if not decision.escalate:
            if target is not None:
                self._target.forget(tree[draft.node].seed)
            return replace(draft, estimate=decision.estimate)
        # The target does not wait until the draft's server has stopped what it writes ahead.
        dropping = asyncio.create_task(self._drop(tree[draft.node].seed))
        try:
            target = target or await self._write_target(tree, draft.node, seed, limited)
        finally:
            await dropping
        seconds = draft.seconds + target.seconds
        return replace(target, seconds=seconds, estimate=decision.estimate, dropped_tokens=len(draft.ids))

    async def _drop(self, key: int) -> None:
        """Stop what is written below a draft that does not stay, and give back what is cached for it."""
        self._draft.forget(key)
        await self._draft.release({key})

    async def _decide(self, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        with self._routing.running():
            return await self._router.route(tree, draft, target)

    # Writing ahead

    async def write_ahead(self, tree: SearchTree, job: WriteJob, sampling: Sampling) -> None:
        """Write what the first model to be asked will write; no router is asked, so no step comes of it yet.

        That is the draft, whose tokens are cheap to throw away; the target where no draft is needed.
        """
        model = self._draft if "draft" in self._needs else self._target
        children = [Child(tree[child].seed, tree[child].seed) for child in job.children]
        limited = replace(self._as_read(sampling), max_new_tokens=job.max_new_tokens)
        async with closing(model.generate(model.prefix(tree, job.node), children, limited)) as generations:
            async for _ in generations:
                pass

    def _start_ahead(self, tree: SearchTree, draft: Step, sampling: Sampling) -> None:
        """Let the draft go on below its own step, as if that were to stay."""
        goes_on = draft.finish in (FinishReason.STOP, FinishReason.LENGTH)
        if not self._pipeline or not goes_on:
            return
        first = tree.child_seed(draft.node, 0)
        prefix = replace(self._draft.step_prefix(tree, draft), ahead=Ahead())
        self._draft.begin(prefix, Child(first, first), sampling)

    # Accounts

    def usage(self) -> Mapping[str, Usage]:
        """What draft, target and router did for the tree; the router's seconds are those of its decisions."""
        seconds = self._routing.seconds
        router = {role: replace(usage, seconds=seconds) for role, usage in self._router.usage().items()}
        return {DRAFT: self._draft.usage(), TARGET: self._target.usage(), **router}

    async def release(self, keys: Collection[int]) -> None:
        """Free what is cached for these nodes, wherever it is.

        No part waits for another's engine: what a part does for the steps that come next is then always asked of it
        after this, and whether it shares a text with what goes here does not depend on the clock.
        """
        await asyncio.gather(*(part.release(keys) for part in (self._draft, self._target, self._router)))
