"""Models loaded once, and a search over them for every combination of settings that requests choose."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from prm.confidence import CONFIDENCES, PREFIX
from search.answers.graders import Grader, close_grader
from search.api import Search
from search.catalogue import ENGINES, METHODS
from search.config import SearchSettings
from search.errors import ConfigError
from search.prompt.files import with_files
from search.protocols import Engine, FeatureProvider
from search.serve.names import scorer_name, served_name, short_name
from search.serve.settings import merge
from search.setup.registry import make_engine, make_features, make_grader, runs_on_engine
from search.setup.routing import Engines, router_kind
from search.setup.run_key import engine_kind

MAX_KEPT = 64
"""Searches that are kept for the next request of the same settings."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A model that the server has beside its settings' own.

    Attributes:
        role: what it is for.
        model: as the setting of that name.
        engine: where it runs.
    """

    role: Literal["policy", "prm"]
    model: str
    engine: str = "local"

    @classmethod
    def parse(cls, role: Literal["policy", "prm"], text: str) -> Extra:
        """From MODEL, or MODEL=ENGINE."""
        model, equals, engine = text.rpartition("=")
        return cls(role, model, engine) if equals and engine.partition(":")[0] in ENGINES else cls(role, text)


class Searches:
    """Gives out searches that share the server's engines, embedder and graders. `load` comes first."""

    def __init__(
        self,
        settings: SearchSettings,
        given: Engines | None = None,
        extras: Sequence[Extra] = (),
        max_kept: int = MAX_KEPT,
    ) -> None:
        """Check the server's own settings; loads nothing.

        Args:
            settings: of every search, where a request says nothing else.
            given: engines that are loaded already, as for `Search.use`; they are closed with the rest.
            extras: other models that requests may choose.
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
        for place in (settings.engine, *(extra.engine for extra in extras)):
            if engine_kind(place) == "chat":
                raise ConfigError(
                    f"engine {place}: ets serve tells its clients how many tokens it took, and a chat API does not "
                    "say; serve a model on local, sglang or openai"
                )
        self.engines: Mapping[str, Engine] = {}
        self._extras = tuple(extras)
        self._loaded: dict[Extra, Engine] = {}
        if settings.writer == "arbitrage" and any(extra.role == "policy" for extra in extras):
            raise ConfigError("writer arbitrage writes with its draft and its target; no other policy can be chosen")
        for extra in extras:
            if extra.role == "prm" and not runs_on_engine(extra.model):
                raise ConfigError(f"{extra.model}: it is there without being loaded")
        own = int(runs_on_engine(self.prm)) + 1
        num_models = len(self.policies) + sum(runs_on_engine(prm) for prm in self.scorers.values())
        if num_models < len(extras) + own:
            raise ConfigError("two models have the same name to clients; give one of them from another folder")

    @property
    def policies(self) -> dict[str, str]:
        """The policies that requests may choose, by name, the server's own first."""
        more = (extra.model for extra in self._extras if extra.role == "policy")
        return {served_name(self.settings): self.settings.policy, **{short_name(model): model for model in more}}

    @property
    def scorers(self) -> dict[str, str]:
        """What may score in requests, by name, the server's own first."""
        free = ["none", *(f"{PREFIX}{name}" for name in CONFIDENCES)]
        more = [extra.model for extra in self._extras if extra.role == "prm"]
        return {scorer_name(prm): prm for prm in dict.fromkeys([self.prm, *more, *free])}

    async def load(self) -> None:
        """Load the models, or connect to their servers.

        Raises:
            ConfigError: a checkpoint cannot be used, or a server is not there.
        """
        if self._given is not None:
            given, self._given = self._given, None
            await asyncio.to_thread(self._base.use, given.policy, given.prm, given.draft, given.router)
        self.engines = await asyncio.to_thread(lambda: self._base.engines)
        own = self.settings
        for extra in self._extras:
            slots = own.max_kv_tokens if extra.role == "policy" else own.prm_max_kv_tokens
            self._loaded[extra] = await asyncio.to_thread(make_engine, extra.engine, extra.model, own, slots)

    async def get(self, changes: Mapping[str, Any], *, logprobs: bool = False) -> Search:
        """The search of the server's settings under these changes; `seed` is left to the call.

        Args:
            changes: settings of a request.
            logprobs: whether its steps keep their tokens' log-probabilities.

        Raises:
            ConfigError: the changes are wrong, or need a model that is not loaded.
        """
        chosen = {name: value for name, value in changes.items() if name != "seed"}
        key = json.dumps([chosen, logprobs], sort_keys=True)
        async with self._making:
            if key not in self._kept:
                self._kept[key] = await asyncio.to_thread(self._make, chosen, logprobs)
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
        for engine in self._loaded.values():
            await engine.aclose()

    def _make(self, changes: Mapping[str, Any], logprobs: bool) -> Search:
        settings = merge(self.settings, self.prm, changes, {extra.model: extra.engine for extra in self._extras})
        search = Search(settings=settings, grader=self._grader(settings.grader), features=self._embedder(settings))
        if search.ignored & changes.keys():
            said = (note.removesuffix("left alone") for note in search.notes if note.endswith("left alone"))
            raise ConfigError("; ".join(f"{note}leave it out" for note in said))
        search.use(
            self._extra("policy", search.settings.policy) or self.engines.get("policy") or self.engines.get("target"),
            (self._extra("prm", search.settings.prm) or self.engines.get("prm"))
            if runs_on_engine(search.settings.prm)
            else None,
            self.engines.get("draft"),
            self._router(search.settings),
        )
        if logprobs:
            search.driver.sampling = replace(search.driver.sampling, logprobs=True)
        return search

    def _extra(self, role: str, model: str) -> Engine | None:
        engines = (engine for extra, engine in self._loaded.items() if (extra.role, extra.model) == (role, model))
        return next(engines, None)

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
        if router_kind(settings.router).judge == "probe" and settings.router_model == own.router_model:
            return None
        if "router" in self.engines and settings.router_model == own.router_model:
            return self.engines["router"]
        if "prm" in self.engines and settings.router_model == self.prm:
            return self.engines["prm"]
        loaded = ", ".join(sorted({name for name in (own.router_model, self.prm) if name not in ("auto", "none")}))
        raise ConfigError(
            f"router {settings.router}: its model {settings.router_model!r} is not loaded here; "
            f"loaded: {loaded or 'none'}"
        )
