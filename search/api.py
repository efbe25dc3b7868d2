"""The Python API: models, method and width in; answers with their trees and costs out."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from queue import SimpleQueue
from types import NoneType, TracebackType
from typing import Any, Self, cast

from search.answers.graders import Grader, close_grader
from search.checkpoints.hub import find_model
from search.config import SearchSettings, build
from search.errors import ConfigError, SearchError
from search.loop.driver import Driver
from search.loop.progress import Watch
from search.loop.writer import ModelWriter
from search.prompt.conversation import Turn
from search.prompt.files import with_files
from search.prompt.prompts import PromptRenderer
from search.protocols import Engine, FeatureProvider, Policy, Scorer, Writer
from search.results.result import Result, conclude
from search.setup.assembly import OwnParts, assemble
from search.setup.notes import chat_notes, context_notes, seed_notes
from search.setup.registry import (
    check_hidden_embedder,
    check_writes,
    make_features,
    make_grader,
    make_policy,
    model_path,
)
from search.setup.resolve import parts, record_of, resolve
from search.setup.routing import Engines
from search.setup.run_key import config_hash
from search.support.background import BackgroundLoop
from search.types import Problem, Prompt, Reduce, VoteRule

_log = logging.getLogger("search")

DEFAULT_CONCURRENCY = 8
"""Problems side by side where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A problem whose search broke with an error of its own; other problems went on."""

    problem: Problem
    error: SearchError


class Search:
    """A search set up once and used for any number of problems.

    Models load on the first use and stay loaded until `close`; a `with` block closes at its end.

    Attributes:
        settings: what runs, every default settled.
        notes: what a person must know of it, e.g. that nothing ranks; they are logged as warnings of "search" before
            the models load, or after it what only they tell.
        ignored: settings that were given and are not used, by name.
        config_hash: equal for equal settings alone; the key under which a run may be gone on with.
    """

    def __init__(
        self,
        policy: str | Engine | Writer = "mini:target",
        prm: str | Scorer | None = "auto",
        method: str | Policy = "ets",
        width: int | None = None,
        *,
        grader: str | Grader | None = None,
        features: Iterable[FeatureProvider] = (),
        settings: SearchSettings | None = None,
        **others: Any,
    ) -> None:
        """Choose the parts.

        Args:
            policy: "mini:target", "mini:draft", a path, a hub id; or an engine or a writer of your own.
            prm: "mini:prm", a path, a hub id, None for no reward model; or a scorer of your own. "auto": mini:prm
                beside models of the mini family, none beside any other.
            method: a method's name, or a policy of your own.
            width: trajectories to spend on a problem; None for 16, or what the method has.
            grader: finds and compares answers: a name as the setting `grader` takes, or one of your own.
            features: providers for features that a policy of your own declares.
            settings: everything at once; the arguments above are then left at their defaults.
            others: any other field of `search.config.SearchSettings`, e.g. seed=1, temperature=0.8.

        Raises:
            ConfigError: an unknown name or a value out of range; says what is accepted.
        """
        _check_kinds(policy, prm, method, grader)
        if isinstance(grader, str):
            others, grader = others | {"grader": grader}, None
        if settings is None:
            named = {"policy": policy, "prm": "none" if prm is None else prm, "method": method, "width": width}
            settings = build(SearchSettings, {k: v for k, v in named.items() if isinstance(v, str | int)} | others)
        elif others or (policy, prm, method, width) != ("mini:target", "auto", "ets", None):
            raise ConfigError("give settings, or policy, prm, method, width and others; not both")
        settings = with_files(settings)
        own_writer = policy if isinstance(policy, Writer) else None if isinstance(policy, str) else ModelWriter(policy)
        own_scorer = None if prm is None or isinstance(prm, str) else prm
        self._own_policy = not isinstance(method, str)
        resolved = resolve(
            settings,
            own_models=own_writer is not None,
            own_scorer=own_scorer is not None,
            own_policy=self._own_policy,
        )
        self.settings, self.ignored = resolved.settings, resolved.ignored
        self.notes = resolved.notes
        self._num_said = 0
        self._asked = self.settings
        self.config_hash = config_hash(self.record)
        self.grader: Grader = grader or make_grader(self.settings.grader)
        # Wrong options, and an embedder that is not there, are said now and not after a model has loaded.
        search_method = make_policy(self.settings, self.settings.search_reduce) if isinstance(method, str) else method
        features = tuple(features)
        wanted = search_method.features - {provider.name for provider in features}
        features += tuple(make_features(self.settings, wanted))
        if "embedding" in wanted and self.settings.embedder == "prm" and own_scorer is None:
            check_hidden_embedder(self.settings)
        self._own = OwnParts(search_method, self.grader, features, own_writer, own_scorer)
        self._driver: Driver | None = None
        self._prompts: PromptRenderer | None = None
        self._loading = threading.Lock()
        self._background = BackgroundLoop()

    # Setting up

    def say(self) -> None:
        """Log those notes that were not said yet; a program that sets up no logging prints them on stderr."""
        for note in self.notes[self._num_said :]:
            _log.warning("%s", note)
        self._num_said = len(self.notes)

    @property
    def record(self) -> dict[str, Any]:
        """The settings that are used, as a run keeps them; what is not there is not used or has no limit."""
        return record_of(self.settings, own_policy=self._own_policy)

    def load(self) -> None:
        """Load the models in the caller's thread, where an interruption ends it at once; else the first use does.

        Raises:
            ConfigError: a checkpoint cannot be used.
        """
        _ = self.driver

    @property
    def driver(self) -> Driver:
        """The loop with its parts; loads the models on first use.

        Raises:
            ConfigError: a checkpoint cannot be used.
        """
        with self._loading:
            if self._driver is None:
                self._take(Engines())
            assert self._driver is not None
            return self._driver

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines of all models by their role; loads them on first use.

        Raises:
            ConfigError: a checkpoint cannot be used.
        """
        writer, scorer = self.driver.writer, self.driver.scorer
        return {**writer.engines, **({} if scorer is None else scorer.engines)}

    def use(
        self, policy: Engine | None, prm: Engine | None, draft: Engine | None = None, router: Engine | None = None
    ) -> None:
        """Take engines that are loaded already, in place of those that the settings name.

        Several searches may share them; `close` of one then closes them for all. They should be what the settings
        say, since that is what records say. None: loaded as the settings say. With writer arbitrage, `policy` is the
        target's engine.
        """
        with self._loading:
            self._take(Engines(policy, prm, draft, router))

    def _take(self, engines: Engines) -> None:
        loads = False
        for part in parts(self._asked):  # what is wrong with one is said by itself, before the notes
            if part.role in ("policy", "draft", "target"):
                check_writes(part.model)
            if part.engine == "local" and engines.of(part.role) is None:
                find_model(model_path(part.model))
                loads = True
        if loads:
            self.say()
        driver, prompts = assemble(self._asked, engines, self._own)
        told = chat_notes(driver, self._asked)
        self._driver, self._prompts = driver, prompts
        # Now it is known what "auto" means for this model's template.
        self.settings = self._asked.model_copy(update=prompts.settled())
        self.notes += (*told, *context_notes(driver, self.settings), *seed_notes(driver))
        self.say()

    # Solving

    def prompt(self, question: str, earlier: Sequence[Turn] = ()) -> Prompt:
        """A question as the policy model reads it, after `earlier` turns; loads the models on first use.

        Raises:
            ConfigError: the question is empty or no Unicode text, or a template refuses it.
        """
        if self._prompts is None:
            _ = self.driver
            assert self._prompts is not None
        return self._prompts.render(question, earlier)

    async def asolve(
        self,
        problem: str | Problem,
        *,
        seed: int | None = None,
        watch: Watch | None = None,
        prompt: Prompt | None = None,
        max_seconds: float | None = None,
    ) -> Result:
        """Search one problem.

        Args:
            problem: the question, or a problem with an id and a reference answer.
            seed: in place of the setting, for this problem.
            watch: called before and after each selection; what it raises ends the search.
            prompt: what the policy model reads; None: the problem's text as the settings put it.
            max_seconds: a limit of this problem's own, beside the setting; the shorter one counts.

        Raises:
            ConfigError: the problem is empty or too long for the model.
            SearchError: the search could not be run.
        """
        asked = problem if isinstance(problem, Problem) else Problem("0", problem)
        driver = await asyncio.to_thread(lambda: self.driver)
        prompt = self.prompt(asked.text) if prompt is None else prompt
        outcome = await driver.solve(asked, prompt, seed=seed, watch=watch, max_seconds=max_seconds)
        # Off the loop: comparing answers may take a while, and other problems go on.
        return await asyncio.to_thread(
            conclude,
            outcome,
            rule=cast(VoteRule, self.settings.vote),
            reduce=cast(Reduce, self.settings.reduce),
            grader=self.grader,
            method=driver.policy.name if self._own_policy else self.settings.method_name,
            width=self.settings.width,
            seed=self.settings.seed if seed is None else seed,
            thoughts=self.settings.thinking != "drop",
        )

    async def asolve_many(
        self, problems: Iterable[Problem], concurrency: int = DEFAULT_CONCURRENCY, watch: Watch | None = None
    ) -> AsyncGenerator[Result | Failure, None]:
        """Search many problems side by side and yield each when it is done.

        A problem whose search raises is yielded as a `Failure`; the others go on. Closing the generator cancels
        what runs.

        Raises:
            ConfigError: the concurrency is below 1.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency {concurrency}: must be at least 1")
        todo = iter(problems)
        running: set[asyncio.Task[Result | Failure]] = set()

        async def attempt(problem: Problem) -> Result | Failure:
            try:
                return await self.asolve(problem, watch=watch)
            except SearchError as error:
                return Failure(problem, error)

        try:
            while True:
                # Off the loop: a caller's generator may take its time, or call `solve` itself.
                while len(running) < concurrency and (problem := await asyncio.to_thread(next, todo, None)) is not None:
                    running.add(asyncio.create_task(attempt(problem)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def solve(self, problem: str | Problem) -> Result:
        """Search one problem; as `asolve`, from ordinary code or a notebook."""
        return self._background.wait(self.asolve(problem))

    def solve_many(
        self, problems: Iterable[Problem], concurrency: int = DEFAULT_CONCURRENCY
    ) -> Iterator[Result | Failure]:
        """Search many problems side by side; as `asolve_many`, in the order of completion."""
        arrived: SimpleQueue[Result | Failure | BaseException | None] = SimpleQueue()

        async def collect() -> None:
            try:
                async with aclosing(self.asolve_many(problems, concurrency)) as results:
                    async for item in results:
                        arrived.put(item)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)
                raise

        future = self._background.submit(collect())
        try:
            while (item := arrived.get()) is not None:
                if isinstance(item, asyncio.CancelledError):
                    raise SearchError("the search was closed while problems were being solved")
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            future.cancel()

    # Ending

    async def aclose(self) -> None:
        """Free the models, and what the grader holds; the search may be used again and then loads them anew."""
        close_grader(self.grader)
        engines = {} if self._driver is None else self.engines
        self._driver = None
        for engine in dict.fromkeys(engines.values()):  # one may have several roles
            await engine.aclose()

    def close(self) -> None:
        """As `aclose`, from ordinary code; also ends the thread behind `solve`."""
        self._background.wait(self.aclose())
        self._background.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _check_kinds(policy: object, prm: object, method: object, grader: object) -> None:
    """Refuse what is neither a name nor a part of its kind."""
    for name, part, kinds in (
        ("policy", policy, (str, Engine, Writer)),
        ("prm", prm, (str, Scorer, NoneType)),
        ("method", method, (str, Policy)),
        ("grader", grader, (str, Grader, NoneType)),
    ):
        if not isinstance(part, kinds):
            accepted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
            raise ConfigError(f"{name} must be {accepted}, not {part!r}")
