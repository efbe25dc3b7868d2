"""Waiting for a search with one ear on the client: the whole answer, or server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from search.results.result import Result
from search.serve.answer import Chunks, completion
from search.serve.errors import CLIENT_GONE, dump, from_search, reply, stopping
from search.serve.jobs import Event, Job, ProgressEvent
from search.serve.service import Service, ended

BRANCHES_LOST = "X-Ets-Branches-Lost"
"""The header of a whole answer whose search lost branches: how many."""

_KEEP_ALIVE_SECONDS = 15.0
"""Of silence, until a comment is sent that keeps proxies from closing the stream."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def _listening(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """A task that is done when the client has left."""
    gone = asyncio.create_task(_gone(receive))
    try:
        yield gone
    finally:
        await ended(gone)


async def answer_whole(service: Service, job: Job, receive: Receive) -> Response:
    """Search, and answer when it is done; a client that leaves ends the search.

    Raises:
        ApiError: as `Service.start`'s task.
    """
    task = service.start(job)
    try:
        async with _listening(receive) as gone:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return Response(status_code=CLIENT_GONE)
        result = _result(task)
        lost = {BRANCHES_LOST: str(len(result.lost))} if result.lost else {}
        return reply(completion(job, result), headers=lost)
    finally:
        await ended(task)


def _result(task: asyncio.Task[Result]) -> Result:
    if task.cancelled():  # before it could begin
        raise stopping()
    return task.result()


class AnswerStream(Response):
    """Server-sent events: what goes wrong before the search's first sign is an ordinary error answer."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, job: Job) -> None:
        """Stream the answer to `job`; the search starts when the response is sent."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        # The body comes in pieces.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._service, self._job = service, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI; a client that leaves ends the search."""
        task = self._service.start(self._job)
        try:
            async with _listening(receive) as gone, aclosing(self._read(task, gone)) as events:
                first = await anext(events, None)
                if first is None:
                    if task.done() and not gone.done():
                        await from_search(_error(task)).response()(scope, receive, send)
                    return
                await self._begin(send)
                chunks = Chunks(self._job)
                await _send(send, chunks.begin())
                await self._event(send, chunks, first)
                async for event in events:
                    await self._event(send, chunks, event)
                if task.done() and not gone.done():
                    await self._end(send, chunks, task)
        finally:
            await ended(task)

    async def _read(self, task: asyncio.Task[Result], gone: asyncio.Task[None]) -> AsyncGenerator[Event | str, None]:
        """The search's events until it is done or nobody listens; a comment where it is silent for long."""
        queue = self._job.events
        assert queue is not None
        begun = False
        while True:
            next_event = asyncio.create_task(queue.get())
            try:
                while not next_event.done() and not gone.done():
                    await asyncio.wait(
                        {next_event, gone}, timeout=_KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    if begun and not next_event.done() and not gone.done():
                        yield ": searching\n\n"
                if not next_event.done():
                    return
                event = next_event.result()
            finally:
                await ended(next_event)
            if event is None:
                await asyncio.wait({task})
                return
            begun = True
            yield event

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _event(self, send: Send, chunks: Chunks, event: Event | str) -> None:
        if isinstance(event, str):
            await _write(send, event)
        else:
            await _send(send, chunks.progress(event) if isinstance(event, ProgressEvent) else chunks.step(event.node))

    async def _end(self, send: Send, chunks: Chunks, task: asyncio.Task[Result]) -> None:
        if task.cancelled() or task.exception() is not None:
            await _send(send, from_search(_error(task)).to_dict())
        else:
            for chunk in chunks.end(task.result()):
                await _send(send, chunk)
        await _write(send, "data: [DONE]\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error(task: asyncio.Task[Result]) -> BaseException:
    error = None if task.cancelled() else task.exception()
    return error or stopping()


async def _send(send: Send, content: Mapping[str, Any]) -> None:
    await _write(send, f"data: {dump(content)}\n\n")


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
