"""Settings in groups: every setting of a search, its default and what it accepts, beside those that it goes with."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import (
    Field,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from search.catalogue import METHODS, PRM_FAMILIES, SCORERS, listed, router_names
from search.setting_types import Count, Examples, Group, Scalar, Text, Texts, parse_price


class ModelSettings(Group):
    """The policy model, and how models are held in this process."""

    policy: str = Field(
        default="mini:target", description="policy model: mini:target, mini:draft, a folder, a .gguf file, or a hub id"
    )
    engine: str = Field(
        default="local",
        description="where the policy runs: local (in this process), sglang:http://HOST:PORT (servers or a router, "
        "with commas between them), sglang (SGLang in this process), openai:http://HOST:PORT, or auto (sglang on "
        "a CUDA device where it is installed and no other model needs room there, else local), or chat:https://HOST "
        "(any OpenAI-compatible chat API; policy is then the model's name there)",
    )
    device: str = Field(default="cpu", description="device of local models: cpu, cuda, cuda:N")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="precision of local models; only float32 is reproducible over batches"
    )
    gguf_weights: Literal["dequantized", "packed"] = Field(
        default="dequantized",
        description="weights of .gguf files: dequantized to dtype, or packed: 4-bit ones (Q4_0, Q4_1, Q4_K) stay so, "
        "in a third of the memory; on the CPU, with dtype bfloat16",
    )
    max_kv_tokens: Count | None = Field(default=None, description="KV slots of the policy's engine; default: no limit")
    trust_remote_code: bool = Field(default=False, description="run code that comes with a checkpoint")


class ServerSettings(Group):
    """How requests travel, the servers' state before, and what they cost; they decide no result."""

    request_timeout: float = Field(
        default=120.0, gt=0, description="servers: seconds of silence after which a request has failed"
    )
    request_attempts: Count = Field(default=5, description="servers: times a request is sent, the first included")
    max_requests: Count = Field(default=256, description="servers: requests of one engine in flight at once")
    flush_cache: bool = Field(
        default=False,
        description="SGLang servers: empty their caches at the start, so that no run gets prompts for free that an "
        "earlier one computed; others who use the servers lose theirs too",
    )
    engine_api_key: SecretStr | None = Field(
        default=None,
        description="servers of models: sent as a bearer token to each that is named, and kept in no record; better "
        "in the environment than on a command line, which others may read; but for ets serve, whose clients have keys "
        "of their own, also --api-key and ETS_API_KEY",
    )
    price: str | None = Field(
        default=None,
        description="engine chat: what the policy's server asks for a million tokens of prompts and for a million that "
        "it writes, in any currency: INPUT,OUTPUT; tables then have a cost",
        json_schema_extra={"metavar": "INPUT,OUTPUT"},
    )

    @field_validator("price")
    @classmethod
    def _is_price(cls, value: str | None) -> str | None:
        if value is not None:
            parse_price(value)
        return value

    @field_validator("engine_api_key")
    @classmethod
    def _is_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces")
        return value

    @model_serializer(mode="wrap")
    def _without_secrets(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """JSON is what is kept and printed: it has no key."""
        values: dict[str, Any] = write(self)
        if info.mode == "json":
            values.pop("engine_api_key", None)
        return values


class EngineSettings(ServerSettings, ModelSettings):
    """All that an engine is made from, but for the name of its model."""


class RewardModelSettings(Group):
    """One process reward model: another that takes its place has its own."""

    prm: str = Field(
        default="auto",
        description="process reward model: mini:prm, a folder, a .gguf file, a hub id, none, or "
        f"{'; '.join(kind.written for kind in SCORERS.values())}; auto: mini:prm beside models of the mini family, "
        "none beside any other",
    )
    prm_codec: str = Field(
        default="auto",
        description=f"how the reward model is read: auto (found out from its files), {listed(PRM_FAMILIES)}",
    )
    prm_engine: str = Field(default="local", description="where the reward model runs, as for engine")
    prm_max_kv_tokens: Count | None = Field(
        default=None, description="KV slots of the reward model's engine; default: no limit"
    )
    reduce: Literal["auto", "last", "min", "mean", "prod"] = Field(
        default="auto",
        description="how a trajectory's step rewards become its weight in the vote; auto: as the reward model says",
    )
    search_reduce: Literal["auto", "last", "min", "mean", "prod"] = Field(
        default="auto",
        description="how a path's step rewards become what the method reads; auto: as the reward model says",
    )


class RewardSettings(RewardModelSettings):
    """The reward model, and how steps are put before it."""

    lookahead: int = Field(
        default=0,
        ge=0,
        description="greedy steps that the policy writes on from a step before the reward model reads it: the reward "
        "at their end stands for the step's, and their tokens count",
    )
    critic_prompt: Text | None = Field(
        default=None,
        description="critic, critic-cot: how the critic is asked, in place of its kind's own words: FILE.yaml",
        json_schema_extra={"metavar": "FILE.yaml"},
    )
    critic_samples: Count = Field(
        default=4, description="critic-cot: critiques of each step, whose verdicts are averaged"
    )


class RoutingSettings(Group):
    """Who writes steps: one model, or draft and target under a router."""

    writer: Literal["model", "arbitrage"] = Field(
        default="model", description="who writes steps: the policy model, or arbitrage: draft and target under a router"
    )
    draft: str = Field(
        default="mini:draft",
        description="arbitrage: the draft model, as for policy; it is to be named beside another target than mini's",
    )
    target: str = Field(
        default="mini:target",
        description="arbitrage: the target model, as for policy; it runs on engine; to be named beside another draft "
        "than mini's",
    )
    router: str = Field(default="arbitrage:0.5", description=f"arbitrage: {listed(router_names())}")
    router_model: str = Field(
        default="auto",
        description="arbitrage: the model behind the router; auto: mini:router for arbitrage beside mini models, the "
        "reward model for rsd and oracle",
    )
    pipeline: bool = Field(
        default=False, description="arbitrage: at width 1 the draft writes on while the router judges; same results"
    )
    draft_engine: str = Field(default="local", description="arbitrage: where the draft runs, as for engine")
    router_engine: str = Field(default="local", description="arbitrage: where the router's model runs, as for engine")


def method_name(method: str, frontier: str) -> str:
    """A method as tables name it: on a rolling frontier it is another one."""
    return method if frontier == "level" else f"{method}-{frontier}"


class MethodSettings(Group):
    """A search method and its options: another method has others."""

    method: str = Field(default="ets", description=listed(METHODS))
    frontier: Literal["level", "rolling"] = Field(
        default="level",
        description="rebase, ets, ets-kv: when leaves are selected; level (when a whole level is written) or rolling "
        "(whenever steps are written, among those that still are; no level waits for its longest step, and results are "
        "others)",
    )
    options: dict[str, Scalar] = Field(
        default_factory=dict, description="options of the method, as KEY=VALUE; may be repeated"
    )
    node_cost: Literal["uniform", "tokens"] | None = Field(
        default=None, description="ets: what a node costs; by its tokens, or uniform as in the paper"
    )
    node_cost_weight: float | None = Field(
        default=None, description="ets: weight of the nodes' cost, lambda_b; default: 2.25, of ets-kv and ets-paper 1.0"
    )
    coverage_weight: float | None = Field(
        default=None, description="ets-paper: weight of semantic coverage, lambda_d; default: the paper's at the width"
    )
    cluster_distance: float | None = Field(
        default=None,
        description="ets: cosine distance at which clusters are cut; default: found in each level, of ets-paper 0.05",
    )
    solver: str | None = Field(default=None, description="ets-kv, ets-paper: highs, pulp, or tree; default: highs")

    @property
    def method_name(self) -> str:
        """The method as tables name it."""
        return method_name(self.method, self.frontier)


class TreeSettings(MethodSettings):
    """What tree is searched: by which method, how wide, and when it stops."""

    embedder: str = Field(
        default="tfidf",
        description="ets: what compares steps; tfidf, minilm, prm, or sentence-transformers:PATH_OR_HUB_ID",
    )
    width: Count = Field(default=16, description="trajectories to spend on a problem")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the whole run")
    speculate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="while the last steps of a level are written, write ahead what will be selected, on this share of "
        "the width's places that stand idle; same results, sooner; default: off",
    )
    until: Literal["decided", "spent"] = Field(
        default="decided",
        description="when a search stops: decided (as soon as the rest of the width cannot change the vote's answer) "
        "or spent (when the width is)",
    )
    begin: Literal["all", "needed"] = Field(
        default="all",
        description="chains of a method that compares nothing: all at once, or no more than the vote needs to be "
        "decided (or certain by --confidence) if they agree, others as they disagree; same answer for fewer tokens, "
        "later",
    )
    confidence: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="stop already when the leading answer will still lead with this probability when the whole width "
        "is in; it may then have had another answer; saves most, and errs least, with --begin needed",
    )
    min_confidence: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="give up a step that is less sure than this: by the confidence that is the reward model (--prm "
        "confidence:NAME), else by lowest-group, the mean probability of its tokens where it was least sure; a step "
        "that ends a solution stays; default: none is",
    )
    max_depth: Count = Field(default=25, description="steps of one trajectory")
    max_seconds: float | None = Field(default=None, gt=0, description="wall seconds of one problem; default: no limit")


