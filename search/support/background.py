"""An event loop on a thread of its own, behind the synchronous calls: works in scripts and in notebooks alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Starts on first use; `stop` ends and joins the thread, after which it may be used anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop."""
        with self._lock:
            if self._loop is None:
                runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
                self._loop = runner.get_loop()
                self._thread = threading.Thread(target=_run, args=(runner,), name="search", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end; an interruption of the caller cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what still runs, end the thread and close the loop."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on a loop of its own; the caller's thread may be running another one."""
    loop = BackgroundLoop()
    try:
        return loop.wait(work)
    finally:
        loop.stop()


def _run(runner: asyncio.Runner) -> None:
    """Run its loop until that is stopped; leaving the runner cancels what still runs and closes the loop."""
    with runner:
        runner.get_loop().run_forever()
