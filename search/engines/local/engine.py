"""The engine as the rest of the project sees it: async calls in front, one worker thread behind.

This file imports neither torch nor transformers, so that importing it is cheap; loading a model does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from search.engines.checks import check_children, check_ids, check_prefix
from search.engines.huggingface.tokenizer import HFTokenizer
from search.engines.local.turns import Turns
from search.errors import ConfigError, EngineError
from search.types import Child, EngineInfo, Generation, Prefix, Sampling, Usage

if TYPE_CHECKING:
    from search.engines.local.loading import LoadedModel
    from search.engines.local.rows import Reads, Request, Result
    from search.engines.local.scheduler import Scheduler
    from search.engines.local.selfcheck import Attention

DEFAULT_MAX_ROWS = 256
DEFAULT_BATCH_TOKENS = 1024
_SEED_MASK = 2**64 - 1


class PoolUse(NamedTuple):
    """KV slots of a whole engine.

    Attributes:
        held: slots that hold a token now.
        peak: the most held at once.
        capacity: most that may be held; None without a limit.
    """

    held: int
    peak: int
    capacity: int | None


class LocalEngine:
    """A Hugging Face decoder in this process; implements `search.protocols.Engine`.

    All calls of all trees advance in one batch. A step depends on its prefix, its seed and its sampling alone.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_kv_tokens: int | None = None,
        max_rows: int = DEFAULT_MAX_ROWS,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        """Serve a loaded model; see `load`."""
        for name, value in (("max_kv_tokens", max_kv_tokens), ("max_rows", max_rows)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        self._model = loaded
        self._capacity = max_kv_tokens
        self._scheduler: Scheduler = loaded.scheduler(max_kv_tokens, max_rows, max_batch_tokens)
        self._turns = Turns(self._scheduler, loaded)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        max_kv_tokens: int | None = None,
        max_rows: int = DEFAULT_MAX_ROWS,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        trust_remote_code: bool = False,
        attention: Attention = "auto",
        gguf_weights: str = "dequantized",
        graphs: bool = True,
    ) -> LocalEngine:
        """Load a decoder.

        Args:
            model: a folder in the Hugging Face layout, or a hub id (from the cache where it is there).
            device: "cpu", "cuda" or "cuda:N".
            dtype: "float32", or "bfloat16": faster, but a step may then depend on what else is in its batch. None:
                float32, and where the model is large a line says what bfloat16 would save.
            max_kv_tokens: most KV slots held at once over all trees; None: no limit.
            max_rows: most steps written at once.
            max_batch_tokens: most prefix tokens computed in one forward.
            trust_remote_code: run code that comes with the model.
            attention: "paged" keeps the KV of all trees in one pool, "cascade" an arena a tree; "auto": paged on a GPU,
                cascade on a CPU, where each is the faster one.
            gguf_weights: "dequantized", or "packed": 4-bit weights of a .gguf file stay so; on the CPU in bfloat16.
            graphs: on a GPU with paged attention: launch a turn as a whole, by CUDA graphs.

        Raises:
            ConfigError: no such model, not a complete safetensors checkpoint of a causal decoder, or an
                architecture whose attention this engine cannot reproduce.
        """
        from search.engines.local.loading import load_model

        loaded = load_model(
            model,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            attention=attention,
            gguf_weights=gguf_weights,
            graphs=graphs,
        )
        return cls(loaded, max_kv_tokens=max_kv_tokens, max_rows=max_rows, max_batch_tokens=max_batch_tokens)

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        return self._model.info

    @property
    def tokenizer(self) -> HFTokenizer:
        """The model's tokenizer."""
        return self._model.tokenizer

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncIterator[Generation]:
        """Write one step for each child after `prefix`; steps come in the order in which they end.

        Raises:
            ContextOverflowError: `prefix` leaves no room in the context.
            EngineError: a child's key is another child's or stands in `prefix`, the request can never fit in
                `max_kv_tokens`, or the engine is closed or failed.
        """
        check_prefix(self.info, prefix, room=1)
        self._check_language_model()
        if not children:
            return
        check_children(self.info, prefix, children)
        queue: asyncio.Queue[Result] = asyncio.Queue()
        seeded = tuple((child.key, child.seed & _SEED_MASK) for child in children)
        request = self._submit(
            queue.put_nowait, partial(self._scheduler.submit, prefix, children=seeded, sampling=sampling)
        )
        left = len(children)
        try:
            while left:
                result = await queue.get()
                if isinstance(result, Exception):
                    left = 0
                    raise result
                assert isinstance(result, Generation)
                left -= 1
                yield result
        finally:
            if left:
                self._cancel(request)

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """Natural-log probabilities of each id in `labels` as the token after `prefix`.

        Raises:
            ContextOverflowError: `prefix` is longer than the context.
            EngineError: as for `generate`.
        """
        check_prefix(self.info, prefix, room=0)
        self._check_language_model()
        check_ids(self.info, labels, "label")
        return await self._ask(prefix, tuple(labels), "labels")

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """The raw outputs of the checkpoint's reward head, or hidden states, at the last token of `prefix`.

        Raises:
            ContextOverflowError: `prefix` is longer than the context.
            EngineError: the checkpoint has no reward head, or no such layer, or as for `generate`.
        """
        check_prefix(self.info, prefix, room=0)
        for layer in layers:
            if not 1 <= layer <= self._model.num_layers:
                raise self._error(f"there is no layer {layer}: this model has {self._model.num_layers}")
        if what == "head" and self._model.head is None:
            raise self._error("this checkpoint has no reward head: none of its tensors is score.* or v_head.*")
        return await self._ask(prefix, (), what, tuple(layers))

    async def _ask(
        self, prefix: Prefix, labels: tuple[int, ...], reads: Reads, layers: tuple[int, ...] = ()
    ) -> tuple[float, ...]:
        queue: asyncio.Queue[Result] = asyncio.Queue()
        submit = partial(self._scheduler.submit, prefix, labels=labels, reads=reads, layers=layers)
        request = self._submit(queue.put_nowait, submit)
        try:
            result = await queue.get()
        except BaseException:
            self._cancel(request)
            raise
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, tuple)
        return result

    async def longer_than(self, tree: str, key: int, num_tokens: int) -> None:
        """Wait until the step being written under `key` has more than `num_tokens` tokens, if need be for ever."""
        loop = asyncio.get_running_loop()
        is_longer = asyncio.Event()

        def tell() -> None:
            self._turns.reply(loop, is_longer.set)

        self._turns.post(lambda: self._scheduler.watch(tree, key, num_tokens, tell))
        try:
            await is_longer.wait()
        finally:
            if not is_longer.is_set() and not self._turns.closed:
                self._turns.post(lambda: self._scheduler.unwatch(tell))

    def usage(self, tree: str) -> Usage:
        """What was done for a tree since it was first seen or last closed; zeros for an unknown tree."""
        found = self._scheduler.trees.get(tree)
        return found.usage() if found is not None else Usage()

    def pool(self) -> PoolUse:
        """KV slots of the whole engine now."""
        pool = self._scheduler.pool
        return PoolUse(pool.num_held, pool.peak, self._capacity)

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Give back the cache of these keys and all below them, or close the whole tree (None).

        Steps still being written below end with `FinishReason.ABORT`.
        """
        if self._turns.closed:
            return
        chosen = None if keys is None else tuple(keys)
        await self._turns.call(lambda: self._scheduler.release(tree, chosen))

    async def aclose(self) -> None:
        """Stop, and free everything. Calls in flight end with `EngineError`."""
        if self._turns.closed:
            return

        def work() -> None:
            self._scheduler.fail_all(lambda: self._error("the engine was closed"))
            self._scheduler.trees.clear()

        await self._turns.call(work, last=True)

    # Requests

    def _check_language_model(self) -> None:
        if not self._model.has_language_model:
            raise self._error("this checkpoint has a reward head and no language-model head: it writes no text")

    def _error(self, message: str) -> EngineError:
        return EngineError(message, endpoint=self.info.model)

    def _submit(self, put: Callable[[Result], None], submit: Callable[..., Request]) -> list[Request]:
        """Hand a request to the worker; the list gets it once the worker has it.

        Args:
            put: takes its results.
            submit: the scheduler's, but for who takes the results and when it arrived.
        """
        loop = asyncio.get_running_loop()
        arrived = time.perf_counter()
        box: list[Request] = []

        def deliver(result: Result) -> None:
            self._turns.reply(loop, lambda: put(result), a_step=isinstance(result, Generation))

        self._turns.post(lambda: box.append(submit(deliver=deliver, arrived=arrived)))
        return box

    def _cancel(self, box: list[Request]) -> None:
        # The worker takes messages in order, so by then it has put the request into the box.
        if not self._turns.closed:
            self._turns.post(lambda: self._scheduler.cancel(box[0]))
