"""The bodies of requests: OpenAI's fields, each honoured, ignored on purpose, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from search.plain_text import is_unicode
from search.prompt.conversation import Turn
from search.serve.errors import invalid_input
from search.setting_groups import PromptSettings, SamplingSettings, TreeSettings, VoteSettings

PER_REQUEST = frozenset(
    ("prm", "reduce", "search_reduce", "writer", "router", "pipeline", *TreeSettings.model_fields,
     *SamplingSettings.model_fields, *PromptSettings.model_fields, *VoteSettings.model_fields)
) - {"embedder", "min_confidence", "prompt_template"}  # fmt: skip
"""Settings that a request may choose: none that needs a model or a file but what the server has, or gives steps up."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TextPart(_Strict):
    """A part of a message's content; text is the only kind that can be searched."""

    type: Literal["text"]
    text: str


def whole(value: Any) -> Any:
    """A whole number that came as 4.0 as an integer, which it is in JSON; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(whole)]
Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(whole)]
NoCount = Annotated[int, Field(ge=0, le=0), BeforeValidator(whole)]
Zero = Annotated[float, Field(ge=0, le=0)]
NoItems = Annotated[list[Any], Field(max_length=0)]
NoKeys = Annotated[dict[str, Any], Field(max_length=0)]
Ends = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]


class Message(BaseModel):
    """A turn of the conversation. The last one is the user's, and is the problem."""

    model_config = ConfigDict(frozen=True, strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    tool_calls: NoItems | None = Field(None, description="refused: a search calls no tools")
    function_call: None = Field(None, description="refused: a search calls no tools")


class StreamOptions(_Strict):
    """How a stream is to be."""

    include_usage: bool | None = Field(None, description="whether a last chunk carries the usage")
    include_obfuscation: bool | None = Field(None, description="ignored")


class TextFormat(_Strict):
    """The only format there is."""

    type: Literal["text"]


class _Request(_Strict):
    """What both kinds of requests take. Fields that are refused accept only what changes nothing."""

    model: str = Field(description="the served name, or NAME@METHOD, NAME@METHOD-WIDTH, NAME@WIDTH, NAME@SCORER")
    search: dict[str, Any] | None = Field(None, description="settings of the search")
    n: Count | None = Field(None, description="the best n distinct trajectories; at most width")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="of the search's steps")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="of the search's steps")
    max_tokens: Count | None = Field(None, description="tokens of one trajectory")
    seed: Seed | None = Field(
        None, description="the same seed gives the same search; without one it is drawn, and is in the answer"
    )
    stop: str | Ends | None = Field(None, description="texts before which a solution ends")
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    user: str | None = Field(None, description="ignored")
    presence_penalty: Zero | None = Field(None, description="refused: no engine here has it")
    frequency_penalty: Zero | None = Field(None, description="refused: no engine here has it")
    logit_bias: NoKeys | None = Field(None, description="refused: no engine here has it")
    extra_body: NoKeys | None = Field(None, description="refused: put its fields beside the others")


class ChatRequest(_Request):
    """What `POST /v1/chat/completions` takes."""

    messages: Annotated[list[Message], Field(min_length=1, description="the last one, the user's, is the problem")]
    max_completion_tokens: Count | None = Field(None, description="as max_tokens")
    logprobs: bool | None = Field(None, description="whether the log-probabilities of the tokens come with the answer")
    reasoning_effort: Effort | None = Field(None, description="the search's width, where none is given")

    safety_identifier: str | None = Field(None, description="ignored")
    prompt_cache_key: str | None = Field(None, description="ignored")
    prompt_cache_retention: str | None = Field(None, description="ignored")
    metadata: dict[str, Any] | None = Field(None, description="ignored")
    service_tier: str | None = Field(None, description="ignored")
    store: bool | None = Field(None, description="ignored")
    parallel_tool_calls: bool | None = Field(None, description="ignored")
    verbosity: Literal["low", "medium", "high"] | None = Field(None, description="ignored")

    top_logprobs: NoCount | None = Field(None, description="refused: those of the tokens written are all there are")
    tools: NoItems | None = Field(None, description="refused: a search calls no tools")
    tool_choice: Literal["none", "auto"] | None = Field(None, description="refused: a search calls no tools")
    functions: NoItems | None = Field(None, description="refused: a search calls no tools")
    function_call: Literal["none", "auto"] | None = Field(None, description="refused: a search calls no tools")
    response_format: TextFormat | None = Field(None, description="refused: solutions are text")
    modalities: list[Literal["text"]] | None = Field(None, description="refused: solutions are text")
    audio: None = Field(None, description="refused: solutions are text")
    prediction: None = Field(None, description="refused: solutions are searched")
    web_search_options: None = Field(None, description="refused: a search reads nothing but its prompt")


