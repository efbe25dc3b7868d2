"""The OpenAPI document: the routes as they are, with this server's models and limits in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from search.catalogue import METHODS
from search.config import METHOD_OPTIONS, SearchSettings
from search.serve import shapes
from search.serve.body import PER_REQUEST
from search.serve.names import listed
from search.setting_types import Example
from search.setup.registry import method_options

if TYPE_CHECKING:
    from search.serve.service import Service

_STREAM = {
    "type": "object",
    "description": "One event: a chat.completion.chunk in JSON, an error, or as the last one `[DONE]`.",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}

_ERRORS: dict[int, str] = {
    400: "the body is not JSON, or has an unknown field",
    401: "the API key is missing or wrong",
    404: "no such model or search",
    405: "the address does not take this method",
    413: "the body is too large",
    422: "something in the body, or in a budget's header, is wrong; `param` says what",
    429: "as many searches run and wait as may, or a deadline came before its turn; Retry-After says when to come back",
    500: "a fault of the server",
    502: "a model's engine failed",
    503: "the server is shutting down",
}

_KINDS: dict[str, tuple[type[BaseModel] | None, str, str, tuple[int, ...]]] = {
    "completion": (shapes.Completion, "the answer", "application/json", (400, 404, 413, 422, 429, 500, 502, 503)),
    "text": (shapes.TextCompletion, "the answer", "application/json", (400, 404, 413, 422, 429, 500, 502, 503)),
    "models": (shapes.ModelList, "the models", "application/json", ()),
    "model": (shapes.ModelCard, "the model", "application/json", (404,)),
    "health": (shapes.Health, "the server is up", "application/json", ()),
    "metrics": (None, "the counters", "text/plain", ()),
    "page": (None, "the page", "text/html", ()),
    "searches": (shapes.SearchList, "the searches", "application/json", ()),
    "search": (shapes.SearchView, "the search", "application/json", (404,)),
}


def responses(kind: str) -> dict[int | str, dict[str, Any]]:
    """What a route answers with."""
    model, description, media, errors = _KINDS[kind]
    good: dict[str, Any] = {"description": description}
    if model is not None:
        good["model"] = model
    else:
        good["content"] = {media: {"schema": {"type": "string"}}}
    if kind in ("completion", "text"):
        good["content"] = {"text/event-stream": {"schema": _STREAM}}
    codes = {401, 405, 413, *errors} if kind != "health" else {405, 413}
    return {
        200: good,
        **{code: {"model": shapes.ErrorBody, "description": _ERRORS[code]} for code in sorted(codes)},
    }


def document(app: FastAPI, service: Service, keyed: bool) -> dict[str, Any]:
    """The document of one server; made once.

    Args:
        app: its routes.
        service: its models and limits.
        keyed: whether it wants an API key.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title="ets serve",
            version="1",
            description="OpenAI-compatible chat completions and completions whose answers are searched.",
            routes=app.routes,
        )
        _describe_request(schema["components"]["schemas"], service)
        for path in schema["paths"].values():
            for operation in path.values():
                if "requestBody" not in operation:
                    operation["responses"].pop("422", None)
        if keyed:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
            schema["paths"]["/health"]["get"]["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_request(schemas: dict[str, Any], service: Service) -> None:
    """Say of the request what this server alone knows: the models, and how wide and long a search may be."""
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    options = _search_options(service)
    schemas.update(options)
    kinds = [{"$ref": f"#/components/schemas/{kind}"} for kind in options]
    for request in ("ChatRequest", "CompletionRequest"):
        fields = schemas[request]["properties"]
        fields["model"]["enum"] = list(listed(service.policies))
        fields["model"]["description"] += "; any width up to the limit will do"
        _bound(fields["n"], service.limits.max_width)
        for tokens in {"max_tokens", "max_completion_tokens"} & fields.keys():
            _bound(fields[tokens], service.limits.max_tokens)
        fields["search"] = {"description": _SEARCH, "anyOf": [*kinds, {"type": "null"}]}
    fields = schemas["ChatRequest"]["properties"]
    fields["messages"] = {
        "description": fields["messages"]["description"],
        "anyOf": [
            {"type": "array", "items": {"$ref": "#/components/schemas/Problem"}, "minItems": 1, "maxItems": 1},
            fields["messages"],
        ],
    }
    schemas["Problem"] = _PROBLEM
    prompt = schemas["CompletionRequest"]["properties"]["prompt"]
    prompt["anyOf"] = [{"type": "string", "minLength": 1, "pattern": r"^[^\s]"}, *prompt["anyOf"][1:]]


_SEARCH = "Settings of the search, as `ets serve --help` explains them; the server's own stand for the rest."
_PROBLEM = {
    "type": "object",
    "description": "The message that is the problem.",
    "properties": {
        "role": {"type": "string", "const": "user"},
        "content": {"type": "string", "minLength": 1, "pattern": r"^[^\s]"},
    },
    "required": ["role", "content"],
}


def _search_options(service: Service) -> dict[str, Any]:
    """A schema for the server's own method, and one for each other, by name."""
    own = service.searches.settings.method
    schemas = {"SearchOptions": _options_of(service, own)}
    for method in METHODS:
        schema = _options_of(service, method)
        schema["properties"]["method"] = {"type": "string", "const": method}
        schema["required"] = ["method"]
        schemas["SearchOptions_" + method.replace("-", "_")] = schema
    return schemas


def _options_of(service: Service, method: str) -> dict[str, Any]:
    """What a request may set of a search by this method."""
    settings, limits = service.searches.settings, service.limits
    schema = SearchSettings.model_json_schema()["properties"]
    fields = {
        name: {key: said for key, said in schema[name].items() if key != "default"} for name in sorted(PER_REQUEST)
    }
    fields["width"]["maximum"] = limits.max_width
    fields["max_tokens"]["maximum"] = limits.max_tokens
    fields["prm"] = {"type": "string", "enum": list(service.scorers), "description": schema["prm"]["description"]}
    if settings.max_seconds is not None:
        _bound(fields["max_seconds"], settings.max_seconds)
    chosen = METHODS[method]
    kinds = {"float": "number", "int": "integer", "bool": "boolean", "str": "string"}
    options = {
        name: {"type": kinds[kind]}
        for name, field in method_options(method).items()
        if (kind := str(field.type).split(" ")[0]) in kinds
    }
    # A request gives the examples themselves: a file's name would be one of the server's.
    fields["few_shot"]["anyOf"] = [{"type": "array", "items": Example.model_json_schema()}, {"type": "null"}]
    fields["options"] |= {"properties": options, "additionalProperties": False}
    left_out = {"method", *chosen.fixed, *(name for name in METHOD_OPTIONS if name not in options)}
    if "prm" in chosen.fixed or service.searches.prm == "none":
        fields["vote"] = {"type": "string", "enum": ["auto", "majority"]}
    if settings.writer == "model":
        fields["writer"] = {"type": "string", "const": "model"}
        left_out |= {"router", "pipeline"}
    properties = {name: field for name, field in fields.items() if name not in left_out}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _bound(field: dict[str, Any], maximum: float) -> None:
    """Put a maximum on an optional number."""
    next(kind for kind in field["anyOf"] if kind.get("type") in ("integer", "number"))["maximum"] = maximum
