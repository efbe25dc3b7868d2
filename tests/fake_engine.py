"""The fake engine: a real engine over a model with known logits, so that what it does can be asserted."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from fake_cache import TreeCache
from markov import FakeModel, FakeTokenizer, draw, hashed_hidden, next_probabilities, story_model

from search.engines.counter import uniform
from search.engines.stops import StopRule, StopRules, Writing
from search.errors import ContextOverflowError, EngineError
from search.types import Child, EngineInfo, FinishReason, Generation, Prefix, Sampling, Usage

Method = Literal["generate", "label_logprobs", "read"]

_NUM_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the nth call of a method, counted from 1.

    Attributes:
        method: which method's calls are counted.
        call: which call of it fails.
        kind: "error" raises EngineError; "nan" answers NaN numbers (an error for `generate`);
            "hang" never answers.
        retryable: what the error says of itself.
    """

    method: Method
    call: int
    kind: Literal["error", "nan", "hang"] = "error"
    retryable: bool = False


class Call(NamedTuple):
    """A request as it came in, for tests that count."""

    method: Method
    prefix: Prefix
    keys: tuple[int, ...]


class _Row:
    """A step being written."""

    __slots__ = ("child", "finish", "ids", "logprobs", "node", "writing")

    def __init__(self, child: Child, node: int, writing: Writing) -> None:
        self.child, self.node, self.writing = child, node, writing
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish: FinishReason | None = None