class SamplingSettings(Group):
    """How steps are drawn, and how long they and their trajectories may get."""

    temperature: float = Field(default=1.0, ge=0, le=100, description="sampling temperature; 0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus mass; 1 keeps the whole distribution")
    max_step_tokens: Count = Field(
        default=256, description="tokens of one step; from three quarters of them on it ends at any line's end"
    )
    min_step_tokens: int = Field(default=0, ge=0, description="a blank line ends no step that has fewer tokens")
    max_tokens: Count = Field(default=1024, description="tokens of one trajectory, the prompt not counted")
    max_thought_tokens: Count | None = Field(
        default=None, description="tokens of thought after which a trajectory's thought is closed; default: no limit"
    )


class PromptSettings(Group):
    """How the policy model is asked, and what its steps look like."""

    prompt: Literal["auto", "chat", "plain", "mini", "qwen-math", "llama-3", "math-shepherd"] = Field(
        default="auto",
        description="prompt and step format; auto: as the model's chat template says, plain where it has none",
    )
    thinking: Literal["auto", "keep", "drop", "off"] = Field(
        default="auto",
        description="thoughts before the answer: auto (kept, if the model's chat template has it think), keep (it is "
        "asked to think), drop (as keep, but what is given out has no thoughts), off (it is asked not to think)",
    )
    system_prompt: Text | None = Field(
        default=None,
        description="the instruction before the question, in place of the prompt format's: TEXT, or @FILE; empty for "
        "none",
        json_schema_extra={"metavar": "TEXT|@FILE"},
    )
    prompt_template: Text | None = Field(
        default=None,
        description="a jinja template of the whole prompt, in place of the prompt format's: FILE; it has question, "
        "examples, system, start, and chat(messages), which is the model's chat template",
        json_schema_extra={"metavar": "FILE"},
    )
    few_shot: Text | Examples | None = Field(
        default=None,
        description="solved problems to show before the question: FILE.jsonl with question and answer, or problem "
        "and solution; in YAML and Python also a list of them",
        json_schema_extra={"metavar": "FILE.jsonl"},
    )
    assistant_prefix: Text | None = Field(
        default=None,
        description="what the model's turn begins with; it is part of the prompt, not of the solution",
        json_schema_extra={"metavar": "TEXT"},
    )
    stop: Texts | None = Field(
        default=None,
        description="texts that end a step and belong to it, in place of the prompt format's; may be repeated",
    )
    final: Texts | None = Field(
        default=None,
        description="phrases that make a step a solution's last, in place of the prompt format's; may be repeated",
    )
    chat_options: dict[str, Scalar] = Field(
        default_factory=dict,
        description="options of the chat template, as KEY=VALUE, e.g. enable_thinking=false; may be repeated",
    )


