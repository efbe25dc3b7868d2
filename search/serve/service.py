"""A request's way: its settings checked, its turn awaited, its search run, watched, counted, and ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from search.api import Search
from search.config import SearchSettings
from search.errors import ConfigError
from search.loop.limits import is_out_of_time
from search.plain_text import is_unicode
from search.prompt.conversation import as_problem
from search.results.result import Result
from search.serve.body import Asked, ChatRequest, CompletionRequest, read_body
from search.serve.budget import Budget
from search.serve.errors import from_failure, from_search, invalid_input, stopping
from search.serve.gate import Gate
from search.serve.jobs import Job, Jobs, State
from search.serve.metrics import Metrics
from search.serve.names import listed, parse_name, parse_path, short_name
from search.serve.searches import Extra, Searches
from search.serve.settings import check_changes
from search.serve.spans import searching
from search.setup.routing import Engines
from search.types import Problem, Prompt

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
        deadline: seconds from a request's arrival to its answer; None: as long as it takes.
    """

    max_width: int = 64
    max_tokens: int = 4096
    max_concurrent: int = 8
    max_queue: int = 64
    max_body_bytes: int = 1 << 20
    shutdown_seconds: float = 30.0
    deadline: float | None = None

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
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError(f"deadline {self.deadline}: must be above 0")