class CompletionRequest(_Request):
    """What `POST /v1/completions` takes."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)] = Field(
        description="what the model continues, as it is, control tokens included"
    )
    logprobs: NoCount | None = Field(None, description="refused: 0 gives those of the tokens written, which are all")
    echo: Literal[False] | None = Field(None, description="refused: the prompt is the client's")
    suffix: Literal[""] | None = Field(None, description="refused: nothing is filled in")
    best_of: Annotated[int, Field(ge=1, le=1)] | None = Field(None, description="refused: the width says that")


REFUSED: Mapping[str, Mapping[str, str]] = {
    path: {
        name: str(info.description).partition(": ")[2]
        for kind in kinds
        for name, info in kind.model_fields.items()
        if str(info.description).startswith("refused")
    }
    for path, kinds in (("/v1/chat/completions", (ChatRequest, Message)), ("/v1/completions", (CompletionRequest,)))
}
"""Fields that are refused at an address, and why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        problem: the text of the last message, or the prompt.
        changes: settings in place of the server's.
        num_choices: trajectories to return, at most.
        stream: whether the answer is to be streamed.
        include_usage: whether a stream ends with the usage.
        earlier: the messages before the last one.
        raw: whether the problem is the very prompt.
        ends: texts before which a solution ends.
        logprobs: whether the tokens' log-probabilities are wanted.
        effort: how wide the search is to be, in a word.
    """

    problem: str
    changes: Mapping[str, Any]
    num_choices: int
    stream: bool
    include_usage: bool
    earlier: tuple[Turn, ...] = ()
    raw: bool = False
    ends: tuple[str, ...] = ()
    logprobs: bool = False
    effort: Effort | None = None

    @property
    def field(self) -> str:
        """Where in its body the problem stands."""
        return "prompt" if self.raw else "messages"


def read_body(body: ChatRequest | CompletionRequest, *named: tuple[str, Mapping[str, Any]]) -> Asked:
    """What a body asks for.

    Args:
        body: as it came.
        named: settings that are said elsewhere, e.g. in the model's name, each set with where that is.

    Raises:
        ApiError: 422; the last message is no user's text, or a setting is unknown, or said twice and differently.
    """
    changes = {name: whole(value) for name, value in (body.search or {}).items()}
    for name in changes:
        if name not in PER_REQUEST:
            accepted = ", ".join(sorted(PER_REQUEST))
            raise invalid_input(f"search.{name}: unknown; accepted: {accepted}", f"search.{name}", "unknown_parameter")
    for said_by, values in named:
        for name, value in values.items():
            _put(changes, name, value, said_by)
    for name in ("temperature", "top_p", "seed", "max_tokens"):
        _put(changes, name, getattr(body, name), name)
    ends = ((body.stop,) if body.stop else ()) if isinstance(body.stop, str) else tuple(body.stop or ())
    if not all(map(is_unicode, ends)):
        raise invalid_input("stop: is not valid Unicode text", "stop")
    options = body.stream_options
    if options is not None and not body.stream:
        raise invalid_input("stream_options: only where stream is true", "stream_options")
    if isinstance(body, ChatRequest):
        _put(changes, "max_tokens", body.max_completion_tokens, "max_completion_tokens")
        problem, earlier = _conversation(body.messages)
        logprobs, effort = bool(body.logprobs), body.reasoning_effort
    else:
        problem, earlier = body.prompt if isinstance(body.prompt, str) else body.prompt[0], ()
        logprobs, effort = body.logprobs is not None, None
        if not problem.strip():
            raise invalid_input("the prompt is empty", "prompt")
    return Asked(
        problem=problem,
        changes=changes,
        num_choices=body.n or 1,
        stream=bool(body.stream),
        include_usage=bool(options and options.include_usage),
        earlier=earlier,
        raw=isinstance(body, CompletionRequest),
        ends=ends,
        logprobs=logprobs,
        effort=effort,
    )


def _conversation(messages: Sequence[Message]) -> tuple[str, tuple[Turn, ...]]:
    """The problem, and what was said before it."""
    last = messages[-1]
    if last.role != "user":
        raise invalid_input(
            f"the last message must be the user's, it is the problem; here it is the {last.role}'s", "messages"
        )
    text = _text(last)
    if not text.strip():
        raise invalid_input("the last message is empty; it must hold the problem", "messages")
    earlier = (
        Turn("system" if message.role == "developer" else message.role, _text(message)) for message in messages[:-1]
    )
    return text, tuple(earlier)


def _text(message: Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def _put(changes: dict[str, Any], name: str, value: Any, said_by: str) -> None:
    if value is None:
        return
    if changes.setdefault(name, value) != value:
        raise invalid_input(
            f"{name} is said twice: {changes[name]!r}, and {value!r} by {said_by}; leave one of them out", said_by
        )
