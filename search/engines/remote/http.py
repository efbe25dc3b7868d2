"""HTTP to model servers: one connection pool an engine, requests in flight bounded, every failure an `EngineError`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import aiohttp

from search.errors import ConfigError, ContextOverflowError, EngineError

ROUTING_HEADER = "x-smg-routing-key"
"""By this header `sglang-router --policy manual` keeps the requests of one key on one worker; servers ignore it."""

_RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_OVERFLOW_WORDS = ("longer than the model's context", "maximum context length", "maximum allowed length")
_MAX_MESSAGE = 300
_CONNECT_SECONDS, _SHORT_SECONDS, _PERSON_SECONDS = 10.0, 5.0, 30.0
_MOST_WAIT_SECONDS = 120.0
"""The longest that a server is waited for on its word."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How requests are sent.

    Attributes:
        timeout_seconds: the longest silence of a server within one request; then the request has failed.
        attempts: how often a request is sent at most, the first time included.
        max_in_flight: requests of one engine in flight at once, over all its servers; the others wait here.
        api_key: sent as a bearer token; empty for none.
    """

    timeout_seconds: float = 120.0
    attempts: int = 5
    max_in_flight: int = 256
    api_key: str = field(default="", repr=False)


class _Response(NamedTuple):
    """What came back, and how long the server asks to wait before the same is sent again."""

    status: int
    content: bytes
    wait_seconds: float


class _Session:
    """What belongs to one event loop: the pool of connections, and the count of requests in flight."""

    def __init__(self, limits: RequestLimits) -> None:
        # What is in flight is bounded here, by `slots`; cookies no model server wants.
        connector, no_cookies = aiohttp.TCPConnector(limit=0), aiohttp.DummyCookieJar()
        self.http = aiohttp.ClientSession(connector=connector, cookie_jar=no_cookies)
        self.slots = asyncio.Semaphore(limits.max_in_flight)

    async def kept_until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """Suspended for good; `asyncio.run` closes it at its end, and with it the connections."""
        try:
            yield
        finally:
            await self.http.close()


class HttpClient:
    """JSON over HTTP for any number of servers. Usable from any event loop; each has its own connections."""

    def __init__(self, limits: RequestLimits) -> None:
        """Connect to nothing yet."""
        self.limits = limits
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Session, AsyncGenerator[None, None]]]
        self._sessions = WeakKeyDictionary()

    async def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        if (known := self._sessions.get(loop)) is not None:
            return known[0]
        session = _Session(self.limits)
        keeper = session.kept_until_the_loop_ends()
        self._sessions[loop] = (session, keeper)
        await anext(keeper)
        return session

    @asynccontextmanager
    async def _open(
        self, session: _Session, method: str, url: str, content: bytes, key: str, seconds: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request; a response that is left before its end closes its connection."""
        timeout = aiohttp.ClientTimeout(sock_connect=min(_CONNECT_SECONDS, seconds), sock_read=seconds)
        headers = _headers(key, self.limits.api_key)
        with _failures(url):
            async with session.http.request(
                method, url, data=content, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                yield response

    async def _whole(
        self, session: _Session, method: str, url: str, content: bytes, key: str, seconds: float
    ) -> _Response:
        """Send a request and read its whole response."""
        async with self._open(session, method, url, content, key, seconds) as response:
            return await _read(response)

    async def post(self, url: str, body: Mapping[str, Any], key: str = "") -> Any:
        """Send a request and read its whole answer.

        Args:
            url: of the endpoint.
            body: sent as JSON.
            key: requests of equal keys belong together; a router in front keeps them on one worker.

        Raises:
            EngineError: no answer, an answer that is no JSON, or a status other than 200.
        """
        session = await self._session()
        async with session.slots:
            found = await self._whole(session, "POST", url, _encode(body), key, self.limits.timeout_seconds)
        return _answer(url, *found)

    async def stream(self, url: str, body: Mapping[str, Any], key: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """Send a request and yield the objects of its event stream. Closing the generator closes the connection.

        Raises:
            EngineError: as for `post`; also where the stream ends before its end was announced.
        """
        session, seconds = await self._session(), self.limits.timeout_seconds
        async with session.slots, self._open(session, "POST", url, _encode(body), key, seconds) as response:
            if response.status != HTTPStatus.OK:
                _answer(url, *await _read(response))
            pending, done = b"", False
            async for piece in response.content.iter_any():
                *whole, pending = (pending + piece).replace(b"\r\n", b"\n").split(b"\n\n")
                for event in whole:
                    data = event.strip().removeprefix(b"data:").strip()
                    # What comes after the end is read all the same, so that the connection can be used again.
                    done = done or data == b"[DONE]"
                    if data and not done and not data.startswith(b":"):
                        yield _event(url, data)
            if not done:
                raise EngineError(f"{url} broke its answer off", endpoint=url, retryable=True)

    async def get(self, url: str) -> Any:
        """Ask for a server's own state; outside the limit on requests, as it computes nothing.

        Raises:
            EngineError: as for `post`.
        """
        return _answer(url, *await self._whole(await self._session(), "GET", url, b"", "", _SHORT_SECONDS))

    async def notify(self, url: str, body: Mapping[str, Any]) -> None:
        """Send a short message, e.g. to abort a request, outside the limit on requests.

        Raises:
            EngineError: as for `post`, but status and content of the answer do not matter.
        """
        await self._whole(await self._session(), "POST", url, _encode(body), "", _SHORT_SECONDS)

    async def command(self, url: str) -> None:
        """Have a server do something that is answered by its status alone.

        Raises:
            EngineError: as for `post`, but the answer may be any text.
        """
        found = await self._whole(await self._session(), "POST", url, b"{}", "", self.limits.timeout_seconds)
        if found.status != HTTPStatus.OK:
            _answer(url, *found)

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        known = self._sessions.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[1].aclose()


async def _read(response: aiohttp.ClientResponse) -> _Response:
    return _Response(response.status, await response.read(), _wait_seconds(response))


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _headers(key: str, api_key: str) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if key:
        headers[ROUTING_HEADER] = key.encode("ascii", "backslashreplace").decode()
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return headers


@contextmanager
def _failures(url: str) -> Iterator[None]:
    """Turn what aiohttp raises into an `EngineError` that may be tried again."""
    try:
        yield
    except (aiohttp.InvalidURL, UnicodeError) as error:
        raise EngineError(f"{url} is no URL: {error}", endpoint=url) from error
    except TimeoutError as error:
        raise EngineError(
            f"{url} did not answer in time",
            endpoint=url,
            hint="the server is stuck or overloaded; see --request-timeout",
            retryable=True,
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        number = getattr(error, "errno", None)
        text = os.strerror(number) if number else str(error) or type(error).__name__
        raise EngineError(f"{url} cannot be reached: {text}", endpoint=url, retryable=True) from error


def _wait_seconds(response: aiohttp.ClientResponse) -> float:
    """What a server asks to wait for, in seconds, by its Retry-After; 0 where it names none, or a date."""
    try:
        return min(_MOST_WAIT_SECONDS, max(0.0, float(response.headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


def _answer(url: str, status: int, content: bytes, wait_seconds: float = 0.0) -> Any:
    if status == HTTPStatus.OK:
        try:
            return json.loads(content)
        except ValueError:
            raise bad_answer(url, content[:80].decode("utf-8", "replace")) from None
    message = _message(content)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and any(words in message for words in _OVERFLOW_WORDS):
        raise ContextOverflowError(message, endpoint=url, status=status)
    refused = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    raise EngineError(
        f"{url} answered {status}: {message}",
        endpoint=url,
        status=status,
        hint="give its key as ETS_ENGINE_API_KEY or --engine-api-key" if refused else "",
        retryable=status in _RETRYABLE_STATUS,
        wait_seconds=wait_seconds,
    )


def _message(content: bytes) -> str:
    """What a server's error says, in one line."""
    text = content.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    for key in ("error", "message", "detail"):
        if isinstance(value, dict):
            value = value.get(key, value)
    return " ".join(str(value).split())[:_MAX_MESSAGE] or "no reason given"


@asynccontextmanager
async def asking(kind: str, limits: RequestLimits) -> AsyncGenerator[HttpClient, None]:
    """A client with little patience, to find out what servers are: a person waits for it.

    Raises:
        ConfigError: a server cannot be reached, or did not answer as it should.
    """
    client = HttpClient(replace(limits, timeout_seconds=_PERSON_SECONDS))
    try:
        yield client
    except EngineError as error:
        raise ConfigError(f"engine {kind}: {error}") from error
    finally:
        await client.aclose()


def bad_answer(url: str, what: object) -> EngineError:
    """The error for an answer that cannot be one; a retry may help, as proxies answer in a server's place."""
    return EngineError(f"{url} gave an answer that makes no sense: {str(what)[:80]!r}", endpoint=url, retryable=True)


def _event(url: str, data: bytes) -> dict[str, Any]:
    """The object of one server-sent event; one that tells of an error is raised."""
    value = _answer(url, HTTPStatus.OK, data)
    if not isinstance(value, dict):
        raise bad_answer(url, value)
    if "error" in value:
        error = value["error"]
        status = error.get("code") if isinstance(error, dict) else None
        _answer(url, status if isinstance(status, int) else 500, data)
    return value
