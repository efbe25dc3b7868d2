"""A request's way: its settings checked, its turn awaited, its search run, watched, counted, and ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.config import SearchSettings
from search.errors import ConfigError
from search.result import Result
from search.routing import Engines
from search.serve.body import Asked, ChatRequest, read_body
from search.serve.errors import from_failure, from_search, stopping, wrong
from search.serve.gate import Gate
from search.serve.jobs import Job, Jobs, State
from search.serve.metrics import Metrics
from search.serve.names import listed, parse_name, served_name, short_name
from search.serve.searches import Searches
from search.serve.settings import check_changes
from search.types import Problem

_log = logging.getLogger(__name__)

PROBLEM_ID = "0"
"""Every problem's id, as that of `Search.solve`: what is drawn depends on the seed alone."""


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """What one request, and all together, may take.

    Attributes:
        max_width: of one search.
        max_tokens: of one trajectory.
        max_concurrent: searches side by side.
        max_queue: searches that wait.
        max_body_bytes: of one request.
        shutdown_seconds: from the signal to end until what still runs is cancelled.
    """

    max_width: int = 64
    max_tokens: int = 4096
    max_concurrent: int = 8
    max_queue: int = 64
    max_body_bytes: int = 1 << 20
    shutdown_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            ConfigError: a limit is out of range.
        """
        for name in ("max_width", "max_tokens", "max_concurrent", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: must be at least 1")
        for name in ("max_queue", "shutdown_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must be at least 0")


class Service:
    """Everything behind the routes."""

    def __init__(
        self,
        settings: SearchSettings,
        limits: ServeLimits | None = None,
        name: str | None = None,
        engines: Engines | None = None,
    ) -> None:
        """Check the settings; loads nothing.

        Args:
            settings: of every search, where a request says nothing else.
            limits: what requests may take.
            name: the model's name to clients; None: made from the policy's.
            engines: those that are loaded already.

        Raises:
            ConfigError: a setting is wrong, or beyond the limits.
        """
        self.limits = limits or ServeLimits()
        self.searches = Searches(settings, engines)
        self.name = name or served_name(settings)
        self.gate = Gate(self.limits.max_concurrent, self.limits.max_queue)
        self.jobs = Jobs()
        self.metrics = Metrics(self.gate, lambda: self.searches.engines)
        self.created = int(time.time())
        if settings.width > self.limits.max_width:
            raise ConfigError(f"width {settings.width} is above the limit for requests, {self.limits.max_width}")
        if settings.max_tokens > self.limits.max_tokens:
            raise ConfigError(
                f"max_tokens {settings.max_tokens} is above the limit for requests, {self.limits.max_tokens}"
            )

    # Models

    def models(self) -> list[dict[str, Any]]:
        """The list of models, as OpenAI shows it."""
        return [self._card(name, sets) for name, sets in listed(self.name).items()]

    def model(self, name: str) -> dict[str, Any]:
        """One model.

        Raises:
            ApiError: 404, there is none of this name.
        """
        return self._card(name, parse_name(name, self.name))

    def _card(self, name: str, sets: Mapping[str, Any]) -> dict[str, Any]:
        policy = served_name(self.searches.settings)
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "ets",
            "search": {"policy": policy, "prm": short_name(self.searches.prm), **sets},
        }

    # Requests

    async def prepare(self, body: ChatRequest) -> Job:
        """A request checked and given its search; nothing runs yet.

        Raises:
            ApiError: 404 or 422; says what was wrong and what is accepted.
        """
        asked = read_body(body, parse_name(body.model, self.name))
        if asked.num_choices > 1:  # all of the width is wanted, not its vote alone
            asked = replace(asked, changes={"until": "spent", **asked.changes})
        check_changes(asked.changes)
        try:
            search = await self.searches.get(asked.changes)
        except ConfigError as error:
            raise wrong(str(error), "search") from None
        self._check_limits(asked, search.settings)
        seed, own = asked.changes.get("seed"), self.searches.settings
        if seed is None:
            seed = own.seed if "seed" in own.model_fields_set else secrets.randbits(53)
        return Job(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            asked=asked,
            problem=Problem(PROBLEM_ID, asked.problem),
            seed=seed,
            search=search,
            events=asyncio.Queue() if asked.stream else None,
        )

    def _check_limits(self, asked: Asked, settings: SearchSettings) -> None:
        limits, cap = self.limits, self.searches.settings.max_seconds
        if settings.width > limits.max_width:
            raise wrong(f"width {settings.width}: this server allows up to {limits.max_width}", "search.width")
        if settings.max_tokens > limits.max_tokens:
            raise wrong(f"max_tokens {settings.max_tokens}: this server allows up to {limits.max_tokens}", "max_tokens")
        if cap is not None and (settings.max_seconds is None or settings.max_seconds > cap):
            raise wrong(f"max_seconds {settings.max_seconds}: this server allows up to {cap}", "search.max_seconds")
        if asked.num_choices > settings.width:
            raise wrong(
                f"n {asked.num_choices}: a search of width {settings.width} gives at most {settings.width} choices", "n"
            )

    def start(self, job: Job) -> asyncio.Task[Result]:
        """Have a job searched. Cancelling the task frees what the search holds."""
        task = asyncio.create_task(self._search(job))
        self.jobs.started(job, task)
        return task

    async def _search(self, job: Job) -> Result:
        """Wait for the turn and search.

        Raises:
            ApiError: the search is turned away, went wrong, or came to nothing because something broke.
            CancelledError: it was cancelled by its client.
        """
        state: State = "failed"
        result: Result | None = None
        said: str | None = None
        began: float | None = None
        try:
            async with self.gate.admit() as job.seconds_queued:
                self.metrics.waited(job.seconds_queued)
                job.state, job.began, began = "running", True, time.perf_counter()
                result = await job.search.asolve(job.problem, seed=job.seed, watch=job.watch)
            if result.error is not None:
                raise from_failure(result.error)
            state = "finished"
            return result
        except asyncio.CancelledError:
            state, said = "cancelled", "cancelled"
            if job.stopped:
                raise stopping() from None
            raise
        except Exception as error:
            told = from_search(error)
            said = told.message
            if told.code == "internal_error":
                _log.exception("search %s broke", job.id)
            raise told from error
        finally:
            if began is not None:
                self.metrics.ended(state, time.perf_counter() - began, result)
            job.end(state, result, said)

    # Ending

    async def drain(self) -> None:
        """Turn new searches away, wait for those that run, and cancel what runs past the deadline."""
        self.gate.close()
        deadline = self.limits.shutdown_seconds
        if tasks := [task for _, task in self.jobs.active.values()]:
            await asyncio.wait(tasks, timeout=deadline)
        await self.stop()

    async def stop(self) -> None:
        """Cancel everything now; waits until it has ended."""
        tasks = [task for _, task in self.jobs.active.values()]
        if self.jobs.stop_all():
            _log.warning("cancelled %d searches that still ran", len(tasks))
            await asyncio.wait(tasks)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has let everything go."""
    task.cancel()
    await asyncio.wait({task})
