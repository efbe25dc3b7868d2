"""The one loop of every search: whenever a step is written or scored, ask the policy, until nothing is left to do."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import get_args

from search.decision.stopping import Decided
from search.errors import ConfigError, ContextOverflowError, EngineError, PromptTooLongError, ScoringError
from search.loop.contract import check_selection
from search.loop.limits import Limits, out_of_time
from search.loop.outcome import SearchOutcome, outcome_of
from search.loop.progress import Watch
from search.loop.running import Running
from search.loop.speculation import Speculation
from search.loop.thoughts import ThoughtLimit
from search.loop.writer import writing_engines
from search.protocols import (
    AheadSession,
    FeatureProvider,
    PacedSession,
    Policy,
    Scorer,
    ScorerSession,
    Writer,
)
from search.support.streams import closing
from search.tree import STEP_ABOVE_FAILED, SearchTree, derive_seed
from search.types import (
    Expansion,
    FinishReason,
    NodeId,
    NodeStatus,
    Pace,
    Problem,
    Prompt,
    Sampling,
    Selection,
    Step,
    StepFailure,
    WriteJob,
)

__all__ = ["PRM_CONTEXT_FULL", "Driver", "Limits", "SearchOutcome"]

_tree_numbers = itertools.count()

PRM_CONTEXT_FULL = "the path is longer than the reward model's context"
"""Why a step failed that only the policy model had room for."""


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error of a group: one clear line says more than all siblings that failed alike."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


class Driver:
    """Runs a policy with a writer and a scorer. One driver may run any number of problems at the same time."""

    def __init__(
        self,
        policy: Policy,
        writer: Writer,
        scorer: Scorer | None,
        *,
        width: int,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        seed: int = 0,
        features: Sequence[FeatureProvider] = (),
        thoughts: ThoughtLimit | None = None,
        stopping: Callable[[], Decided] | None = None,
        speculate: float | None = None,
        sparing: bool = False,
        hopeless: Callable[[SearchTree, NodeId], str] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            policy: the search method.
            writer: who writes the steps.
            scorer: who scores them; None leaves all rewards None.
            width: trajectories to spend, at least 1.
            sampling: of a step; `max_new_tokens` is the limit for one step.
            limits: of trajectories and of the whole search.
            seed: the run's seed.
            features: providers for the features that `policy` declares.
            thoughts: how much a trajectory may think; None for no limit of its own.
            stopping: makes, for each search, what may end it before its width is spent; None for none.
            speculate: share in (0, 1] of the width's idle places that writes ahead of what a method that compares
                leaves will select; no result depends on it. None for none.
            sparing: whether a method that compares nothing begins no more chains than `stopping` may need.
            hopeless: why a written step that would be gone on with is given up at once; empty for one that is not.

        Raises:
            ConfigError: the width is below 1, the policy says no known pace, a declared feature has no provider, or the
                writer writes nothing ahead.
        """
        if (pace := getattr(policy, "pace", None)) not in get_args(Pace):
            raise ConfigError(
                f"policy {policy.name}: its pace must be one of {', '.join(get_args(Pace))}, not {pace!r}"
            )
        if width < 1:
            raise ConfigError(f"width {width}: must be at least 1")
        self.policy, self.writer, self.scorer = policy, writer, scorer
        self.width, self.seed = width, seed
        self.sampling = sampling or Sampling()
        self.limits = limits or Limits()
        self._thoughts = thoughts
        self._stopping = stopping
        self._hopeless = hopeless
        self._sparing = sparing and policy.pace == "leaf" and stopping is not None
        self._speculate = speculate if policy.pace == "level" else None
        if self._speculate is not None and not getattr(writer, "writes_ahead", False):
            raise ConfigError(f"speculate: {type(writer).__name__} has no writes_ahead, so it writes nothing ahead")
        self._features: Mapping[str, FeatureProvider] = {provider.name: provider for provider in features}
        missing = sorted(policy.features - self._features.keys())
        if missing:
            raise ConfigError(f"policy {policy.name} needs the feature {missing[0]!r}, which nothing provides")
        self._repeatable = all(engine.info.seeds == "exact" for engine in writing_engines(writer))
        self._context_tokens = min(engine.info.context_tokens for engine in writer.engines.values())

    @property
    def speculates(self) -> bool:
        """Whether steps are written ahead; never for a method that compares nothing, as none of its leaves waits."""
        return self._speculate is not None

    async def solve(
        self,
        problem: Problem,
        prompt: Prompt | str,
        *,
        seed: int | None = None,
        watch: Watch | None = None,
        max_seconds: float | None = None,
    ) -> SearchOutcome:
        """Search one problem to its end.

        A node that cannot be written or scored stays in the tree as failed and the others go on.

        Args:
            problem: what to solve.
            prompt: the problem as the policy model reads it; a text is encoded as it is.
            seed: in place of the run's own.
            watch: called before and after each selection; what it raises ends the search.
            max_seconds: of this problem, beside the limits' own; the shorter one counts.

        Raises:
            ConfigError: the prompt is empty.
            PromptTooLongError: it leaves no room in the model's context.
            ScoringError: the scorer gave something that is not a reward.
        """
        if isinstance(prompt, str):
            prompt = Prompt(prompt, self.writer.tokenizer.encode(prompt))
        if not prompt.ids:
            raise ConfigError(f"problem {problem.id}: the prompt is empty")
        if len(prompt.ids) >= self._context_tokens:
            raise PromptTooLongError(
                f"problem {problem.id}: the prompt has {len(prompt.ids)} tokens, "
                f"the model's context holds {self._context_tokens}"
            )
        root_seed = derive_seed(self.seed if seed is None else seed, problem.id)
        tree = SearchTree(f"{problem.id}#{next(_tree_numbers)}", prompt.ids, prompt.text, problem.text, root_seed)
        scored: AbstractAsyncContextManager[ScorerSession | None] = (
            nullcontext() if self.scorer is None else self.scorer.open(tree)
        )
        async with self.writer.open(tree) as writer, scored as scorer:
            run = Running(problem, tree, writer, scorer, watch, None if self._stopping is None else self._stopping())
            if self._speculate is not None and isinstance(writer, AheadSession):
                run.ahead = Speculation(self, writer, run, self._speculate)
            try:
                with run.ledger.whole.running():
                    await self._search(run, max_seconds)
            except BaseExceptionGroup as errors:
                raise _first(errors) from None
            if self.policy.pace == "leaf":
                run.sort()
            return outcome_of(run, self.writer, self.scorer)

    async def _search(self, run: Running, max_seconds: float | None) -> None:
        seconds = min((one for one in (self.limits.max_seconds, max_seconds) if one is not None), default=None)
        limit = asyncio.timeout(seconds)
        try:
            async with limit, asyncio.TaskGroup() as tasks:
                while await self._advance(run, tasks):
                    await run.news.wait()
        except TimeoutError:
            if not limit.expired():
                raise  # a part's own
            run.stop_for_time(out_of_time(seconds), self.scorer is not None)
        finally:
            if run.ahead is not None:
                await run.ahead.stop()

    async def _advance(self, run: Running, tasks: asyncio.TaskGroup) -> bool:
        """Ask the policy, if it is to be asked now, and have its orders written; whether there is more to wait for."""
        run.news.clear()
        if self.policy.pace == "level" and run.busy:
            if run.ahead is not None:
                run.ahead.look()
            return True
        if self.policy.pace == "rolling" and run.busy and not self._is_due(run, tasks):
            return True
        if len(run.tree) > 1:
            run.tell("written")
            run.number += 1
        self._stop_if_decided(run)
        jobs = await self._select(run)
        if run.ahead is not None:
            run.ahead.settle()
        dead = run.release_dead()
        run.tell("selected")
        # Memory first, then new work; but nobody waits until it is given back.
        for session in (run.writer, run.scorer):
            if dead and session is not None:
                tasks.create_task(session.release(run.tree.keys(dead)))
        if jobs:
            run.writing.add(writing := tasks.create_task(self._write(run, jobs, tasks)))
            writing.add_done_callback(run.writing.discard)
        if run.pacing.arrived:  # before or during this selection, and not seen by it
            run.news.set()
        return run.busy

    def _is_due(self, run: Running, tasks: asyncio.TaskGroup) -> bool:
        """Let virtual time pass, as far as is known what happens in it; whether the policy is to be asked now."""
        pacing = run.pacing
        while not run.unscored and not pacing.fresh and (time := pacing.due) is not None:
            # Where servers draw as they like nothing is repeatable, and what has come has come.
            unsure = pacing.unsure(run.pending, time) if self._repeatable else {}
            for node, num_tokens in unsure.items():
                if isinstance(run.writer, PacedSession) and node not in pacing.watching:
                    pacing.watching[node] = tasks.create_task(self._watch(run, run.writer, node, num_tokens))
            if unsure:
                return False
            for result in pacing.take(time):
                self._put_into_tree(run, result, tasks)
            pacing.fresh = True
        return pacing.fresh and not run.unscored

    async def _watch(self, run: Running, writer: PacedSession, node: NodeId, num_tokens: int) -> None:
        await writer.longer_than(run.tree[node].seed, num_tokens)
        run.pacing.longer(node, num_tokens)
        run.news.set()

    # Selecting

    async def _select(self, run: Running) -> list[WriteJob]:
        """One selection: prune what is left out, and create the pending children."""
        tree = run.tree
        run.pacing.fresh = False
        leaves = [leaf.id for leaf in tree.leaves()]
        width = self.width - tree.num_finished - len(run.pending)
        if leaves and width > 0:
            with run.ledger.features.running():
                # On a rolling frontier what stands above the steps that are being written is compared as well.
                above = run.continued if self.policy.pace == "rolling" else set()
                await self.provide(tree, sorted({*leaves, *above}))
            rng = random.Random(derive_seed(tree.root.seed, "level", run.number))
            with run.ledger.select.running():
                selection = self.policy.select(tree, width, rng)
            check_selection(self.policy, tree, selection, width, 0 if run.busy else 1)
        else:
            selection = Selection((), dict.fromkeys(leaves, "no width left"))
        if selection.note:
            run.notes.append(f"selection {run.number}: {selection.note}")
        for leaf, cluster in selection.clusters.items():
            tree[leaf].cluster = cluster
        if selection.cluster_distance is not None:
            run.cluster_distances[run.number] = selection.cluster_distance
        kept = selection.waiting | {expansion.node for expansion in selection.expansions}
        run.note(self.policy.pace, leaves, kept)
        for leaf in leaves:
            if leaf not in kept:
                tree.prune(leaf, selection.reasons.get(leaf) or f"{self.policy.name}: not selected")
        expansions = run.hold_back(selection.expansions) if self._sparing else selection.expansions
        return [self._job(run, expansion) for expansion in expansions]

    async def provide(self, tree: SearchTree, leaves: Sequence[NodeId]) -> None:
        """Have the features that the policy declares computed for those leaves that lack them."""
        for name in sorted(self.policy.features):
            provider = self._features[name]
            anew = self.policy.pace == "rolling" and not getattr(provider, "batch_free", True)
            todo = [tree[leaf] for leaf in leaves if anew or name not in tree[leaf].features]
            if not todo:
                continue
            values = await provider.compute(tree, todo)
            for node, value in zip(todo, values, strict=True):
                node.features[name] = value

    def _job(self, run: Running, expansion: Expansion) -> WriteJob:
        """Create the pending children of one expansion."""
        tree = run.tree
        children = tuple(tree.add_child(expansion.node) for _ in range(expansion.num_children))
        run.started(expansion.node, children)
        run.pacing.start(children)
        return WriteJob(expansion.node, children, self.room(tree, expansion.node))

    # Writing and scoring

    async def _write(self, run: Running, jobs: list[WriteJob], tasks: asyncio.TaskGroup) -> None:
        """Write all children; each goes to the scorer as soon as it is written."""
        owed, problem = {child for job in jobs for child in job.children}, "the writer ended without this step"
        try:
            with run.ledger.policy.running():
                async with closing(run.writer.write(run.tree, jobs, self.sampling)) as results:
                    async for result in results:
                        owed.discard(result.node)
                        self._arrive(run, result, tasks)
        except EngineError as error:
            problem = str(error)
        for node in owed:
            self._arrive(run, StepFailure(node, problem), tasks)

    def _arrive(self, run: Running, result: Step | StepFailure, tasks: asyncio.TaskGroup) -> None:
        """A step is written: it counts from now on, or where time is virtual from when that comes to it."""
        if self.policy.pace == "rolling":
            run.pacing.arrive(result)
            run.news.set()
        else:
            self._put_into_tree(run, result, tasks)

    def _put_into_tree(self, run: Running, result: Step | StepFailure, tasks: asyncio.TaskGroup) -> None:
        """Put a step into the tree, and have it scored."""
        if self.accept(run.tree, result) and run.scorer is not None:
            run.unscored.add(result.node)
            tasks.create_task(self._score(run, run.scorer, result.node))
        run.written(result.node)

    def room(self, tree: SearchTree, node: NodeId) -> int:
        """Tokens that the limits leave for one step below a node."""
        return self.limits.room(tree, node, self.sampling.max_new_tokens)

    def accept(self, tree: SearchTree, result: Step | StepFailure) -> bool:
        """Put a result into a tree, and end the trajectory where it ends; whether there is something to score."""
        if isinstance(result, StepFailure):
            tree.fail(result.node, result.reason)
            return False
        node = tree.write(result if self._thoughts is None else self._thoughts.close(tree, result))
        assert node.parent is not None
        if tree[node.parent].status is NodeStatus.FAILED:
            tree.fail(node.id, STEP_ABOVE_FAILED)
            return False
        if result.finish is FinishReason.ABORT or not result.ids:
            tree.fail(node.id, "the engine aborted it" if result.ids else "the engine wrote nothing")
            return False
        reason = self.limits.end(tree, node.id, result.finish, self._context_tokens)
        if reason:
            tree.finish(node.id, reason)
        elif self._hopeless is not None and (reason := self._hopeless(tree, node.id)):
            tree.prune(node.id, reason)
            return False
        return True

    async def _score(self, run: Running, scorer: ScorerSession, node_id: NodeId) -> None:
        start, failed = time.perf_counter(), ""
        try:
            with run.ledger.prm.running():
                (reward,) = await scorer.score(run.tree, [node_id])
        except ContextOverflowError:
            failed = PRM_CONTEXT_FULL
        except EngineError as error:
            failed = f"not scored: {error}"
        else:
            if not 0.0 <= reward <= 1.0:
                raise ScoringError(f"the reward of node {node_id} is {reward}; it must be a number from 0 to 1")
            run.tree.set_reward(node_id, reward, time.perf_counter() - start)
        if failed:
            run.tree.fail(node_id, failed)
        run.unscored.discard(node_id)
        run.news.set()

    # Ending

    def _stop_if_decided(self, run: Running) -> None:
        """Prune all that is left where the vote needs no more of it; what is being written is cancelled."""
        tree, seen = run.tree, (run.tree.num_finished, len(run.unscored))
        live = [leaf.id for leaf in tree.leaves()] + sorted(run.pending)
        if run.stopping is None or not live or not tree.num_finished or seen == run.seen:
            return
        run.seen = seen
        num_left = len(live) + run.held if self.policy.pace == "leaf" else self.width - tree.num_finished
        if reason := run.stopping.reason(tree, num_left, run.unscored):
            run.stop(live, reason)
