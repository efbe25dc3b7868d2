"""The routes, as a FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response

from search.serve.access_log import AccessLog
from search.serve.body import REFUSED, ChatRequest, CompletionRequest
from search.serve.errors import ApiError, from_validation, invalid_input, reply
from search.serve.guard import KEY_COOKIE, SEEN, BodyTooLargeError, Guard, Seen, too_large
from search.serve.home import home
from search.serve.openapi import document, responses
from search.serve.service import Service
from search.serve.stream import BRANCHES_LOST, AnswerStream, answer_whole

_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


def make_app(
    service: Service, keys: Sequence[str] = (), log: AccessLog | None = None, origins: Sequence[str] = ()
) -> FastAPI:
    """The application over a service; its models load at the start and are freed at the end.

    Args:
        service: what answers.
        keys: API keys, any of which opens; none: everything is open.
        log: takes note of every request.
        origins: whose pages a browser lets ask this server, besides its own; "*": any.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.searches.load()
        yield
        await service.stop()
        await service.searches.aclose()
        if log is not None:
            log.close()

    app = FastAPI(title="ets serve", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.add_middleware(
        Guard, keys=tuple(keys), max_body_bytes=service.limits.max_body_bytes, metrics=service.metrics, log=log
    )
    if origins:  # outside the guard: a browser asks beforehand without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After", BRANCHES_LOST],
        )
    _add_errors(app, service)
    _add_openai(app, service)
    _add_operations(app, service)
    _add_live(app, service)
    app.openapi = lambda: document(app, service, bool(keys))  # type: ignore[method-assign]
    return app


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(ApiError)
    async def of_ours(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def of_the_body(request: Request, error: RequestValidationError) -> Response:
        mistakes, refused = error.errors(), REFUSED[request.scope["path"]]
        place = [str(part) for part in mistakes[0]["loc"][1:]]
        name = next((part for part in place if part in refused), "")
        if name and mistakes[0]["type"] != "extra_forbidden":
            param = place[0] if place[0] == name else ".".join(place[: place.index(name) + 1])
            return invalid_input(f"{param}: {refused[name]}; leave it out", param, "unsupported_parameter").response()
        return from_validation(mistakes).response()

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> Response:
        if isinstance(error, BodyTooLargeError):
            return too_large(service.limits.max_body_bytes).response()
        code = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        text = {
            400: "the body is not valid JSON: it is no UTF-8, is nested too deep, or has too long a number",
            404: "there is nothing at this address; clients ask /v1/chat/completions, /v1/completions and /v1/models",
            405: "this address does not take this method",
        }
        message = text.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, code=code, headers=dict(error.headers or {})).response()

    @app.exception_handler(Exception)
    async def of_any_kind(_: Request, error: Exception) -> Response:
        del error  # the server's log has it
        return ApiError(500, "internal error; the server's log says more", kind="server_error").response()


def _add_openai(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", responses=responses("completion"), response_model=None, tags=["openai"])
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Search the problem in the last message."""
        return await answer(body, request)

    @app.post("/v1/completions", responses=responses("text"), response_model=None, tags=["openai"])
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Search what continues a prompt."""
        return await answer(body, request)

    async def answer(body: ChatRequest | CompletionRequest, request: Request) -> Response:
        seen = _seen(request)
        job = seen.job = await service.prepare(body, seen.how, dict(request.headers))
        if job.asked.stream:
            return AnswerStream(service, job)
        return await answer_whole(service, job, request.receive)

    @app.get("/v1/models", responses=responses("models"), response_model=None, tags=["openai"])
    async def models(request: Request) -> Response:
        """The policy models by themselves, and under every search method."""
        service.check_path(_seen(request).how)
        return reply({"object": "list", "data": service.models()})

    @app.get("/v1/models/{name:path}", responses=responses("model"), response_model=None, tags=["openai"])
    async def model(name: str, request: Request) -> Response:
        """One model."""
        service.check_path(_seen(request).how)
        return reply(service.model(name))


def _seen(request: Request) -> Seen:
    seen: Seen = request.scope[SEEN]
    return seen


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/", responses=responses("page"), response_model=None, tags=["operation"])
    async def root(request: Request) -> Response:
        """A page that says what this is, how it is asked, and where to look on."""
        scheme, host = request.scope["scheme"], request.headers.get("host", "HOST")
        return HTMLResponse(home(service, f"{scheme}://{host}"))

    @app.get("/health", responses=responses("health"), response_model=None, tags=["operation"])
    async def health() -> Response:
        """Whether the server takes searches."""
        return reply({"status": "ok", "running": service.gate.running, "waiting": service.gate.waiting})

    @app.get("/metrics", responses=responses("metrics"), response_model=None, tags=["operation"])
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(service.metrics.text(), headers={"Content-Type": _TEXT_FORMAT})


def _add_live(app: FastAPI, service: Service) -> None:
    @app.get("/live", responses=responses("page"), response_model=None, tags=["live"])
    async def live(request: Request) -> Response:
        """A page that shows the searches as they grow."""
        from search.view import page

        answer = HTMLResponse(page(f"Searches of {service.name}", [], live="/live/searches"))
        if key := request.query_params.get("key"):
            # What the page asks for has no key in its address.
            answer.set_cookie(KEY_COOKIE, quote(key), httponly=True, samesite="strict", path="/live")
        return answer

    @app.get("/live/searches", responses=responses("searches"), response_model=None, tags=["live"])
    async def searches() -> Response:
        """The searches that run and the last that ended, newest first."""
        return reply({"problems": [job.summary() for job in service.jobs.list()]})

    @app.get("/live/searches/{search_id}", responses=responses("search"), response_model=None, tags=["live"])
    async def search(search_id: str) -> Response:
        """One search with its tree."""
        job = service.jobs.find(search_id)
        if job is None:
            raise ApiError(404, "there is no search of this id, or it ended long ago", code="not_found")
        seen: dict[str, Any] = job.view()
        return reply(seen)