class FakeEngine:
    """An engine over a model with known logits, with the cache accounting, seeds and stops of a real one.

    A step's token `i` is drawn by `counter.uniform(seed, i)` from the inverse cumulative distribution in the
    order of ids. A segment whose last token has been through the model is known to its end: asking again
    computes nothing. Text that follows the stop string inside its last token stays part of the step.
    """

    def __init__(
        self,
        model: FakeModel | None = None,
        *,
        context_tokens: int = 4096,
        seconds_per_call: float = 0.0,
        seconds_per_token: float = 0.0,
        faults: Sequence[Fault] = (),
        name: str = "fake",
        head: Callable[[Sequence[int]], tuple[float, ...]] | None = None,
    ) -> None:
        """Serve `model` (default: `story_model()`), as slow and as faulty as wanted.

        `head` is its reward head: raw outputs after any ids; None for a model without one.
        """
        self.model = story_model() if model is None else model
        self.calls: list[Call] = []
        self._head = head
        self._tokenizer = FakeTokenizer(self.model.vocabulary)
        self._rules = StopRules(self._tokenizer.table, self._tokenizer.eos_ids)
        self._info = EngineInfo(
            name="fake",
            model=name,
            context_tokens=context_tokens,
            vocab_size=len(self.model.vocabulary),
            seeds="exact",
            details={"model": type(self.model).__name__, "layers": str(_NUM_LAYERS)},
        )
        self._seconds_per_call, self._seconds_per_token = seconds_per_call, seconds_per_token
        self._faults = {(fault.method, fault.call): fault for fault in faults}
        self._trees: dict[str, TreeCache] = {}
        self._rows: dict[tuple[str, int], _Row] = {}
        self._closed = asyncio.Event()

    @property
    def info(self) -> EngineInfo:
        """Exact seeds, and the context as configured."""
        return self._info

    @property
    def tokenizer(self) -> FakeTokenizer:
        """The model's own."""
        return self._tokenizer

    def num_calls(self, method: Method) -> int:
        """How many requests of a kind came in so far, faulty ones included."""
        return sum(call.method == method for call in self.calls)

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Write one step for each child, a token each at a time, so the shortest step comes first."""
        start = time.perf_counter()
        fault = self._receive(Call("generate", prefix, tuple(child.key for child in children)))
        self._check_prefix(prefix, self._info.context_tokens - 1)
        self._check_children(prefix, children, sampling)
        await self._answer(prefix.tree, fault)
        cache = self._cache(prefix.tree)
        parent, ids = self._compute(cache, prefix), prefix.ids
        rule = self._rules.rule(sampling.stop)
        writing = rule.begin(prefix)
        rows = [_Row(child, cache.start_row(parent, child.key), writing.copy()) for child in children]
        live = rows
        self._rows.update({(prefix.tree, row.child.key): row for row in rows})
        try:
            while live:
                await self._pause(self._seconds_per_token)
                for row in live:
                    if cache.is_held(row.node):
                        self._advance(cache, row, prefix, ids, sampling, rule)
                    else:
                        row.finish = FinishReason.ABORT
                for row in live:
                    if row.finish is not None:
                        self._rows.pop((prefix.tree, row.child.key), None)
                        cache.finish_row(row.node, tuple(row.ids))
                        seconds = time.perf_counter() - start
                        text = self._tokenizer.table.step_text(prefix, row.ids, row.finish)
                        logprobs = tuple(row.logprobs) if sampling.logprobs else None
                        yield Generation(row.child.key, tuple(row.ids), text, row.finish, seconds, logprobs)
                live = [row for row in live if row.finish is None]
        finally:
            for row in live:
                self._rows.pop((prefix.tree, row.child.key), None)
                cache.drop_unfinished(row.node)

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities of `labels` after `prefix`; -inf for what the model holds impossible."""
        fault = self._receive(Call("label_logprobs", prefix, ()))
        self._check_prefix(prefix, self._info.context_tokens)
        if not labels:
            raise self._error("no labels were asked for")
        self._check_ids(labels)
        await self._answer(prefix.tree, fault)
        self._compute(self._cache(prefix.tree), prefix)
        if fault is not None and fault.kind == "nan":
            return (math.nan,) * len(labels)
        return _logprobs(self.model.logits(prefix.ids), labels)

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """The head's outputs after `prefix`, or four numbers a layer that depend on its ids alone."""
        fault = self._receive(Call("read", prefix, ()))
        self._check_prefix(prefix, self._info.context_tokens)
        wrong = [layer for layer in layers if not 1 <= layer <= _NUM_LAYERS]
        if wrong:
            raise self._error(f"there is no layer {wrong[0]}: this model has {_NUM_LAYERS}")
        function = partial(_states, layers) if what == "hidden" else self._head
        if function is None:
            raise self._error("this model has no reward head")
        await self._answer(prefix.tree, fault)
        self._compute(self._cache(prefix.tree), prefix)
        values = function(prefix.ids)
        return (math.nan,) * len(values) if fault is not None and fault.kind == "nan" else values

    async def longer_than(self, tree: str, key: int, num_tokens: int) -> None:
        """Wait until the step being written under `key` has more than `num_tokens` tokens, if need be for ever."""
        while (row := self._rows.get((tree, key))) is None or len(row.ids) < num_tokens:
            await self._pause(self._seconds_per_token)

    def usage(self, tree: str) -> Usage:
        """What was done for a tree; zeros for an unknown one."""
        cache = self._trees.get(tree)
        return Usage() if cache is None else cache.usage()

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Give back these keys and all below, or the whole tree; steps being written there end as aborted."""
        cache = self._trees.get(tree) if keys is not None else self._trees.pop(tree, None)
        if cache is not None:
            cache.release(cache.keys if keys is None else keys)

    async def aclose(self) -> None:
        """Stop: calls in flight, and all later ones, end with `EngineError`."""
        self._closed.set()
        self._trees.clear()

    # Writing

    def _advance(
        self,
        cache: TreeCache,
        row: _Row,
        prefix: Prefix,
        prefix_ids: tuple[int, ...],
        sampling: Sampling,
        rule: StopRule,
    ) -> None:
        """Write one more token of a row; the token before it goes through the model first."""
        if row.ids:
            cache.compute_row_token(row.node)
            if prefix.ahead is not None:
                prefix.ahead.computed_tokens += 1
        ids = [*prefix_ids, *row.ids]
        logits = self.model.logits(ids)
        token = draw(next_probabilities(logits, sampling), uniform(row.child.seed, len(row.ids)))
        row.ids.append(token)
        row.logprobs += _logprobs(logits, [token])
        cache.sampled_tokens += 1
        if prefix.ahead is not None:
            prefix.ahead.sampled_tokens += 1
        row.finish = rule.finish(row.writing, row.ids, sampling)
        if row.finish is not None:
            return
        if len(row.ids) >= sampling.max_new_tokens:
            row.finish = FinishReason.LENGTH
        elif len(ids) + 1 >= self._info.context_tokens:
            row.finish = FinishReason.CONTEXT

    # Refusing and failing

    def _receive(self, call: Call) -> Fault | None:
        if self._closed.is_set():
            raise self._error("the engine is closed")
        self.calls.append(call)
        return self._faults.get((call.method, self.num_calls(call.method)))

    def _cache(self, tree: str) -> TreeCache:
        return self._trees.setdefault(tree, TreeCache())

    @staticmethod
    def _compute(cache: TreeCache, prefix: Prefix) -> int:
        """Compute what is not held of `prefix`; returns the handle of its last segment."""
        before = cache.num_computed
        handle = cache.compute(prefix)
        if prefix.ahead is not None:
            prefix.ahead.prefix_tokens += cache.num_computed - before
        return handle

    async def _answer(self, tree: str, fault: Fault | None) -> None:
        """Count the call, wait as long as configured, then fail if that is scripted."""
        self._cache(tree).num_calls += 1
        await self._pause(self._seconds_per_call)
        if fault is None:
            return
        if fault.kind == "hang":
            await self._closed.wait()
            raise self._error("the engine was closed")
        if fault.kind == "error" or fault.method == "generate":
            raise self._error(f"scripted {fault.kind} at call {fault.call} of {fault.method}", fault.retryable)

    async def _pause(self, seconds: float) -> None:
        """Let others run for at least `seconds`; ends at once when the engine is closed."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._closed.wait()
            except TimeoutError:
                return
        else:
            await asyncio.sleep(0)
        if self._closed.is_set():
            raise self._error("the engine was closed")

    def _check_prefix(self, prefix: Prefix, most_tokens: int) -> None:
        keys = [segment.key for segment in prefix.segments]
        if len(set(keys)) != len(keys):
            raise self._error(f"the prefix repeats a key: {keys}")
        ids = prefix.ids
        if not ids:
            raise self._error("the prefix is empty")
        self._check_ids(ids)
        if len(ids) > most_tokens:
            raise ContextOverflowError(
                f"the prefix has {len(ids)} tokens, the context holds {self._info.context_tokens}",
                endpoint=self._info.model,
            )

    def _check_ids(self, ids: Sequence[int]) -> None:
        for token in ids:
            if not 0 <= token < self._info.vocab_size:
                raise self._error(f"unknown token id {token}; the vocabulary has {self._info.vocab_size}")

    def _check_children(self, prefix: Prefix, children: Sequence[Child], sampling: Sampling) -> None:
        keys = [child.key for child in children]
        above = {segment.key for segment in prefix.segments}
        if not keys or len(set(keys)) != len(keys) or above & set(keys):
            raise self._error(f"children need distinct keys that are not in their prefix: {keys}")
        for child in children:
            if not 0 <= child.seed < 1 << 64:
                raise self._error(f"seed {child.seed} of child {child.key} is not a 64-bit number")
        if (
            not 0 <= sampling.temperature < math.inf
            or not 0 < sampling.top_p <= 1
            or sampling.max_new_tokens < 1
            or "" in sampling.stop
        ):
            raise self._error(f"unknown way of sampling: {sampling}")

    def _error(self, message: str, retryable: bool = False) -> EngineError:
        return EngineError(message, endpoint=self._info.model, retryable=retryable)


def _logprobs(logits: Sequence[float], ids: Sequence[int]) -> tuple[float, ...]:
    best = max(logits)
    total = best + math.log(math.fsum(math.exp(logit - best) for logit in logits))
    return tuple(min(0.0, logits[token] - total) for token in ids)


def _states(layers: Sequence[int], ids: Sequence[int]) -> tuple[float, ...]:
    """Hidden states of these layers, one after the other; none asks for the last."""
    wanted = layers or (_NUM_LAYERS,)
    return tuple(
        value for layer in wanted for value in hashed_hidden(ids if layer == _NUM_LAYERS else (*ids, -100 - layer))
    )
