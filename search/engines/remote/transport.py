"""How SGLang is asked: over HTTP, or as `sglang.Engine` in this process. Both take and give the same objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from search.engines.remote.http import HttpClient
from search.engines.remote.inprocess import InProcessServer
from search.engines.remote.model import read_ids
from search.errors import EngineError


class HttpServer:
    """An SGLang server, or an `sglang-router`, over HTTP."""

    def __init__(self, client: HttpClient, url: str) -> None:
        """Ask the server at `url`, e.g. http://127.0.0.1:30000, through a pool shared with other servers."""
        self.url = url
        self._client = client

    def __str__(self) -> str:
        return self.url

    def stream(self, body: Mapping[str, Any], key: str) -> AsyncGenerator[dict[str, Any], None]:
        """`/generate` with `stream`: objects as they come; closing the generator stops the work."""
        return self._client.stream(f"{self.url}/generate", {**body, "stream": True}, key)

    async def generate(self, body: Mapping[str, Any], key: str) -> Any:
        """`/generate`; its whole answer."""
        return await self._client.post(f"{self.url}/generate", body, key)

    async def encode(self, body: Mapping[str, Any], key: str) -> Any:
        """`/encode`: outputs of an embedding or reward model."""
        return await self._client.post(f"{self.url}/encode", body, key)

    async def abort(self, request: str) -> None:
        """`/abort_request`; a router does not pass it on, and the request then runs to its end."""
        await self._client.notify(f"{self.url}/abort_request", {"rid": request})

    async def server_info(self) -> dict[str, Any]:
        """Settings, capacity and version: `/server_info`; routers and older servers know it by its old name."""
        return await self._either("server_info", "get_server_info")

    async def model_info(self) -> dict[str, Any]:
        """What it serves: `/model_info`, or its old name."""
        return await self._either("model_info", "get_model_info")

    async def _either(self, *names: str) -> dict[str, Any]:
        refused: EngineError | None = None
        for name in names:
            try:
                answer = await self._client.get(f"{self.url}/{name}")
            except EngineError as error:
                if error.status is None:
                    raise
                refused = error
                continue
            if isinstance(answer, dict):
                return answer
        raise refused or EngineError(f"{self.url} is no SGLang server", endpoint=self.url)

    async def probe_ids(self) -> tuple[int, ...] | None:
        """As `read_ids`."""
        return await read_ids(self._client, self.url, "default")

    async def used_tokens(self) -> int | None:
        """KV slots that running requests hold now: `/v1/loads`, summed over the ranks of data parallelism, if told."""
        answer = await self._client.get(f"{self.url}/v1/loads")
        loads = answer.get("loads") if isinstance(answer, dict) else None
        used = [load.get("num_used_tokens") for load in loads or () if isinstance(load, dict)]
        known = [one for one in used if isinstance(one, int)]
        return sum(known) if known and len(known) == len(used) else None

    async def flush_cache(self) -> None:
        """`/flush_cache`; it answers in words, and by its status."""
        await self._client.command(f"{self.url}/flush_cache")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


SglangServer = HttpServer | InProcessServer
"""One SGLang server. Bodies and answers are those of its native API; every method raises `EngineError` where it cannot
be reached or refuses."""
