"""In front of every route: the API key, the size of a body, what a base URL says, and the count of answers."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.serve.errors import CLIENT_GONE, ApiError
from search.serve.metrics import Metrics

if TYPE_CHECKING:
    from search.serve.access_log import AccessLog
    from search.serve.jobs import Job

OPEN = ("/health",)
"""Paths that need no key."""

KEY_COOKIE = "ets_key"
_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/live", "/openapi.json")


SEEN = "ets.seen"
"""Where a request's scope has its `Seen`."""


@dataclass(slots=True)
class Seen:
    """What is known of a request besides what HTTP says.

    Attributes:
        how: the parts of its address before /v1.
        job: its search, once it has one.
    """

    how: tuple[str, ...] = ()
    job: Job | None = None


class BodyTooLargeError(HTTPException):
    """A body is above the limit; raised while it is read."""


class Guard:
    """ASGI middleware; nothing of a body is held here."""

    def __init__(
        self, app: ASGIApp, keys: Sequence[str], max_body_bytes: int, metrics: Metrics, log: AccessLog | None = None
    ) -> None:
        """Guard `app`.

        Args:
            app: what answers.
            keys: any of them opens; none: all is open.
            max_body_bytes: of a request.
            metrics: counts the answers.
            log: takes note of every request.
        """
        self._app, self._metrics, self._log = app, metrics, log
        self._keys = [key.encode("utf-8", "surrogateescape") for key in keys]
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began, asked = CLIENT_GONE, time.perf_counter(), scope["path"]
        seen = Seen()
        before, v1, rest = asked.partition("/v1/")
        if before and v1:
            seen.how = tuple(before.removeprefix("/").split("/"))
            path = f"/v1/{rest}"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        scope[SEEN] = seen

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise BodyTooLargeError(413)
            return message

        try:
            headers = Headers(scope=scope)
            length = headers.get("content-length", "0")
            if self._keys and scope["path"] not in OPEN and not self._opens(scope, headers):
                await _wrong_key(headers).response()(scope, receive, counted)
            elif length.isdecimal() and int(length) > self._max_body_bytes:
                await too_large(self._max_body_bytes).response()(scope, receive, counted)
            else:
                await self._app(scope, limited, counted)
        except Exception:
            status = 500 if status == CLIENT_GONE else status  # what is above answers with it
            raise
        finally:
            self._metrics.answered(_route(scope["path"]), status)
            if self._log is not None:
                client, seconds = (scope.get("client") or ("", 0))[0], time.perf_counter() - began
                self._log.write(
                    client=client, method=scope["method"], path=asked, status=status, seconds=seconds, job=seen.job
                )

    def _opens(self, scope: Scope, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        tried = [given.strip()] if kind.lower() == "bearer" else []
        if scope["path"] in ("/", "/live") or scope["path"].startswith("/live/"):
            tried += parse_qs(scope["query_string"].decode("latin-1")).get("key", [])
            tried += _cookie(headers)
        opens = False
        for text in tried:
            for key in self._keys:  # all of them, so that the time does not say which
                opens |= hmac.compare_digest(text.encode("utf-8", "surrogateescape"), key)
        return opens


def too_large(max_body_bytes: int) -> ApiError:
    """A body is above the limit."""
    return ApiError(413, f"the body is above {max_body_bytes} bytes", code="body_too_large")


def _wrong_key(headers: Headers) -> ApiError:
    given = "authorization" in headers
    message = "the API key is wrong" if given else "an API key is needed: Authorization: Bearer KEY"
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _cookie(headers: Headers) -> list[str]:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return []
    return [unquote(cookies[KEY_COOKIE].value)] if KEY_COOKIE in cookies else []


def _route(path: str) -> str:
    """A path under which answers are counted: one of ours, or "other", so that nobody can make up new ones."""
    if path == "/":
        return path
    return next((route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other")
