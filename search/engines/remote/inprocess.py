"""`sglang.Engine` in this process as a server like any other; needs the extra `[sglang]`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from search.engines.remote.model import PROBE_TEXT
from search.errors import ConfigError, ContextOverflowError, EngineError
from search.support.background import BackgroundLoop
from search.support.extras import install

T = TypeVar("T")


class InProcessServer:
    """One `sglang.Engine`. It knows one event loop alone, so it has one on a thread of its own."""

    def __init__(self, engine: Any, name: str, loop: BackgroundLoop) -> None:
        """Serve a started engine; see `start`."""
        self._engine, self._name, self._loop = engine, name, loop

    def __str__(self) -> str:
        return f"sglang.Engine({self._name})"

    @classmethod
    def start(cls, model: str, **server_args: Any) -> InProcessServer:
        """Start an engine's processes and wait until they serve.

        Raises:
            ConfigError: SGLang is not installed, or does not take the model.
        """
        try:
            import sglang
        except ImportError as error:
            raise ConfigError(
                f"engine sglang: SGLang is not installed here ({error}); {install('sglang')}, "
                "or name a server: sglang:http://HOST:PORT"
            ) from None
        arguments = {"model_path": model, "log_level": "error", **server_args}
        try:
            # On the caller's thread: it installs handlers of signals, which only the main thread may.
            engine = sglang.Engine(**arguments)
        except Exception as error:  # whatever SGLang, its processes or a driver raise
            raise ConfigError(f"engine sglang: SGLang does not start: {type(error).__name__}: {error}") from error
        return cls(engine, model, BackgroundLoop())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop, from ordinary code."""
        return self._loop.wait(work)

    def stop(self) -> None:
        """End the engine's processes."""
        self._loop.stop()
        self._engine.shutdown()

    async def stream(self, body: Mapping[str, Any], key: str) -> AsyncGenerator[dict[str, Any], None]:
        """Objects as they come; closing the generator aborts what still runs."""
        del key
        events: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(event: dict[str, Any] | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop that asked is gone
                loop.call_soon_threadsafe(events.put_nowait, event)

        running = self._loop.submit(self._pump(body, put))
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            running.cancel()

    async def _pump(self, body: Mapping[str, Any], put: Any) -> None:
        """On the engine's loop: pass on what it yields, and abort by name what is not waited for any more."""
        open_requests: dict[int, str] = {}
        try:
            stream = await self._engine.async_generate(**body, stream=True)
            async for event in stream:
                meta = event["meta_info"]
                index = event.get("index", 0)
                open_requests[index] = meta["id"]
                if meta["finish_reason"] is not None:
                    open_requests.pop(index)
                put(event)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            put(self._failure(error))
        else:
            put(None)
        finally:
            for request in open_requests.values():
                self._engine.tokenizer_manager.abort_request(rid=request)

    async def generate(self, body: Mapping[str, Any], key: str) -> Any:
        """The whole answer."""
        del key
        return await self._on_its_loop(self._engine.async_generate(**body))

    async def encode(self, body: Mapping[str, Any], key: str) -> Any:
        """Outputs of a reward model."""
        del key
        from sglang.srt.managers.io_struct import EmbeddingReqInput

        async def ask() -> Any:
            request = EmbeddingReqInput(**body)
            return await anext(self._engine.tokenizer_manager.generate_request(request, None))

        return await self._on_its_loop(ask())

    async def abort(self, request: str) -> None:
        """Stop one request."""

        async def stop() -> None:
            self._engine.tokenizer_manager.abort_request(rid=request)

        await self._on_its_loop(stop())

    async def server_info(self) -> dict[str, Any]:
        """Settings and capacity."""

        async def ask() -> dict[str, Any]:
            manager = self._engine.tokenizer_manager
            states = await manager.get_internal_state()
            from sglang.version import __version__

            arguments = manager.server_args.resolved_dict()
            return {**arguments, **_capacity(self._engine), "internal_states": states, "version": __version__}

        return await self._on_its_loop(ask())

    async def model_info(self) -> dict[str, Any]:
        """What it serves."""
        config = self._engine.tokenizer_manager.model_config.hf_config
        served: dict[str, Any] = dict(self._engine.get_model_info())
        return {"model_type": config.model_type, "architectures": config.architectures, **served}

    async def probe_ids(self) -> tuple[int, ...] | None:
        """What its own tokenizer makes of `PROBE_TEXT`."""
        tokenizer = self._engine.tokenizer_manager.tokenizer
        return tuple(tokenizer.encode(PROBE_TEXT, add_special_tokens=False))

    async def used_tokens(self) -> int | None:
        """KV slots of running requests."""

        async def ask() -> int | None:
            loads = await self._engine.tokenizer_manager.get_loads(include=["core"])
            return sum(int(load.num_used_tokens) for load in loads)

        return await self._on_its_loop(ask())

    async def flush_cache(self) -> None:
        """Empty its cache of prefixes."""
        await self._on_its_loop(self._engine.tokenizer_manager.flush_cache())

    async def aclose(self) -> None:
        """End its processes."""
        await asyncio.to_thread(self.stop)

    async def _on_its_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait, from any loop, for a coroutine on the engine's; cancelling the one cancels the other."""
        try:
            return await asyncio.wrap_future(self._loop.submit(work))
        except (EngineError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> EngineError:
        """What SGLang raises, as an error of ours; it says ValueError of requests that it refuses."""
        text = str(error)
        if "longer than the model's context" in text or "maximum allowed length" in text:
            return ContextOverflowError(text, endpoint=str(self))
        refused = isinstance(error, ValueError)
        return EngineError(f"{self}: {type(error).__name__}: {text}", endpoint=str(self), retryable=not refused)


def _capacity(engine: Any) -> dict[str, Any]:
    """What its scheduler found room for."""
    found = engine._scheduler_init_result.scheduler_infos[0]
    return {name: found[name] for name in ("max_total_num_tokens", "max_req_input_len") if name in found}
