"""An engine of one's own: an n-gram model over bytes, counted from a folder of texts, with exact seeds.

Usage: python examples/own_engine.py

With this line in `ENGINES` of search/catalogue.py it has a name of its own, `--engine ngram --policy FOLDER`:

    "ngram": "own_engine:NgramEngine",
"""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from search import ConfigError, EngineError, Problem, Search
from search.engines.counter import uniform
from search.engines.stops import StopRules, TokenTable
from search.mini import problem
from search.mini.solutions import CLEAN_RATES, write_solution
from search.types import Child, EngineInfo, FinishReason, Generation, Prefix, Sampling, Usage

ORDER = 12
"""Bytes that the model looks back at most; it takes the longest ending of the text that it has seen."""
END = 256


class Bytes:
    """A tokenizer whose ids are the bytes of a text, and one more that ends it."""

    fingerprint = "bytes-and-an-end"
    start = ""
    eos_ids = frozenset({END})
    controls = tags = frozenset[str]()
    table = TokenTable([*(bytes([one]) for one in range(256)), b""], [*(bytes([one]) for one in range(256)), b""])

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return self.table.join(ids)

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object] = {}) -> str | None:
        return None  # it has no template


class NgramEngine:
    """Writes what followed the same bytes in its texts. Nothing is cached, so there is nothing to count or free."""

    tokenizer = Bytes()

    def __init__(self, model: str, texts: Sequence[str]) -> None:
        self.info = EngineInfo("ngram", model, context_tokens=100_000, vocab_size=END + 1, seeds="exact")
        self._rules = StopRules(self.tokenizer.table, self.tokenizer.eos_ids)
        self._written: Counter[str] = Counter()
        self._next: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            ids = (*self.tokenizer.encode(text), END)
            for at, token in enumerate(ids):
                for length in range(min(at, ORDER) + 1):
                    self._next[ids[at - length : at]][token] += 1

    @classmethod
    def load(cls, model: str, **_: object) -> NgramEngine:
        """What `make_engine` calls: `model` is a path; settings of other engines, such as the device, are not read."""
        texts = [file.read_text(encoding="utf-8") for file in sorted(Path(model).glob("*.txt"))]
        if not texts:
            raise ConfigError(f"model {model!r}: holds no .txt file to count")
        return cls(model, texts)

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncIterator[Generation]:
        rule = self._rules.rule(sampling.stop)
        begun = rule.begin(prefix)
        for child in children:
            ids, logprobs, writing, finish = list[int](), list[float](), begun.copy(), None
            while finish is None:
                found = self._counts((*prefix.ids, *ids))
                token = _drawn(found, sampling, uniform(child.seed, len(ids)))
                ids.append(token)
                logprobs.append(math.log(found[token] / found.total()))
                finish = rule.finish(writing, ids, sampling)
                if finish is None and len(ids) >= sampling.max_new_tokens:
                    finish = FinishReason.LENGTH
            self._written[prefix.tree] += len(ids)
            text = self.tokenizer.table.step_text(prefix, ids, finish)
            yield Generation(
                child.key, tuple(ids), text, finish, logprobs=tuple(logprobs) if sampling.logprobs else None
            )
            await asyncio.sleep(0)  # others have their turn

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        found = self._counts(prefix.ids)
        return tuple(math.log(found[label] / found.total()) if found[label] else -math.inf for label in labels)

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        raise EngineError(f"an n-gram model has no {what}", endpoint=self.info.model)

    def usage(self, tree: str) -> Usage:
        return Usage(None, self._written[tree], 0, None, None, None)

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        if keys is None:
            del self._written[tree]

    async def aclose(self) -> None:
        pass

    def _counts(self, ids: tuple[int, ...]) -> Counter[int]:
        """What followed the longest ending of these ids that was seen."""
        return next(self._next[end] for at in range(-ORDER, 1) if (end := ids[len(ids) + at :]) in self._next)


def _drawn(found: Counter[int], sampling: Sampling, at: float) -> int:
    """The token at a place in [0, 1) of the distribution at this temperature; the most frequent one at 0."""
    if not sampling.temperature:
        return min(found, key=lambda token: (-found[token], token))
    weights = {token: found[token] ** (1 / sampling.temperature) for token in sorted(found)}
    left = at * sum(weights.values())
    for token, weight in weights.items():
        left -= weight
        if left < 0:
            return token
    return token


def main() -> None:
    asked = problem("test", 3)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(200):
            made = problem("train", index)
            steps = write_solution(made, random.Random(index), CLEAN_RATES).steps
            text = f"Problem: {made.text}\n\nSolution:\n\n" + "\n\n".join(step.text for step in steps)
            (Path(folder) / f"{index}.txt").write_text(text, encoding="utf-8")
        engine = NgramEngine.load(folder)
    with Search(policy=engine, prm="confidence:mean-logprob", method="rebase", width=8) as search:
        result = search.solve(Problem(asked.id, asked.text, asked.answer))
    print(f"{result.answer}, {'right' if result.correct else 'wrong'}: {result.stats.policy_tokens} bytes written")
    print(result.text)


if __name__ == "__main__":
    main()
