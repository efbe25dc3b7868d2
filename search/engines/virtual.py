"""The virtual-time engine: what a model writes, at one token of a row a tick, so that latency is a number of tokens."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from search.engines.remembering import RememberingEngine
from search.engines.virtual_time import VirtualClock
from search.errors import ConfigError, EngineError
from search.protocols import Engine, Tokenizer
from search.support.background import BackgroundLoop
from search.support.streams import closing
from search.types import Ahead, Child, EngineInfo, FinishReason, Generation, Prefix, Sampling, Usage

_Answer = TypeVar("_Answer")


@dataclass(slots=True, eq=False)
class _Request:
    """How to get an answer, and who waits for it."""

    ask: Callable[[], Awaitable[Any]]
    answer: asyncio.Future[Any]


class Recall:
    """An engine that runs in real time on a loop of its own, and remembers all that it answered.

    Searches of one problem that spend their time in different ways are answered alike.
    """

    def __init__(self, engine: Engine) -> None:
        """Ask `engine`.

        Raises:
            ConfigError: its seeds are not exact, so that nothing of it is repeatable.
        """
        self.engine = RememberingEngine(engine)
        self._loop = BackgroundLoop()

    def answer(self, requests: Sequence[_Request]) -> None:
        """Give every request its answer; the engine is asked for all of them together."""

        async def ask() -> list[Any]:
            return await asyncio.gather(*(request.ask() for request in requests), return_exceptions=True)

        answers = self._loop.wait(ask()) if requests else []
        for request, answer in zip(requests, answers, strict=True):
            if request.answer.cancelled():
                continue
            if isinstance(answer, BaseException):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)

    def release(self, tree: str, keys: Collection[int] | None) -> None:
        """Have the engine free what it holds of a tree; what it answered stays known."""
        self._loop.wait(self.engine.release(tree, keys))

    def close(self) -> None:
        """Close the engine, and end its loop."""
        self._loop.wait(self.engine.aclose())
        self._loop.stop()


@dataclass(slots=True, eq=False)
class _Row:
    """A step being written: what it is going to be, and how far it is."""

    tree: str
    path: frozenset[int]
    generation: Generation
    number: int
    ahead: Ahead | None
    put: Callable[[Generation], None]
    started: float
    num_tokens: float = 0.0

    @property
    def last(self) -> bool:
        """Whether it is written only where others leave room."""
        return self.ahead is not None and not self.ahead.wanted

    @property
    def num_left(self) -> float:
        """Tokens to write."""
        return len(self.generation.ids) - self.num_tokens


@dataclass(slots=True, eq=False)
class _Watch:
    """Who waits for a step to be longer than so many tokens."""

    tree: str
    key: int
    num_tokens: int
    reached: asyncio.Event


class VirtualEngine:
    """An engine in virtual time: a tick writes one token of every row, and all else takes none.

    Prefixes, rewards and hidden states cost no tick, so what is measured is the writing alone. With a capacity no more
    rows than that advance in a tick, and the others wait in the order in which they came; a row that is written ahead
    (`search.types.Ahead`) advances only where wanted ones leave room, and keeps what it has while it stands. The tokens
    themselves come from another engine (`Recall`), which is asked for whole steps; of one that is stopped only the
    tokens count whose ticks have passed.
    """

    def __init__(self, clock: VirtualClock, recall: Recall, capacity: int | None = None) -> None:
        """Write what `recall` says.

        Args:
            clock: the loop on which this engine is used.
            recall: an engine and its memory; several virtual engines may share it, one after the other.
            capacity: rows that advance in one tick; None for no limit.

        Raises:
            ConfigError: the capacity is below 1.
        """
        if capacity is not None and capacity < 1:
            raise ConfigError(f"capacity must be at least 1, not {capacity}")
        self._clock, self._recall, self._capacity = clock, recall, capacity
        details = {**recall.engine.info.details, "clock": "virtual", "capacity": str(capacity or "unlimited")}
        self.tokenizer: Tokenizer = recall.engine.tokenizer
        self.info: EngineInfo = replace(recall.engine.info, name="virtual", details=details)
        self._requests: list[_Request] = []
        self._rows: dict[tuple[str, int], _Row] = {}
        self._numbers = itertools.count()
        self._num_calls: Counter[str] = Counter()
        self._sampled_tokens: Counter[str] = Counter()
        self._watches: list[_Watch] = []
        self._closed = False
        clock.timed.append(self)

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Write one step for each child, a token a tick; seconds are ticks.

        Raises:
            EngineError: what the engine behind it raises, or it is closed.
        """

        async def ask() -> list[Generation]:
            async with closing(self._recall.engine.generate(_plain(prefix), children, sampling)) as steps:
                by_key = {step.key: step async for step in steps}
            return [by_key[child.key] for child in children]

        started = self._clock.time()
        in_order = await self._ask(prefix, ask)
        ended: asyncio.Queue[Generation] = asyncio.Queue()
        above = {segment.key for segment in prefix.segments}
        rows = [
            _Row(
                prefix.tree,
                frozenset({*above, child.key}),
                replace(step, key=child.key),
                next(self._numbers),
                prefix.ahead,
                ended.put_nowait,
                started,
            )
            for child, step in zip(children, in_order, strict=True)
        ]
        self._rows.update({(row.tree, row.generation.key): row for row in rows})
        try:
            for _ in rows:
                step = await ended.get()
                if self._closed:
                    raise self._closed_error()
                yield step
        finally:
            for row in rows:
                if self._rows.get((row.tree, row.generation.key)) is row:
                    self._end(row)

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """As the engine behind it, in no time."""
        return await self._ask(prefix, lambda: self._recall.engine.label_logprobs(_plain(prefix), labels))

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """As the engine behind it, in no time."""
        return await self._ask(prefix, lambda: self._recall.engine.read(_plain(prefix), what, layers))

    async def longer_than(self, tree: str, key: int, num_tokens: int) -> None:
        """Wait until the step being written under `key` has more than `num_tokens` tokens, if need be for ever."""
        watch = _Watch(tree, key, num_tokens, asyncio.Event())
        self._watches.append(watch)
        try:
            await watch.reached.wait()
        finally:
            self._watches.remove(watch)

    def usage(self, tree: str) -> Usage:
        """Requests and tokens written; what a cache would hold is not known."""
        return Usage(None, self._sampled_tokens[tree], self._num_calls[tree], None, None, None)

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Steps being written there end as aborted."""
        for row in [row for row in self._rows.values() if row.tree == tree]:
            if keys is None or not row.path.isdisjoint(keys):
                ids = row.generation.ids[: int(row.num_tokens)]
                self._end(row, replace(row.generation, ids=ids, text="", finish=FinishReason.ABORT, logprobs=None))
        self._recall.release(tree, keys)
        if keys is None:
            del self._num_calls[tree], self._sampled_tokens[tree]

    async def aclose(self) -> None:
        """End what is under way with `EngineError`; the engine behind it stays open for others."""
        self._closed = True
        for row in [*self._rows.values()]:
            self._end(row, row.generation)
        for request in self._requests:
            request.answer.set_exception(self._closed_error())
        self._requests.clear()

    # Time

    def settle(self) -> bool:
        """Have all that was asked for since time last passed answered at once."""
        told = False
        for watch in self._watches:
            row = self._rows.get((watch.tree, watch.key))
            if row is not None and not watch.reached.is_set() and row.num_tokens >= watch.num_tokens:
                watch.reached.set()
                told = True
        requests, self._requests = self._requests, []
        requests = [one for one in requests if not one.answer.cancelled()]
        self._recall.answer(requests)
        return bool(requests) or told

    def ticks_left(self) -> float | None:
        """Until the first of the rows that advance now has ended, or is as far as somebody waits for."""
        running = {(row.tree, row.generation.key): row for row in self._running()}
        left = [row.num_left for row in running.values()]
        watched = [(watch.num_tokens, row) for watch in self._watches if (row := running.get((watch.tree, watch.key)))]
        # A step that goes on after so many tokens is longer, which is known as soon as it has them.
        left += [num_tokens - row.num_tokens for num_tokens, row in watched if num_tokens > row.num_tokens]
        return min(left, default=None)

    def pass_time(self, ticks: float) -> None:
        """Every row that advances gets a token a tick."""
        for row in self._running():
            before = int(row.num_tokens)
            row.num_tokens += ticks
            written = int(row.num_tokens) - before
            self._sampled_tokens[row.tree] += written
            if row.ahead is not None:
                row.ahead.sampled_tokens += written
            if row.num_left <= 0:
                self._end(row, replace(row.generation, seconds=self._clock.time() - row.started))

    def _running(self) -> list[_Row]:
        """The rows that advance: first come, first served, those written ahead last."""
        rows = sorted(self._rows.values(), key=lambda row: (row.last, row.number))
        return rows[: self._capacity]

    def _end(self, row: _Row, generation: Generation | None = None) -> None:
        del self._rows[row.tree, row.generation.key]
        if generation is not None:
            row.put(generation)

    async def _ask(self, prefix: Prefix, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        if self._closed:
            raise self._closed_error()
        self._num_calls[prefix.tree] += 1
        request = _Request(ask, self._clock.create_future())
        self._requests.append(request)
        answer: _Answer = await request.answer
        return answer

    def _closed_error(self) -> EngineError:
        return EngineError("the engine is closed", endpoint=self.info.model)


def _plain(prefix: Prefix) -> Prefix:
    """A prefix as the engine behind it gets it, where all is wanted."""
    return replace(prefix, ahead=None)
