"""The draft/target writer: the draft writes each step, a router decides, and the target writes where it escalates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import replace

from arbitrage.models import ModelView
from arbitrage.walks import DRAFT, TARGET
from search.errors import EngineError, ScoringError
from search.ledger import StageClock
from search.protocols import Engine, Router, Tokenizer
from search.support.streams import apply, closing, merge
from search.tree import SearchTree
from search.types import (
    Ahead,
    Child,
    Decision,
    FinishReason,
    Generation,
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

    def __init__(self, draft: ModelView, target: ModelView, router: Router, *, pipeline: bool = False) -> None:
        """Put the parts together; the target's tokenizer must be the trees'."""
        self.draft, self.target, self.router, self.pipeline = draft, target, router, pipeline
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
        sampling = self._as_read(sampling)
        async for result in merge([self._write_job(tree, job, sampling) for job in jobs]):
            yield result

    def _as_read(self, sampling: Sampling) -> Sampling:
        """With the log-probabilities kept where the router reads them."""
        return replace(sampling, logprobs=sampling.logprobs or getattr(self.router, "needs_logprobs", False))

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

        drafted = "draft" in self.router.needs
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
        prefix = self.draft.prefix(tree, job.node)
        children = [Child(seed, seed) for seed in owed]
        async with closing(self.draft.generate(tree, prefix, children, limited)) as made:
            async for generation in made:
                yield self._step(tree, owed[generation.key], self.draft, generation, DRAFT)

    async def _write_target(self, tree: SearchTree, node: NodeId, seed: int, limited: Sampling) -> Step:
        """The target's step, by one request of its own."""
        above = tree[node].parent
        assert above is not None
        prefix, child = self.target.prefix(tree, above), Child(tree[node].seed, seed)
        async with closing(self.target.generate(tree, prefix, [child], limited)) as made:
            async for generation in made:
                return self._step(tree, node, self.target, generation, TARGET)
        raise EngineError("the engine ended without this step", endpoint=self.target.engine.info.model)

    def _step(self, tree: SearchTree, node: NodeId, model: ModelView, made: Generation, writer: str) -> Step:
        return Step(
            node, model.tree_ids(tree, made), made.text, made.finish, writer, made.seconds, logprobs=made.logprobs
        )

    async def _settle(self, tree: SearchTree, draft: Step, limited: Sampling, sampling: Sampling) -> Step:
        """Ask the router, and the target where it is to write."""
        if draft.finish is FinishReason.ABORT or not draft.ids:
            return draft  # nothing to judge: the search fails the node
        # Not the draft's own random numbers again: by them the target would often err where the draft did.
        seed = tree[draft.node].seed ^ _TARGET_SEED
        self._start_ahead(tree, draft, sampling)
        target = None
        if "target" in self.router.needs:
            target = await self._write_target(tree, draft.node, seed, limited)
        decision = await self._decide(tree, draft, target)
        if not decision.escalate:
            if target is not None:
                self.target.forget(tree, draft.node)
            return replace(draft, estimate=decision.estimate)
        # The target does not wait until the draft's server has stopped what it writes ahead.
        dropping = asyncio.create_task(self._drop(tree, draft))
        try:
            target = target or await self._write_target(tree, draft.node, seed, limited)
        finally:
            await dropping
        seconds = draft.seconds + target.seconds
        return replace(target, seconds=seconds, estimate=decision.estimate, dropped_tokens=len(draft.ids))

    async def _drop(self, tree: SearchTree, draft: Step) -> None:
        """Stop what is written below a draft that does not stay, and give back what is cached for it."""
        self.draft.forget(tree, draft.node)
        await self.draft.release(tree, {draft.node})

    async def _decide(self, tree: SearchTree, draft: Step, target: Step | None) -> Decision:
        with self._routing.setdefault(tree.id, StageClock()).running():
            return await self.router.route(tree, draft, target)

    # Writing ahead

    async def write_ahead(self, tree: SearchTree, job: WriteJob, sampling: Sampling) -> None:
        """Write what the first model to be asked will write; no router is asked, so no step comes of it yet.

        That is the draft, whose tokens are cheap to throw away; the target where no draft is needed.
        """
        model = self.draft if "draft" in self.router.needs else self.target
        children = [Child(tree[child].seed, tree[child].seed) for child in job.children]
        limited = replace(self._as_read(sampling), max_new_tokens=job.max_new_tokens)
        async with closing(model.generate(tree, model.prefix(tree, job.node), children, limited)) as made:
            async for _ in made:
                pass

    def _start_ahead(self, tree: SearchTree, draft: Step, sampling: Sampling) -> None:
        """Let the draft go on below its own step, as if that were to stay."""
        goes_on = draft.finish in (FinishReason.STOP, FinishReason.LENGTH)
        if not self.pipeline or not goes_on:
            return
        first = tree.child_seed(draft.node, 0)
        prefix = replace(self.draft.step_prefix(tree, draft), ahead=Ahead())
        self.draft.begin(prefix, Child(first, first), sampling)

    # Accounts

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What draft, target and router did for a tree; the router's seconds are those of its decisions."""
        clock = self._routing.get(tree.id, StageClock())
        router = {role: replace(usage, seconds=clock.seconds) for role, usage in self.router.usage(tree).items()}
        return {DRAFT: self.draft.usage(tree), TARGET: self.target.usage(tree), **router}

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes, or for the whole tree, wherever it is.

        No part waits for another's engine: what a part does for the steps that come next is then always asked of it
        after this, and whether it shares a text with what goes here does not depend on the clock.
        """
        if nodes is None:
            self._routing.pop(tree.id, None)
        await asyncio.gather(*(part.release(tree, nodes) for part in (self.draft, self.target, self.router)))