class VoteSettings(Group):
    """How trajectories become an answer."""

    vote: Literal["auto", "majority", "weighted", "normalised", "best"] = Field(
        default="auto",
        description="how trajectories become an answer: majority, weighted (by reward), normalised (by how far a "
        "reward stands out among those of its problem), best; auto: weighted with a reward model, else majority",
    )
    grader: Literal["auto", "plain", "integer", "exact", "choice", "math"] = Field(
        default="auto",
        description="how answers are compared: plain (numbers and text), integer, exact (the very text), choice (the "
        "letter), math (by value); auto: plain for one problem and for mini data, math for all other data",
    )


class DataSettings(Group):
    """The problems of a run over a data set: of `ets eval`, a sweep or a recipe; other commands have none."""

    data: str = Field(
        default="mini:test",
        description="mini:SPLIT, gsm8k, math500, olympiadbench, aime, or a file of problems: .jsonl, .json, .csv, .tsv "
        "(each with .gz or without) or .parquet",
    )
    field: str | None = Field(
        default=None,
        description="which columns of the data are what: problem=COLUMN,answer=COLUMN (also choices=, id=); a COLUMN "
        "may be a template such as '{Body} {Question}'; default: recognised",
    )
    reference: bool = Field(default=True, description="read reference answers; without them there is no accuracy")
    limit: Count | None = Field(default=None, description="problems to take from the start; default: all")
