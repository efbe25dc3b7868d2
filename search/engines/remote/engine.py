"""What all engines on servers share: checks, routing, retries, one computation of a cold prefix, and the books."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar

from search.engines.checks import check_children, check_ids, check_prefix
from search.engines.remote.books import Books, Job
from search.engines.remote.http import RequestLimits, bad_answer
from search.engines.remote.model import RemoteModel
from search.engines.remote.samples import Read, Sample, ask_for, judge
from search.engines.remote.workers import Worker, Workers
from search.engines.stops import Writing
from search.errors import EngineError
from search.support.streams import closing
from search.types import Child, EngineInfo, FinishReason, Generation, Prefix, Sampling, Segment, Usage

T = TypeVar("T")
Server = TypeVar("Server")

_JITTER_SECONDS = 0.5


def _pause(attempt: int, error: EngineError) -> float:
    """Seconds before a request is sent again: doubled each time, no sooner than the server asked, nor all at once."""
    backoff = min(8.0, 2.0 ** (attempt - 2)) if attempt > 1 else 0.0
    return max(backoff, error.wait_seconds) + random.uniform(0.0, _JITTER_SECONDS)


class RemoteEngine(ABC, Generic[Server]):
    """An engine on one or several servers; implements `search.protocols.Engine`.

    Servers cache by content and free by themselves: `release` only forgets. `kv_tokens_peak` is the most that a
    tree's server held for all its trees together while this tree was being worked on.
    """

    def __init__(self, model: RemoteModel, servers: Sequence[Server], limits: RequestLimits) -> None:
        """Serve `model` from `servers`."""
        self._model = model
        self._workers = Workers(servers)
        self._limits = limits
        self._trees: dict[str, Books] = {}
        self._writers: set[asyncio.Task[Any]] = set()
        self._readers: set[asyncio.Task[Any]] = set()
        self._closed = False

    # What a kind of server does in its own way

    @abstractmethod
    def _stream(
        self, server: Server, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Sample, None]:
        """Write a sample for each child: first signs of each where there are any, then each one's end."""

    @abstractmethod
    async def _prefill(self, server: Server, prefix: Prefix) -> Read:
        """Have `prefix` computed and kept."""

    @abstractmethod
    async def _labels(self, server: Server, prefix: Prefix, labels: tuple[int, ...]) -> Read:
        """Log-probabilities of `labels` after `prefix`."""

    @abstractmethod
    async def _numbers(self, server: Server, prefix: Prefix, what: Literal["head", "hidden"]) -> Read:
        """The reward head's outputs, or the last hidden state."""

    @abstractmethod
    async def _abort(self, server: Server, requests: Sequence[str]) -> None:
        """Stop samples by their names; what cannot be stopped is left alone."""

    @abstractmethod
    async def _close(self) -> None:
        """Give connections back."""

    def _extra_tokens(self, num_samples: int) -> int:
        """Positions that a server computes for a request of so many samples and counts for none of them."""
        del num_samples
        return 0

    # The engine

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        return self._model.info

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._model.tokenizer

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncIterator[Generation]:
        """Write one step for each child after `prefix`, all in one request; steps come in the order in which they end.

        Raises:
            ContextOverflowError: `prefix` leaves no room in the context.
            EngineError: the request is wrong, the server cannot do it, or failed as often as it may be asked.
        """
        check_prefix(self.info, prefix, room=1)
        check_children(self.info, prefix, children)
        if not children:
            return
        books = self._received(prefix.tree)
        job = Job(books, prefix, sampling, time.perf_counter(), dict(enumerate(children)))
        books.jobs.add(job)
        job.task = asyncio.create_task(self._write(job))
        self._writers.add(job.task)
        job.task.add_done_callback(self._writers.discard)
        try:
            while (result := await job.results.get()) is not None:
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            books.jobs.discard(job)
            job.task.cancel()

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """Natural-log probabilities of each id in `labels` as the token after `prefix`.

        Raises:
            ContextOverflowError: `prefix` is longer than the context.
            EngineError: as for `generate`.
        """
        check_prefix(self.info, prefix, room=0)
        check_ids(self.info, labels, "label")
        if not labels:
            return ()
        wanted = tuple(labels)
        return await self._read(prefix, lambda server: self._labels(server, prefix, wanted))

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """The raw outputs of the reward head, or the last hidden state, at the last token of `prefix`.

        Raises:
            ContextOverflowError: `prefix` is longer than the context.
            EngineError: the server does not give it, as none does of other layers than the last, or as for `generate`.
        """
        check_prefix(self.info, prefix, room=0)
        if any(layer != self._model.num_layers for layer in layers) or len(layers) > 1:
            raise self._error(
                f"a server gives hidden states of the last layer ({self._model.num_layers}) alone, not of "
                f"{', '.join(map(str, layers))}: run the model in this process (engine local)"
            )
        return await self._read(prefix, lambda server: self._numbers(server, prefix, what))

    def usage(self, tree: str) -> Usage:
        """What was done for a tree since it was first seen or last closed; zeros for an unknown tree."""
        books = self._trees.get(tree)
        return Usage() if books is None else books.usage()

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Forget these keys, or the whole tree; steps being written there are aborted on the server."""
        books = self._trees.get(tree) if keys is not None else self._trees.pop(tree, None)
        if books is None:
            return
        released = None if keys is None else frozenset(keys)
        server = self._workers.of(tree).transport
        for job in tuple(books.jobs):
            await self._abort_children(server, job, released)
        books.warmth.forget(released)
        if released is None:
            self._workers.forget(tree)

    async def aclose(self) -> None:
        """Stop. Calls in flight end with `EngineError`."""
        self._closed = True
        running, self._readers = (*self._writers, *self._readers), set()
        for task in running:
            if not task.get_loop().is_closed():
                task.get_loop().call_soon_threadsafe(task.cancel)
        self._trees.clear()
        loop = asyncio.get_running_loop()
        if ours := [task for task in self._writers if task.get_loop() is loop]:
            await asyncio.wait(ours)
        await self._close()

    # Requests

    async def _write(self, job: Job) -> None:
        """Serve one `generate`; every end of it stands in `job.results`."""
        try:
            await self._retried(job.books, job.prefix.tree, lambda worker: self._attempt(job, worker))
        except EngineError as error:
            job.results.put_nowait(error)
        except asyncio.CancelledError:
            job.results.put_nowait(self._error("the engine was closed"))
            raise
        except Exception as error:
            failure = self._error(f"the client failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            job.results.put_nowait(failure)
        else:
            job.results.put_nowait(None)

    async def _attempt(self, job: Job, worker: Worker[Server]) -> None:
        """Ask one server for the children that are still owed."""
        books, prefix, num_tokens = job.books, job.prefix, job.prefix.num_tokens
        if not books.warmth.holds(prefix):
            async with books.warmth.computing(prefix) as num_cold:
                if num_cold:
                    made = await self._prefill(worker.transport, prefix)
                    books.computed(num_tokens, made.cached_tokens, num_tokens - num_cold, prefix.ahead)
        rule = self._model.stop_rule(job.sampling.stop)
        await self._continue(job, worker, dict(job.owed), (), rule.begin(prefix))

    async def _continue(
        self, job: Job, worker: Worker[Server], owed: Mapping[int, Child], written: tuple[int, ...], writing: Writing
    ) -> None:
        """Have the steps of children written on after `written`, each to its end: a server may stop where none ends."""
        room = self.info.context_tokens - job.prefix.num_tokens
        limited = replace(job.sampling, max_new_tokens=min(job.sampling.max_new_tokens, room))
        asked = ask_for(limited, len(written))
        rule = self._model.stop_rule(limited.stop)
        books, places, prefix = job.books, list(owed), job.prefix
        if written:  # of one child alone
            prefix = Prefix(prefix.tree, (*prefix.segments, Segment(owed[places[0]].key, written)), prefix.ahead)
        num_tokens = prefix.num_tokens
        unfinished: dict[int, int] = {}
        ended: set[int] = set()
        continued: list[asyncio.Task[None]] = []
        try:
            async with closing(self._stream(worker.transport, prefix, list(owed.values()), asked)) as samples:
                async for sample in samples:
                    if not 0 <= sample.number < len(places):
                        raise bad_answer(self._name(worker), f"a sample number {sample.number} of {len(places)}")
                    place = places[sample.number]
                    unfinished[place] = len(sample.ids)
                    if place not in job.owed:
                        continue
                    if sample.finish is None:
                        job.requests[place] = sample.request
                        continue
                    self._check_sample(worker, sample, asked.max_new_tokens)
                    begun = writing.copy()
                    ids, finish = judge(sample, rule, begun, written, limited, asked.max_new_tokens)
                    if asked.logprobs:
                        before = job.logprobs.get(place, ()) if written else ()
                        job.logprobs[place] = (*before, *self._logprobs(worker, sample))
                    unfinished[place] = 0
                    ended.add(place)
                    books.computed(num_tokens, sample.cached_tokens, num_tokens)
                    if prefix.ahead is not None and sample.cached_tokens is not None:
                        prefix.ahead.computed_tokens += num_tokens - sample.cached_tokens
                    books.sampled(len(sample.whole), prefix.ahead)
                    if finish is None:
                        more = self._continue(job, worker, {place: owed[place]}, ids, begun)
                        continued.append(asyncio.create_task(more))
                        continue
                    if finish is FinishReason.LENGTH and job.sampling.max_new_tokens > room and len(ids) >= room:
                        finish = FinishReason.CONTEXT
                    self._deliver(job, place, ids, finish)
            if books.computed_tokens is not None:
                books.computed_tokens += self._extra_tokens(len(owed))
            missing = [place for place in places if place in job.owed and place not in ended]
            if missing:
                raise bad_answer(self._name(worker), f"{len(missing)} of {len(places)} samples are missing")
            await asyncio.gather(*continued)
        finally:
            for num_written in unfinished.values():  # until they were stopped, as far as the server said
                books.sampled(num_written, prefix.ahead)
            for task in continued:
                task.cancel()
            await asyncio.gather(*continued, return_exceptions=True)

    def _deliver(self, job: Job, place: int, ids: tuple[int, ...], finish: FinishReason) -> None:
        """Answer a child."""
        child = job.owed.pop(place)
        job.books.warmth.wrote(job.prefix, child.key, ids)
        text = self._model.table.step_text(job.prefix, ids, finish)
        logprobs = job.logprobs.pop(place)[: len(ids)] if job.sampling.logprobs else None
        seconds = time.perf_counter() - job.arrived
        job.results.put_nowait(Generation(child.key, ids, text, finish, seconds, logprobs))

    def _check_sample(self, worker: Worker[Server], sample: Sample, most: int) -> None:
        """Hold a sample that ended against what was asked.

        Raises:
            EngineError: the server gave it up, or it is no step.
        """
        if sample.finish == "abort":
            raise EngineError(f"{self._name(worker)} gave a request up", endpoint=self._name(worker), retryable=True)
        ids = sample.whole
        if not 0 < len(ids) <= most or not all(0 <= token < self.info.vocab_size for token in ids):
            raise bad_answer(self._name(worker), f"a step of the ids {ids[:20]}")

    def _logprobs(self, worker: Worker[Server], sample: Sample) -> tuple[float, ...]:
        """A sample's log-probabilities.

        Raises:
            EngineError: the server does not give them.
        """
        if sample.logprobs is None or len(sample.logprobs) != len(sample.ids):
            found = "none" if sample.logprobs is None else str(len(sample.logprobs))
            raise EngineError(
                f"{self._name(worker)} gives {found} of the {len(sample.ids)} log-probabilities of a step's tokens",
                endpoint=self._name(worker),
            )
        # A rounding error may lie above zero.
        return tuple(min(0.0, value) for value in sample.logprobs)

    async def _abort_children(self, server: Server, job: Job, keys: frozenset[int] | None) -> None:
        """Answer children as aborted, and have the server stop them: all, or those with or below these keys."""
        below = keys is None or any(segment.key in keys for segment in job.prefix.segments)
        aborted = [number for number, child in job.owed.items() if below or (keys is not None and child.key in keys)]
        for number in aborted:
            child = job.owed.pop(number)
            seconds = time.perf_counter() - job.arrived
            job.results.put_nowait(Generation(child.key, (), "", FinishReason.ABORT, seconds))
        if not job.owed:
            job.results.put_nowait(None)
            if job.task is not None:
                job.task.cancel()  # closes the connection, by which the server stops all
            return
        await self._abort(server, [job.requests[number] for number in aborted if number in job.requests])

    async def _read(self, prefix: Prefix, ask: Callable[[Server], Awaitable[Read]]) -> tuple[float, ...]:
        books = self._received(prefix.tree)
        num_tokens = prefix.num_tokens

        async def attempt(worker: Worker[Server]) -> tuple[float, ...]:
            async with books.warmth.computing(prefix) as num_cold:
                answer = await ask(worker.transport)
                books.computed(num_tokens, answer.cached_tokens, num_tokens - num_cold, prefix.ahead)
            return answer.values

        # Read by the caller's own task, as there are many; closing the engine interrupts it, see `aclose`.
        task = asyncio.current_task()
        assert task is not None
        self._readers.add(task)
        try:
            return await self._retried(books, prefix.tree, attempt)
        except asyncio.CancelledError:
            if task in self._readers or task.uncancel():
                raise
            raise self._error("the engine was closed") from None
        finally:
            self._readers.discard(task)

    async def _retried(self, books: Books, tree: str, attempt: Callable[[Worker[Server]], Awaitable[T]]) -> T:
        """Do something on a tree's server; after a failure that may pass, again, on another one where there is one."""
        number = 0
        while True:
            number += 1
            worker = self._workers.of(tree)
            books.num_running += 1
            try:
                answer = await attempt(worker)
            except EngineError as error:
                if not error.retryable:
                    raise
                self._workers.failed(worker)
                books.warmth.forget()
                if number == self._limits.attempts:
                    raise
                pause = _pause(number, error)
            else:
                self._workers.worked(worker)
                return answer
            finally:
                books.num_running -= 1
            await asyncio.sleep(pause)

    def _received(self, tree: str) -> Books:
        if self._closed:
            raise self._error("the engine is closed")
        books = self._trees.setdefault(tree, Books())
        books.num_calls += 1
        return books

    def _error(self, message: str) -> EngineError:
        return EngineError(message, endpoint=self.info.model)

    def _name(self, worker: Worker[Server]) -> str:
        return str(worker.transport)
