"""The answers' shapes, for the OpenAPI document; what is sent is made in `search.serve.answer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every answer that is an error."""

    error: ErrorDetail


class AssistantMessage(BaseModel):
    """A trajectory's text."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning_content: str = Field(default="", description="its thoughts; left out where there are none")


class ChoiceSearch(BaseModel):
    """What the search makes of a trajectory: `rewards` has one for each step."""

    answer: str | None
    reward: float | None
    rewards: list[float | None]


class TokenLogprob(BaseModel):
    """A token of the answer, or a whole step where its writer has other tokens."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Any]


class ChatLogprobs(BaseModel):
    """The natural-log probabilities of a trajectory's tokens."""

    content: list[TokenLogprob]
    refusal: None


class TextLogprobs(BaseModel):
    """The same of a completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None
    text_offset: list[int]


class _Choice(BaseModel):
    index: int
    finish_reason: Literal["stop", "length"]
    search: ChoiceSearch


class Choice(_Choice):
    """One trajectory."""

    message: AssistantMessage
    logprobs: ChatLogprobs | None


class TextChoice(_Choice):
    """One trajectory of a completion."""

    text: str
    logprobs: TextLogprobs | None


class ModelUsage(BaseModel):
    """What one model did; null: its engine cannot tell."""

    num_calls: int
    sampled_tokens: int | None
    dropped_tokens: int
    computed_tokens: int | None


class SearchUsage(BaseModel):
    """What the whole search took, by the models' roles."""

    models: dict[str, ModelUsage]
    sampled_tokens: int | None
    dropped_tokens: int
    tokens_thrown: int
    unique_tokens: int | None
    kv_tokens_mean: float | None
    kv_tokens_peak: int | None


class UsageBody(BaseModel):
    """Tokens of what was returned, and under `search` of all that was done."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    search: SearchUsage


class SearchBody(BaseModel):
    """The search itself."""

    problem: str
    answer: str | None
    tally: dict[str, float]
    method: str
    width: int
    writer: str
    router: str | None
    prm: str
    seed: int
    num_trajectories: int
    num_ignored_messages: int
    deadline: float | None
    deadline_reached: bool
    branches_lost: int
    seconds_queued: float
    notes: list[str]
    stats: dict[str, float | int | None]


class _Answer(BaseModel):
    id: str
    created: int
    model: str
    usage: UsageBody
    search: SearchBody


class Completion(_Answer):
    """An answer."""

    object: Literal["chat.completion"]
    choices: list[Choice]


class TextCompletion(_Answer):
    """An answer that continues a prompt."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class ModelCard(BaseModel):
    """A model, and the settings that its name stands for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    search: dict[str, str | int]


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    """Searches that run, and that wait."""

    status: Literal["ok"]
    running: int
    waiting: int


class SearchSummary(BaseModel):
    """A line of the list of live searches."""

    id: str
    problem: str
    reference: str | None
    answer: str | None
    correct: bool | None
    error: str | None
    running: bool
    method: str
    width: int
    num_nodes: int
    state: Literal["waiting", "running", "finished", "failed", "cancelled"]
    arrived: float


class SearchList(BaseModel):
    """Searches that run, and the last that ended."""

    problems: list[SearchSummary]


class SearchView(BaseModel):
    """One search with its tree, as the page reads it."""

    version: int
    id: str
    problem: str
    running: bool
    num_nodes: int
    nodes: dict[str, list[Any] | None]
    strings: list[str]
