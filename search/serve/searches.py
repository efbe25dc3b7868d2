"""Models loaded once, and a search over them for every combination of settings that requests choose."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from search.answers.graders import Grader, close_grader
from search.api import Search
from search.catalogue import METHODS
from search.config import SearchSettings
from search.errors import ConfigError
from search.prompt_files import with_files
from search.protocols import Engine, FeatureProvider
from search.registry import make_features, make_grader
from search.routing import Engines
from search.serve.settings import merge

MAX_KEPT = 64
"""Searches that are kept for the next request of the same settings."""


class Searches:
    """Gives out searches that share the server's engines, embedder and graders. `load` comes first."""

    def __init__(self, settings: SearchSettings, given: Engines | None = None, max_kept: int = MAX_KEPT) -> None:
        """Check the server's own settings; loads nothing.

        Args:
            settings: of every search, where a request says nothing else.
            given: engines that are loaded already, as for `Search.use`; they are closed with the rest.
            max_kept: searches to keep.

        Raises:
            ConfigError: a setting is wrong.
        """
        self.settings = settings = with_files(settings)
        self._graders: dict[str, Grader] = {}
        self._features: tuple[FeatureProvider, ...] = ()
        self._kept: OrderedDict[str, Search] = OrderedDict()
        self._max_kept = max_kept
        self._making = asyncio.Lock()
        self._given = given
        self._base = Search(settings=settings)
        self.prm = self._base.settings.prm
        self.engines: Mapping[str, Engine] = {}

    async def load(self) -> None:
        """Load the models, or connect to their servers.

        Raises:
            ConfigError: a checkpoint cannot be used, or a server is not there.
        """
        if self._given is not None:
            given, self._given = self._given, None
            await asyncio.to_thread(self._base.use, given.policy, given.prm, given.draft, given.router)
        driver = await asyncio.to_thread(lambda: self._base.driver)
        self.engines = {**driver.writer.engines, **({} if driver.scorer is None else driver.scorer.engines)}

    async def get(self, changes: Mapping[str, Any]) -> Search:
        """The search of the server's settings under these changes; `seed` is left to the call.

        Raises:
            ConfigError: the changes are wrong, or need a model that is not loaded.
        """
        chosen = {name: value for name, value in changes.items() if name != "seed"}
        key = json.dumps(chosen, sort_keys=True)
        async with self._making:
            if key not in self._kept:
                self._kept[key] = await asyncio.to_thread(self._make, chosen)
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)  # its engines are the server's; nothing of its own is left behind
            return self._kept[key]

    async def aclose(self) -> None:
        """Free the models and the graders."""
        self._kept.clear()
        for grader in self._graders.values():
            close_grader(grader)
        await self._base.aclose()

    def _make(self, changes: Mapping[str, Any]) -> Search:
        settings = merge(self.settings, self.prm, changes)
        search = Search(settings=settings, grader=self._grader(settings.grader), features=self._embedder(settings))
        if unused := sorted(search.ignored & changes.keys()):
            raise ConfigError("; ".join(search.notes) or f"{unused[0]} is not used")
        search.use(
            self.engines.get("policy") or self.engines.get("target"),
            self.engines.get("prm") if search.settings.prm != "none" else None,
            self.engines.get("draft"),
            self._router(search.settings),
        )
        return search

    def _grader(self, name: str) -> Grader:
        name = "plain" if name == "auto" else name
        if name not in self._graders:
            self._graders[name] = make_grader(name)
        return self._graders[name]

    def _embedder(self, settings: SearchSettings) -> tuple[FeatureProvider, ...]:
        if not self._features and METHODS[settings.method].embeds:
            self._features = tuple(make_features(settings, frozenset({"embedding"})))
        return self._features

    def _router(self, settings: SearchSettings) -> Engine | None:
        """The engine of the model behind a router; None where it has none.

        Raises:
            ConfigError: its model is not loaded.
        """
        if settings.writer == "model" or settings.router_model == "auto":
            return None
        own = self._base.settings
        if "router" in self.engines and settings.router_model == own.router_model:
            return self.engines["router"]
        if "prm" in self.engines and settings.router_model == self.prm:
            return self.engines["prm"]
        loaded = ", ".join(sorted({name for name in (own.router_model, self.prm) if name not in ("auto", "none")}))
        raise ConfigError(
            f"router {settings.router}: its model {settings.router_model!r} is not loaded here; "
            f"loaded: {loaded or 'none'}"
        )
