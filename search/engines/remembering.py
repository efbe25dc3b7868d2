"""An engine that is asked for each thing once and remembers what it answered, so that searches share their work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from search.errors import ConfigError
from search.protocols import Engine, Tokenizer
from search.support.files import write_atomic
from search.support.streams import closing
from search.types import Child, EngineInfo, FinishReason, Generation, Prefix, Sampling, Usage


class RememberingEngine:
    """An engine over another one, which it does not ask again for what it has answered.

    A step follows from its prefix, its sampling and its seed, and at temperature 0 from the prefix and the sampling
    alone. So searches that come by the same prefix are given the same step, under whichever trees and keys they ask.
    With a file the steps outlive the process: each is a line of it, written when it is there.
    """

    def __init__(self, engine: Engine, file: Path | None = None, weights: str | None = None) -> None:
        """Remember what `engine` answers.

        Args:
            engine: is asked for what is not known.
            file: of the steps, made where it is not there; a last line that was cut short is dropped.
            weights: the fingerprint of the model, which is that of all steps in the file.

        Raises:
            ConfigError: its seeds are not exact, so that nothing of it is repeatable, and no file makes what it wrote
                first what it wrote; or the file is of another model or precision, broken, or cannot be written.
        """
        if file is None and engine.info.seeds != "exact":
            raise ConfigError(f"engine {engine.info.name}: remembering needs exact seeds, its are {engine.info.seeds}")
        self.engine = engine
        self.info: EngineInfo = engine.info
        self.tokenizer: Tokenizer = engine.tokenizer
        self._steps: dict[str, Generation] = {}
        self._readings: dict[Hashable, tuple[float, ...]] = {}
        self._file = file
        if file is not None:
            self._open(file, {"weights": weights, "dtype": engine.info.details.get("dtype")})

    def _open(self, file: Path, head: Mapping[str, str | None]) -> None:
        """Read the steps of a file, and go on with it."""
        try:
            text = file.read_text(encoding="utf-8") if file.exists() else ""
            first, *rows = text[: text.rfind("\n") + 1].splitlines() or [json.dumps(head)]
            if json.loads(first) != head:
                raise ConfigError(f"{file} keeps steps of {first}, and the model is {head} now; give another folder")
            for row in map(json.loads, rows):
                ids, logprobs = tuple(row["ids"]), row["logprobs"] and tuple(row["logprobs"])
                finish = FinishReason(row["finish"])
                self._steps[row["place"]] = Generation(0, ids, row["text"], finish, row["seconds"], logprobs)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} cannot be read as kept steps ({error}); remove it to begin anew") from None
        if not text.endswith("\n"):
            write_atomic(file, "".join(f"{line}\n" for line in (first, *rows)))

    def _keep(self, row: Mapping[str, object]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Known steps first, then the others as they are written; one that was aborted is not kept.

        The engine is always asked for log-probabilities, so that a step is the same one whoever reads them.
        """
        asked = replace(sampling, logprobs=True)
        places = {child.key: _place(prefix.ids, child.seed if sampling.temperature else 0, asked) for child in children}
        unknown = [child for child in children if places[child.key] not in self._steps]

        def given(step: Generation, key: int) -> Generation:
            return replace(step, key=key, logprobs=step.logprobs if sampling.logprobs else None)

        for key, place in places.items():
            if place in self._steps:
                yield given(self._steps[place], key)
        if unknown:
            async with closing(self.engine.generate(prefix, unknown, asked)) as steps:
                async for step in steps:
                    if step.finish is not FinishReason.ABORT:
                        place = places[step.key]
                        self._steps[place] = step
                        self._keep({"place": place, "ids": step.ids, "text": step.text, "finish": step.finish,
                                    "seconds": step.seconds, "logprobs": step.logprobs})  # fmt: skip
                    yield given(step, step.key)

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


def _place(ids: tuple[int, ...], seed: int, sampling: Sampling) -> str:
    """What a step follows from, as a short name."""
    return hashlib.sha256(repr((ids, seed, sampling)).encode()).hexdigest()
