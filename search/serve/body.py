"""The body of a chat completion: OpenAI's fields, each honoured, ignored on purpose, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from search.config import METHOD_OPTIONS
from search.serve.errors import wrong

PER_REQUEST = (
    "method", "width", "frontier", "until", "begin", "confidence", "writer", "router", "pipeline", "speculate", "seed",
    "temperature", "top_p", "max_step_tokens", "min_step_tokens", "thinking", "max_thought_tokens", "max_tokens",
    "max_depth", "max_seconds", "vote", "reduce", "search_reduce", "options", *METHOD_OPTIONS, "prompt",
    "system_prompt", "few_shot", "assistant_prefix", "stop", "final", "chat_options", "grader",
)  # fmt: skip
"""Settings that a request may choose: those that need no other model than the server has."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TextPart(_Strict):
    """A part of a message's content; text is the only kind that can be searched."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of the conversation. The last one is the user's, and is the problem; earlier ones are not read."""

    model_config = ConfigDict(frozen=True, strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None


class StreamOptions(_Strict):
    """How a stream is to be."""

    include_usage: bool | None = Field(None, description="whether a last chunk carries the usage")
    include_obfuscation: bool | None = Field(None, description="ignored")


class TextFormat(_Strict):
    """The only format there is."""

    type: Literal["text"]


def whole(value: Any) -> Any:
    """A whole number that came as 4.0 as an integer, which it is in JSON; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(whole)]
Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(whole)]
NoCount = Annotated[int, Field(ge=0, le=0), BeforeValidator(whole)]
Zero = Annotated[float, Field(ge=0, le=0)]
NoItems = Annotated[list[Any], Field(max_length=0)]
NoKeys = Annotated[dict[str, Any], Field(max_length=0)]


class ChatRequest(_Strict):
    """What `POST /v1/chat/completions` takes. Fields that are refused accept only what changes nothing."""

    model: str = Field(description="the served name, or NAME@METHOD, NAME@METHOD-WIDTH, NAME@WIDTH")
    messages: Annotated[list[Message], Field(min_length=1, description="the last one, the user's, is the problem")]
    search: dict[str, Any] | None = Field(None, description="settings of the search")
    n: Count | None = Field(None, description="the best n distinct trajectories; at most width")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="of the search's steps")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="of the search's steps")
    max_tokens: Count | None = Field(None, description="tokens of one trajectory")
    max_completion_tokens: Count | None = Field(None, description="as max_tokens")
    seed: Seed | None = Field(
        None, description="the same seed gives the same search; without one it is drawn, and is in the answer"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    user: str | None = Field(None, description="ignored")
    safety_identifier: str | None = Field(None, description="ignored")
    prompt_cache_key: str | None = Field(None, description="ignored")
    metadata: dict[str, Any] | None = Field(None, description="ignored")
    service_tier: str | None = Field(None, description="ignored")
    store: bool | None = Field(None, description="ignored")
    parallel_tool_calls: bool | None = Field(None, description="ignored")

    stop: Literal[""] | NoItems | None = Field(None, description="refused: the search ends its steps itself")
    logprobs: Literal[False] | None = Field(None, description="refused: a search has rewards instead")
    top_logprobs: NoCount | None = Field(None, description="refused: a search has rewards instead")
    presence_penalty: Zero | None = Field(None, description="refused: no engine here has it")
    frequency_penalty: Zero | None = Field(None, description="refused: no engine here has it")
    logit_bias: NoKeys | None = Field(None, description="refused: no engine here has it")
    tools: NoItems | None = Field(None, description="refused: a search calls no tools")
    tool_choice: Literal["none", "auto"] | None = Field(None, description="refused: a search calls no tools")
    response_format: TextFormat | None = Field(None, description="refused: solutions are text")
    modalities: list[Literal["text"]] | None = Field(None, description="refused: solutions are text")
    extra_body: NoKeys | None = Field(None, description="refused: put its fields beside the others")


REFUSED: Mapping[str, str] = {
    name: str(info.description).partition(": ")[2]
    for name, info in ChatRequest.model_fields.items()
    if str(info.description).startswith("refused")
}
"""Fields that are refused, and why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        problem: the text of the last message.
        changes: settings in place of the server's.
        num_choices: trajectories to return, at most.
        num_ignored: messages that were not read.
        stream: whether the answer is to be streamed.
        include_usage: whether a stream ends with the usage.
    """

    problem: str
    changes: Mapping[str, Any]
    num_choices: int
    num_ignored: int
    stream: bool
    include_usage: bool


def read_body(body: ChatRequest, named: Mapping[str, Any]) -> Asked:
    """What a body asks for.

    Args:
        body: as it came.
        named: settings that the model's name stands for.

    Raises:
        ApiError: 422; the last message is no user's text, or a setting is unknown, or said twice and differently.
    """
    last = body.messages[-1]
    if last.role != "user":
        raise wrong(f"the last message must be the user's, it is the problem; here it is the {last.role}'s", "messages")
    content = last.content
    text = content if isinstance(content, str) else "".join(part.text for part in content or ())
    if not text.strip():
        raise wrong("the last message is empty; it must hold the problem", "messages")
    changes = {name: whole(value) for name, value in (body.search or {}).items()}
    for name in changes:
        if name not in PER_REQUEST:
            accepted = ", ".join(sorted(PER_REQUEST))
            raise wrong(f"search.{name}: unknown; accepted: {accepted}", f"search.{name}", "unknown_parameter")
    for name, value in named.items():
        _put(changes, name, value, "model")
    for field, name in (
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("seed", "seed"),
        ("max_tokens", "max_tokens"),
        ("max_completion_tokens", "max_tokens"),
    ):
        _put(changes, name, getattr(body, field), field)
    options = body.stream_options
    if options is not None and not body.stream:
        raise wrong("stream_options: only where stream is true", "stream_options")
    return Asked(
        problem=text,
        changes=changes,
        num_choices=body.n or 1,
        num_ignored=len(body.messages) - 1,
        stream=bool(body.stream),
        include_usage=bool(options and options.include_usage),
    )


def _put(changes: dict[str, Any], name: str, value: Any, said_by: str) -> None:
    if value is None:
        return
    if changes.setdefault(name, value) != value:
        raise wrong(
            f"{name} is said twice: {changes[name]!r}, and {value!r} by {said_by}; leave one of them out", said_by
        )
