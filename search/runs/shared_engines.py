"""Models loaded once for several runs in one process: a run takes the engines that the run before it used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from search.api import Search
from search.config import EvalSettings, SearchSettings
from search.engines.remembering import RememberingEngine
from search.errors import ConfigError
from search.protocols import Engine
from search.setup.registry import make_engine, model_path, weights_of
from search.setup.resolve import Part, parts, settle


class SharedEngines:
    """Engines that runs use in turn, by what they are; all runs belong to one event loop."""

    def __init__(self, memory: Path | None = None) -> None:
        """Load engines once.

        Args:
            memory: a folder in which each keeps what it wrote, so that none is asked for a step again, also by runs
                to come; None remembers nothing.
        """
        self._memory = memory
        self._engines: dict[tuple[object, ...], Engine] = {}

    def give(self, search: Search) -> None:
        """Give a search the engines that are loaded already, and keep those that it loads.

        Raises:
            ConfigError: a model cannot be loaded.
        """
        keys = dict(_engine_keys(search.settings))
        if self._memory is not None:
            for part in parts(search.settings):
                if keys[part.role] not in self._engines:
                    self._engines[keys[part.role]] = self._remembering(search.settings, part, self._memory)
        known = {role: self._engines[key] for role, key in keys.items() if key in self._engines}
        search.use(
            known.get("policy") or known.get("target"), known.get("prm"), known.get("draft"), known.get("router")
        )
        self._engines |= {keys[role]: engine for role, engine in search.engines.items() if role in keys}

    @staticmethod
    def _remembering(settings: SearchSettings, part: Part, folder: Path) -> Engine:
        reads = part.role in ("prm", "router")
        room = settings.prm_max_kv_tokens if reads else settings.max_kv_tokens
        engine = make_engine(part.engine, part.model, settings, room)
        if reads:
            return engine
        return RememberingEngine(engine, folder / f"{part.role}.jsonl", weights_of(part.model))

    async def keep_only(self, wanted: Iterable[EvalSettings]) -> None:
        """Close the engines that none of these runs uses."""
        needed = {key for settings in wanted for _, key in _engine_keys(settle(settings).settings)}
        gone = [key for key in self._engines if key not in needed]
        closing = dict.fromkeys(self._engines.pop(key) for key in gone)
        for engine in closing:
            if engine not in self._engines.values():
                await engine.aclose()


def _engine_keys(settings: SearchSettings) -> Iterator[tuple[str, tuple[object, ...]]]:
    """By role, all that decides what an engine is; target and policy are one role, no other two share an engine."""
    own = settings.model_dump(
        include={"device", "dtype", "gguf_weights", "trust_remote_code", "request_timeout", "request_attempts"}
    )
    for part in parts(settings):
        role = "policy" if part.role == "target" else part.role
        room = settings.max_kv_tokens if role in ("policy", "draft") else settings.prm_max_kv_tokens
        try:
            place = str(Path(model_path(part.model)).expanduser().absolute())
        except ConfigError:  # said when the run's turn comes
            place = part.model
        yield part.role, (role, place, part.engine, room, settings.max_requests, *own.values())
