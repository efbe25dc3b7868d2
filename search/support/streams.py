"""Asynchronous streams, one with its end made sure of or several as one, and work on many items side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close `stream` on leaving, so that what it started is stopped now and not when it is collected."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def merge(streams: Sequence[AsyncIterator[T]]) -> AsyncGenerator[T, None]:
    """Yield what the streams yield, in the order of arrival.

    The first error of any stream ends them all and is raised. Closing the generator cancels every stream.
    """
    if len(streams) == 1:
        async with closing(streams[0]) as only:
            async for item in only:
                yield item
        return
    queue: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()

    async def drain(stream: AsyncIterator[T]) -> None:
        try:
            async with closing(stream):
                async for item in stream:
                    queue.put_nowait((item,))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(drain(stream)) for stream in streams]
    running = len(tasks)
    try:
        while running:
            arrived = await queue.get()
            if arrived is None:
                running -= 1
            elif isinstance(arrived, BaseException):
                raise arrived
            else:
                yield arrived[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def apply(function: Callable[[T], Awaitable[R]], stream: AsyncIterator[T]) -> AsyncGenerator[R, None]:
    """Start `function` on each item when it arrives, and yield the results in the order in which they are done.

    The first error ends everything and is raised. Closing the generator cancels what runs.
    """
    queue: asyncio.Queue[tuple[R] | Exception | None] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []
    running = 1  # the reading of the stream itself

    async def work(item: T) -> None:
        try:
            queue.put_nowait((await function(item),))
        except Exception as error:
            queue.put_nowait(error)

    async def read() -> None:
        nonlocal running
        try:
            async with closing(stream):
                async for item in stream:
                    running += 1
                    tasks.append(asyncio.create_task(work(item)))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    reading = asyncio.create_task(read())
    try:
        while running:
            arrived = await queue.get()
            running -= 1
            if isinstance(arrived, Exception):
                raise arrived
            if arrived is not None:
                yield arrived[0]
    finally:
        for task in (reading, *tasks):
            task.cancel()
        await asyncio.gather(reading, *tasks, return_exceptions=True)


async def side_by_side(
    work: Callable[[T], Awaitable[R]],
    items: Sequence[T],
    concurrency: int,
    report: Callable[[int], None] = lambda done: None,
) -> list[R]:
    """What `work` makes of each item, in their order; the first error ends all of it and is raised.

    Args:
        work: on one item.
        items: to work on, begun in order.
        concurrency: how many at a time.
        report: told after each how many are done.
    """
    made: dict[int, R] = {}
    todo = iter(enumerate(items))

    async def worker() -> None:
        for number, item in todo:
            made[number] = await work(item)
            report(len(made))

    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [made[number] for number in range(len(items))]
