"""The side buffer: what an engine was asked ahead, kept by path until the search asks for the very same, or never does.

Searches are deterministic in their requests: a step's key and seed follow from its path. So whatever is asked ahead and
wanted in the end is the same request, and its answer is the same answer. A search that runs with this buffer does what
it does without one, request by request; some answers are merely there already.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from search.errors import EngineError
from search.protocols import Engine
from search.support.streams import closing, merge
from search.types import Ahead, Child, FinishReason, Generation, Prefix, Sampling, Usage

T = TypeVar("T")
Numbers = tuple[float, ...]


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    """A request that was made ahead: its mark, what it asked for, and who works on it."""

    prefix: Prefix
    mark: Ahead
    asked: object
    task: asyncio.Task[T]


class AheadBuffer:
    """Stands before an engine for one tree: marked prefixes fill it, all others are answered from it where they can.

    What the engine did for marked requests is no part of `usage` until a real request wants it. An engine that does not
    count on the marks can only tell of the steps that came to their end.

    Attributes:
        engine: who does the work.
        tree: the tree's name, as it stands in the prefixes.
    """

    def __init__(self, engine: Engine, tree: str) -> None:
        """Stand before `engine` for the requests of one tree."""
        self.engine, self.tree = engine, tree
        # Steps by their keys; numbers by the key of the last segment, and by what is read there.
        self._steps: dict[int, _Entry[Generation]] = {}
        self._read_ahead: dict[tuple[int, object], _Entry[Numbers]] = {}
        # Every request's mark with the key of its prefix's last segment, and those of prefixes that were released
        # before anything real needed them.
        self._marks: list[tuple[int, Ahead]] = []
        self._thrown: list[Ahead] = []
        self._continued: set[int] = set()  # keys of all segments that stood in a real request
        self._num_ahead = self._num_answered = 0  # requests ahead, and real ones that needed no engine any more

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """As `Engine.generate`. For a marked prefix: the steps are begun, unless they are already, and waited for."""
        if prefix.ahead is not None:
            for task in [self.begin(prefix, child, sampling) for child in children]:
                yield await asyncio.shield(task)
            return
        self._continued.update(segment.key for segment in prefix.segments)
        entries = [(child, self._steps.pop(child.key)) for child in children if child.key in self._steps]
        taken = [(child, entry) for child, entry in entries if _same(entry, prefix, sampling)]
        for _, entry in taken:
            entry.mark.wanted = True
        await _stopped([entry for child, entry in entries if (child, entry) not in taken])
        found = {child.key for child, _ in taken}
        rest = [child for child in children if child.key not in found]
        streams: list[AsyncIterator[Generation]] = [self._take(child, entry, sampling) for child, entry in taken]
        if rest:
            streams.append(self.engine.generate(prefix, rest, sampling))
        else:
            self._num_answered += 1
        async with closing(merge(streams)) as made:
            async for step in made:
                yield step

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> Numbers:
        """As `Engine.label_logprobs`."""
        return await self._numbers(prefix, tuple(labels), lambda marked: self.engine.label_logprobs(marked, labels))

    async def read(self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()) -> Numbers:
        """As `Engine.read`."""
        asked = (what, *layers)
        return await self._numbers(prefix, asked, lambda marked: self.engine.read(marked, what, layers))

    def usage(self) -> Usage:
        """As `Engine.usage`, without what was done ahead and not wanted; `thrown_tokens` says how much that was."""
        usage = self.engine.usage(self.tree)
        if not self._num_ahead:
            return usage
        marks = [*((None, mark) for mark in self._thrown), *self._marks]
        unwanted = [mark for _, mark in marks if not mark.wanted]
        computed = sum(mark.computed_tokens for mark in unwanted)
        computed += sum(mark.prefix_tokens for key, mark in marks if key not in self._continued)
        thrown = sum(mark.sampled_tokens for mark in unwanted)
        return replace(
            usage,
            computed_tokens=None if usage.computed_tokens is None else usage.computed_tokens - computed,
            sampled_tokens=None if usage.sampled_tokens is None else usage.sampled_tokens - thrown,
            num_calls=usage.num_calls - self._num_ahead + self._num_answered,
            thrown_tokens=thrown,
        )

    async def release(self, keys: Collection[int] | None = None) -> None:
        """As `Engine.release`; what is being done ahead for these keys, or below them, is stopped."""
        gone = None if keys is None else set(keys)
        entries: list[_Entry[Any]] = []
        for known in (self._steps, self._read_ahead):
            entries += _taken_out(known, gone)
        await _stopped(entries)
        if gone is not None:
            lost = [(key, mark) for key, mark in self._marks if key in gone and key not in self._continued]
            self._marks = [one for one in self._marks if one not in lost]
            self._thrown += (mark for _, mark in lost)
        await self.engine.release(self.tree, keys)

    # Asking ahead

    def begin(self, prefix: Prefix, child: Child, sampling: Sampling) -> asyncio.Task[Generation]:
        """Have a step written ahead, if it is not already; `release` of anything on its path stops that."""

        async def write(marked: Prefix) -> Generation:
            async with closing(self.engine.generate(marked, [child], sampling)) as made:
                async for step in made:
                    assert marked.ahead is not None
                    marked.ahead.sampled_tokens = max(marked.ahead.sampled_tokens, len(step.ids))
                    return step
            raise EngineError("the engine ended without this step", endpoint=self.engine.info.model)

        if child.key not in self._steps:
            marked = replace(prefix, ahead=Ahead())
            self._steps[child.key] = self._begin(marked, sampling, write(marked))
        return self._steps[child.key].task

    async def _take(
        self, child: Child, entry: _Entry[Generation], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """What was written ahead, if it is what would be written now; else that."""
        step: Generation | None = None
        try:
            step = await entry.task
        except EngineError:
            pass  # asked for in vain; asked again, it fails or not on its own account
        finally:
            entry.task.cancel()
        if (
            step is not None
            and step.finish is not FinishReason.ABORT
            and (
                # Where the trajectory's limits were not known, a step that ended by itself within them is the same.
                entry.asked == sampling
                or (step.finish in (FinishReason.STOP, FinishReason.EOS) and len(step.ids) <= sampling.max_new_tokens)
            )
        ):
            yield step
            return
        entry.mark.wanted = False
        async with closing(self.engine.generate(replace(entry.prefix, ahead=None), [child], sampling)) as made:
            async for again in made:
                yield again

    async def _numbers(self, prefix: Prefix, asked: object, ask: Any) -> Numbers:
        key = (prefix.segments[-1].key, asked)
        if prefix.ahead is not None:
            if key not in self._read_ahead:
                marked = replace(prefix, ahead=Ahead())
                self._read_ahead[key] = self._begin(marked, asked, ask(marked))
            answer: Numbers = await asyncio.shield(self._read_ahead[key].task)
            return answer
        self._continued.update(segment.key for segment in prefix.segments)
        entry = self._read_ahead.pop(key, None)
        if entry is not None and entry.prefix == prefix:
            entry.mark.wanted = True
            try:
                answer = await entry.task
            except EngineError:
                answer = (math.nan,)
            finally:
                entry.task.cancel()
            if not any(map(math.isnan, answer)):
                self._num_answered += 1
                return answer
            entry.mark.wanted = False  # asked again, it fails or not on its own account
        elif entry is not None:
            await _stopped([entry])
        answer = await ask(prefix)
        return answer

    def _begin(self, marked: Prefix, asked: object, work: Coroutine[Any, Any, T]) -> _Entry[T]:
        assert marked.ahead is not None
        self._marks.append((marked.segments[-1].key, marked.ahead))
        self._num_ahead += 1
        task = asyncio.create_task(work)
        # Whoever waited for it may be gone; an error is then nobody's.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return _Entry(marked, marked.ahead, asked, task)


def _same(entry: _Entry[Generation], prefix: Prefix, sampling: Sampling) -> bool:
    """Whether a step was asked for as it is now, but for the limit of its tokens."""
    assert isinstance(entry.asked, Sampling)
    return entry.prefix == prefix and replace(entry.asked, max_new_tokens=sampling.max_new_tokens) == sampling


def _taken_out(entries: dict[Any, _Entry[Any]], keys: set[int] | None) -> list[_Entry[Any]]:
    """Take out those for one of these keys, or below it; None: all."""
    found = []
    for name, entry in list(entries.items()):
        own = name if isinstance(name, int) else name[0]
        if keys is None or own in keys or any(segment.key in keys for segment in entry.prefix.segments):
            found.append(entries.pop(name))
    return found


async def _stopped(entries: Sequence[_Entry[Any]]) -> None:
    """Cancel what is under way, and wait until it has stopped, whatever it came to."""
    for entry in entries:
        entry.task.cancel()
    await asyncio.gather(*(entry.task for entry in entries), return_exceptions=True)
