"""An engine's turns on the one thread of this process: messages to it, a forward a turn, and results to event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

from search.errors import EngineError

if TYPE_CHECKING:
    from search.engines.local.loading import LoadedModel
    from search.engines.local.scheduler import Scheduler

_REPLY_ROUNDS = 8
"""Rounds of an event loop in which whoever got a step has asked for the next one, if that depends on nothing else."""
_REPLY_SECONDS, _LEAST_REPLY_SECONDS = 0.1, 0.001
"""How long the next turn waits for those rounds at most; and on a device, where turns are short, at least."""


@lru_cache(maxsize=1)
def shared_thread() -> ThreadPoolExecutor:
    """The one thread on which every in-process model runs, started on first use and joined when the interpreter exits.

    A policy and a reward model would otherwise fight over the same cores and over Python's lock. Each turn of an
    engine is one job, so engines with work take turns.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="search-local-engine")


class Turns:
    """Has a scheduler work on the shared thread, for callers on any event loop.

    Attributes:
        closed: whether it takes no message any more.
    """

    def __init__(self, scheduler: Scheduler, model: LoadedModel) -> None:
        """Run the turns of `scheduler`, which is that of `model`; nothing else may touch it meanwhile."""
        self._scheduler, self._model = scheduler, model
        self._lock = threading.Lock()
        self._inbox: deque[Callable[[], None]] = deque()
        self._queued = False
        self.closed = False
        self._outbox: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        self._num_ended = 0
        self._turn_seconds = 0.0
        self._replying: list[threading.Event] = []

    def reply(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None], *, a_step: bool = False) -> None:
        """From a message or a turn: have this called on `loop` when the turn ends.

        Args:
            loop: of who asked.
            call: tells it.
            a_step: whether it tells of a step that ended, so that the next turn waits a little for what follows.
        """
        self._num_ended += a_step
        self._outbox.setdefault(loop, []).append(call)

    async def call(self, work: Callable[[], None], *, last: bool = False) -> None:
        """Have the worker do something, and wait for it; `last`: take no message after it."""
        done: Future[None] = Future()

        def message() -> None:
            # Once it runs it cannot be cancelled; a caller that left before leaves nobody to tell.
            awaited = done.set_running_or_notify_cancel()
            try:
                work()
            except BaseException as error:
                if awaited:
                    done.set_exception(error)
                raise
            if awaited:
                done.set_result(None)

        self.post(message, last=last)
        await asyncio.wrap_future(done)

    def post(self, message: Callable[[], None], *, last: bool = False) -> None:
        """Have a message read before the next forward; `last`: none is taken after it.

        Raises:
            EngineError: the engine is closed.
        """
        with self._lock:
            if self.closed:
                raise self._error("the engine is closed")
            self.closed = last
            self._inbox.append(message)
        self._enqueue()

    def _enqueue(self) -> None:
        """Have a turn run, unless one is going to anyway."""
        with self._lock:
            if self._queued:
                return
            self._queued = True
        try:
            shared_thread().submit(self._turn)
        except RuntimeError:
            # The interpreter is shutting down: nobody waits any more.
            with self._lock:
                self._queued = False

    def _turn(self) -> None:
        """One job of the worker: take messages, run one forward, send results, and come again while there is work.

        After a turn in which steps ended the next one begins when those who got them had time to go on: a chain that
        nobody compares with others then loses no turn between its steps.
        """
        from search.engines.local.pool import GRACE_SECONDS

        worked = False
        deadline = time.perf_counter() + self._most_wait()
        while self._replying:
            self._replying.pop().wait(max(0.0, deadline - time.perf_counter()))
        start = time.perf_counter()
        try:
            with self._model.computing():
                while self._inbox:
                    self._inbox.popleft()()
                worked = self._scheduler.turn()
        except Exception as error:  # Whatever went wrong, every caller must hear of it.
            self._scheduler.fail_all(self._failure(error))
        self._turn_seconds = time.perf_counter() - start
        self._scheduler.tell_watchers()
        self._send()
        with self._lock:
            again = worked or bool(self._inbox)
            self._queued = False
        if again:
            self._enqueue()
        elif self._scheduler.pool.blocked:
            # To look again at a request that waited for room.
            timer = threading.Timer(GRACE_SECONDS * 1.1, self._enqueue)
            timer.daemon = True
            timer.start()

    def _most_wait(self) -> float:
        """Seconds that the next turn may wait for what follows the steps that ended.

        Who waits keeps the other rows waiting, and who does not wait loses those that ended a turn: on a device, where
        a turn may be shorter than what happens between, no longer than costs them as much as it saves these.
        """
        ended, self._num_ended = self._num_ended, 0
        running = len(self._scheduler.lanes)
        if self._model.forward.shape.device.type == "cpu" or not running:
            return _REPLY_SECONDS
        return min(_REPLY_SECONDS, max(_LEAST_REPLY_SECONDS, self._turn_seconds * ended / running))

    def _send(self) -> None:
        outbox, self._outbox = self._outbox, {}
        wait = self._num_ended > 0
        for loop, calls in outbox.items():
            replied = threading.Event()

            def run(calls: list[Callable[[], None]] = calls) -> None:
                for call in calls:
                    call()

            try:
                loop.call_soon_threadsafe(run)
                if wait:
                    loop.call_soon_threadsafe(_after_rounds, loop, _REPLY_ROUNDS, replied.set)
                    self._replying.append(replied)
            except RuntimeError:
                # The loop that asked is gone; its requests end when their results have nowhere to go.
                continue

    def _error(self, message: str) -> EngineError:
        return EngineError(message, endpoint=self._model.info.model)

    def _failure(self, cause: Exception) -> Callable[[], EngineError]:
        """Makes errors for what happened in the worker, one for each caller: raising one marks it."""
        message = f"the model failed: {type(cause).__name__}: {cause}"

        def make() -> EngineError:
            error = self._error(message)
            error.__cause__ = cause
            return error

        return make


def _after_rounds(loop: asyncio.AbstractEventLoop, rounds: int, call: Callable[[], None]) -> None:
    """Call when the loop has run so many times through all that was ready."""
    if rounds:
        loop.call_soon(_after_rounds, loop, rounds - 1, call)
    else:
        call()