class Service:
    """Everything behind the routes."""

    def __init__(
        self,
        settings: SearchSettings,
        limits: ServeLimits | None = None,
        name: str | None = None,
        engines: Engines | None = None,
        extras: Sequence[Extra] = (),
    ) -> None:
        """Check the settings; loads nothing.

        Args:
            settings: of every search, where a request says nothing else.
            limits: what requests may take.
            name: the model's name to clients; None: made from the policy's.
            engines: those that are loaded already.
            extras: other models that requests may choose.

        Raises:
            ConfigError: a setting is wrong, or beyond the limits.
        """
        self.limits = limits or ServeLimits()
        self.searches = Searches(settings, engines, extras)
        own, *others = self.searches.policies.items()
        self.name = name or own[0]
        self.policies = {self.name: own[1], **dict(others)}
        self.scorers = self.searches.scorers
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
        return [self._card(name, sets) for name, sets in listed(self.policies).items()]

    def model(self, name: str) -> dict[str, Any]:
        """One model.

        Raises:
            ApiError: 404, there is none of this name.
        """
        return self._card(name, parse_name(name, self.policies, self.scorers))

    def _card(self, name: str, sets: Mapping[str, Any]) -> dict[str, Any]:
        own = self.searches.settings
        policy = next(
            (served for served in self.policies if name == served or name.startswith(f"{served}@")), self.name
        )
        model = self.policies[policy] if own.writer == "model" else own.target
        shown = {"policy": short_name(model), "prm": short_name(self.searches.prm), **sets}
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "ets",
            "search": {key: short_name(value) if key in ("policy", "prm") else value for key, value in shown.items()},
        }

    def check_path(self, how: Iterable[str]) -> Mapping[str, Any]:
        """The settings that stand in a base URL before /v1.

        Raises:
            ApiError: 404.
        """
        return parse_path(how, self.scorers)

    # Requests

    async def prepare(
        self,
        body: ChatRequest | CompletionRequest,
        how: Iterable[str] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Job:
        """A request checked and given its search; nothing runs yet.

        Args:
            body: as it came.
            how: what stands in its address before /v1.
            headers: by their lower-case names.

        Raises:
            ApiError: 404 or 422; says what was wrong and what is accepted.
        """
        arrived = asyncio.get_running_loop().time()
        named = parse_name(body.model, self.policies, self.scorers)
        asked = read_body(body, ("model", named), ("the address", self.check_path(how)))
        budget = Budget.read(headers)
        if asked.num_choices > 1:  # all of the width is wanted, not its vote alone
            asked = replace(asked, changes={"until": "spent", **asked.changes})
        asked = replace(asked, changes=self._checked(asked.changes))
        search = await self._search_of(asked, asked.changes)
        within = budget.changes(asked, search.settings, self.limits.max_width)
        if within != asked.changes:
            search = await self._search_of(asked, within)
        self._check_limits(asked, search.settings)
        prompt, problem = self._put(asked, search)
        seed, own = asked.changes.get("seed"), self.searches.settings
        if seed is None:
            seed = own.seed if "seed" in own.model_fields_set else secrets.randbits(53)
        deadlines = (self.limits.deadline, budget.deadline)
        deadline = min((seconds for seconds in deadlines if seconds is not None), default=None)
        return Job(
            id=f"{'cmpl' if asked.raw else 'chatcmpl'}-{secrets.token_hex(12)}",
            model=body.model,
            asked=asked,
            problem=Problem(PROBLEM_ID, problem),
            prompt=prompt,
            seed=seed,
            search=search,
            deadline=deadline,
            ends_at=None if deadline is None else arrived + deadline,
            headers=headers,
            events=asyncio.Queue() if asked.stream else None,
        )

    def _checked(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request's settings, each by itself right, the scorer as the settings call it."""
        check_changes(changes)
        if "prm" not in changes:
            return changes
        prm = self.scorers.get(changes["prm"], changes["prm"])
        if prm not in self.scorers.values():
            raise invalid_input(f"prm {prm!r} is not loaded here; accepted: {', '.join(self.scorers)}", "search.prm")
        return {**changes, "prm": prm}

    async def _search_of(self, asked: Asked, changes: Mapping[str, Any]) -> Search:
        try:
            return await self.searches.get(changes, logprobs=asked.logprobs)
        except ConfigError as error:
            raise invalid_input(str(error), "search") from None

    def _put(self, asked: Asked, search: Search) -> tuple[Prompt, str]:
        """What the policy reads of a request, and what it is to who judges steps."""
        if asked.raw:
            if not is_unicode(asked.problem):
                raise invalid_input("the prompt is not valid Unicode text", "prompt")
            tokenizer = search.driver.writer.tokenizer
            start = "" if asked.problem.startswith(tokenizer.start) else tokenizer.start
            text = start + asked.problem
            return Prompt(text, tokenizer.encode(text)), asked.problem
        try:
            prompt = search.prompt(asked.problem, asked.earlier)
        except ConfigError as error:
            raise invalid_input(str(error), "messages") from None
        return prompt, asked.problem if prompt.num_left_out else as_problem(asked.earlier, asked.problem)

    def _check_limits(self, asked: Asked, settings: SearchSettings) -> None:
        limits, cap = self.limits, self.searches.settings.max_seconds
        if settings.width > limits.max_width:
            raise invalid_input(f"width {settings.width}: this server allows up to {limits.max_width}", "search.width")
        if settings.max_tokens > limits.max_tokens:
            raise invalid_input(
                f"max_tokens {settings.max_tokens}: this server allows up to {limits.max_tokens}", "max_tokens"
            )
        if cap is not None and (settings.max_seconds is None or settings.max_seconds > cap):
            raise invalid_input(
                f"max_seconds {settings.max_seconds}: this server allows up to {cap}", "search.max_seconds"
            )
        if asked.num_choices > settings.width:
            raise invalid_input(
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
            async with self.gate.admit(job.ends_at) as job.seconds_queued:
                self.metrics.waited(job.seconds_queued)
                job.state, job.began, began = "running", True, time.perf_counter()
                result = await self._solve(job)
            if result.error is not None and not is_out_of_time(result.error):
                raise from_failure(result.error, job.asked.field)
            state = "finished"
            return result
        except asyncio.CancelledError:
            state, said = "cancelled", "cancelled"
            if job.stopped:
                raise stopping() from None
            raise
        except Exception as error:
            told = from_search(error, job.asked.field)
            said = told.message
            if told.code == "internal_error":
                _log.exception("search %s broke", job.id)
            raise told from error
        finally:
            if began is not None:
                self.metrics.ended(state, time.perf_counter() - began, result)
            job.end(state, result, said)

    async def _solve(self, job: Job) -> Result:
        """The search itself, up to the job's deadline."""
        seconds = None
        if job.ends_at is not None:
            seconds = round(max(0.001, job.ends_at - asyncio.get_running_loop().time()), 3)
        with searching(job) as note:
            result = await job.search.asolve(
                job.problem, seed=job.seed, watch=job.watch, prompt=job.prompt, max_seconds=seconds
            )
            job.late = any(is_out_of_time(node.reason) for node in result.tree)
            note(result)
        return result

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
