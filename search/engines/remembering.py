"""An engine that is asked for each thing once and remembers what it answered, so that searches share their work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Hashable, Sequence
from dataclasses import replace
from typing import Literal

from search.errors import ConfigError
from search.protocols import Engine, Tokenizer
from search.support.streams import closing
from search.types import Child, EngineInfo, FinishReason, Generation, Prefix, Sampling, Usage


class RememberingEngine:
    """An engine over another one, which it does not ask again for what it has answered.

    A step follows from its prefix, its sampling and its seed, and at temperature 0 from the prefix and the sampling
    alone. So searches that come by the same prefix are given the same step, under whichever trees and keys they ask.
    """

    def __init__(self, engine: Engine) -> None:
        """Remember what `engine` answers.

        Raises:
            ConfigError: its seeds are not exact, so that nothing of it is repeatable.
        """
        if engine.info.seeds != "exact":
            raise ConfigError(f"engine {engine.info.name}: remembering needs exact seeds, its are {engine.info.seeds}")
        self.engine = engine
        self._steps: dict[Hashable, Generation] = {}
        self._readings: dict[Hashable, tuple[float, ...]] = {}

    @property
    def info(self) -> EngineInfo:
        """That of the engine behind it."""
        return self.engine.info

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the engine behind it."""
        return self.engine.tokenizer

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Known steps first, then the others as they are written; one that was aborted is not kept."""
        ids = prefix.ids
        places = {child.key: (ids, child.seed if sampling.temperature else 0, sampling) for child in children}
        unknown = [child for child in children if places[child.key] not in self._steps]
        for key, place in places.items():
            if place in self._steps:
                yield replace(self._steps[place], key=key)
        if unknown:
            async with closing(self.engine.generate(prefix, unknown, sampling)) as steps:
                async for step in steps:
                    if step.finish is not FinishReason.ABORT:
                        self._steps[places[step.key]] = step
                    yield step

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """As the engine behind it."""
        place = (prefix.ids, tuple(labels))
        if place not in self._readings:
            self._readings[place] = await self.engine.label_logprobs(prefix, labels)
        return self._readings[place]

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """As the engine behind it."""
        place = (prefix.ids, what, *layers)
        if place not in self._readings:
            self._readings[place] = await self.engine.read(prefix, what, layers)
        return self._readings[place]

    def forget(self) -> None:
        """Remember nothing any more."""
        self._steps.clear()
        self._readings.clear()

    def usage(self, tree: str) -> Usage:
        """What the engine behind it did for a tree."""
        return self.engine.usage(tree)

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Have the engine behind it free what it holds; what it answered stays known."""
        await self.engine.release(tree, keys)

    async def aclose(self) -> None:
        """Close the engine behind it."""
        await self.engine.aclose()
