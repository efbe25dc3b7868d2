"""What a client is told when something is wrong: OpenAI's shape, whatever went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from search.config import reason
from search.errors import (
    ConfigError,
    ContextOverflowError,
    EngineError,
    PromptTooLongError,
    SearchError,
    SolverError,
)
from search.loop.driver import PRM_CONTEXT_FULL

INVALID, SERVER = "invalid_request_error", "server_error"
CLIENT_GONE = 499
"""The status under which an answer that nobody waits for is counted; it is never sent."""


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        message: what was wrong and what is accepted.
        kind: OpenAI's `type`.
        param: the field of the body that was wrong; None where it is none.
        code: a word that programs can tell apart.
        headers: sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.headers = param, code, dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a body or in a stream."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """As an answer."""
        return reply(self.to_dict(), self.status, self.headers)


def invalid_input(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """The client's input is wrong."""
    return ApiError(422, message, param=param, code=code)


def stopping() -> ApiError:
    """The server is on its way out."""
    return ApiError(503, "the server is shutting down", kind=SERVER, code="shutting_down", headers={"Retry-After": "5"})


def reply(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON, in ASCII: what a client sent may come back in it, and may be no valid Unicode."""
    return Response(dump(content), status, dict(headers or {}), "application/json")


def dump(content: Mapping[str, Any]) -> str:
    """JSON in ASCII."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def from_search(error: BaseException, field: str = "messages") -> ApiError:
    """What a search's own error means to a client whose problem stands in `field`.

    An error of another kind says nothing of itself.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextOverflowError | PromptTooLongError):
        return invalid_input(str(error), field, "context_length_exceeded")
    if isinstance(error, ConfigError | SolverError):  # a solver by name that takes no such program
        return invalid_input(str(error))
    if isinstance(error, EngineError):
        return ApiError(502, f"a model's engine failed: {error}", kind=SERVER, code="engine_error")
    if isinstance(error, SearchError):
        return ApiError(500, str(error), kind=SERVER, code=type(error).__name__)
    return ApiError(500, "internal error; the server's log says more", kind=SERVER, code="internal_error")


def from_failure(reason: str, field: str = "messages") -> ApiError:
    """A search in which nothing finished because something broke; `field` as in `from_search`."""
    if reason == PRM_CONTEXT_FULL:
        return invalid_input(reason, field, "context_length_exceeded")
    return ApiError(502, f"the search failed: {reason}", kind=SERVER, code="search_failed")


def _of_content(place: Sequence[str | int]) -> ApiError:
    """A message's content is of no kind that there is; the body's schema would say so for each kind by itself."""
    param = ".".join(str(part) for part in place[1 : place.index("content") + 1])
    return invalid_input(f'{param}: must be a string, or a list of parts {{"type": "text", "text": ...}}', param)


_SEVERAL = {
    "stop": "a string, or a list of at most four that are not empty",
    "prompt": "a string, or a list of one: a prompt as text, and one at a time",
}
"""What fields of several types may be; as for a message's content, the schema speaks of one type alone."""


def from_validation(errors: Sequence[Any]) -> ApiError:
    """The first thing wrong with a body, in the words of who reads it."""
    first = errors[0]
    if first["loc"][1:2] == ("messages",) and "content" in first["loc"]:
        return _of_content(first["loc"])
    place = [str(part) for part in first["loc"] if part != "body"]
    if place and place[0] in _SEVERAL and first["type"] != "missing":
        return invalid_input(f"{place[0]}: must be {_SEVERAL[place[0]]}", place[0])
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":  # in OpenAI's own words, which clients look for
        return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return invalid_input(f"{param or 'the body'} is missing", param, "missing_parameter")
    if param is None:
        return invalid_input("the body must be a JSON object, sent with Content-Type: application/json")
    return invalid_input(f"{param}: {reason(first)}", param)
