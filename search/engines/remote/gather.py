"""Small questions that are asked at the same moment travel to a server as one request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

MAX_QUESTIONS = 64


class Gatherer(Generic[Question, Answer]):
    """Collects what is asked within one turn of the event loop; nothing waits longer than that.

    The steps of one node often end together, and each is scored at once: one request for all of them costs the client
    and the server a fraction of one for each.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        kind: Callable[[Question], Hashable],
    ) -> None:
        """Ask through `send`: questions of one kind, one answer for each, in order."""
        self._send, self._kind = send, kind
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        """The answer to one question; raises what the request that carried it raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        groups: defaultdict[Hashable, list[tuple[Question, asyncio.Future[Answer]]]] = defaultdict(list)
        for one in waiting:
            groups[self._kind(one[0])].append(one)
        for group in groups.values():
            for first in range(0, len(group), MAX_QUESTIONS):
                self._send_off(group[first : first + MAX_QUESTIONS])

    def _send_off(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        """Begin one request, which ends once nobody waits for it any more."""
        task = asyncio.create_task(self._answer(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        num_waiting = len(asked)

        def leave(_: object) -> None:
            nonlocal num_waiting
            num_waiting -= 1
            if not num_waiting:
                task.cancel()

        for _, future in asked:
            future.add_done_callback(leave)

    async def _answer(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        """One request; its answers, or its error, to everybody who still waits."""
        try:
            answers = await self._send([question for question, _ in asked])
        except Exception as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
