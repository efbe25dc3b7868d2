"""What an SGLang server says of itself, and what of it is bad for a tree search."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from search.engines.remote.transport import SglangServer
from search.errors import ConfigError, EngineError

_SEEDS_TRIED = 4


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server, or several that agree. None: it does not say.

    Attributes:
        version: of SGLang.
        model: what it serves, as it calls it.
        model_type, architectures: as in the model's configuration; empty where it does not say.
        is_embedding: it reads rewards and writes no text.
        context_tokens: the longest prompt it takes, and all that we let a sequence grow to.
        token_capacity: KV slots.
        radix_cache: whether prefixes are kept and shared.
        page_size: slots of one page; of a prefix only whole pages are shared.
        dtype: of the weights.
        hidden_states: whether it gives those of all tokens ("full"), of the last one alone ("last"), or none ("").
        max_running: requests it runs at once.
    """

    version: str = ""
    model: str = ""
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    is_embedding: bool = False
    context_tokens: int | None = None
    token_capacity: int | None = None
    radix_cache: bool | None = None
    page_size: int | None = None
    dtype: str = ""
    hidden_states: Literal["", "last", "full"] = ""
    max_running: int | None = None

    def details(self, num_servers: int) -> dict[str, str]:
        """For run records and `ets doctor`."""
        facts = {
            "server": f"SGLang {self.version or 'of unknown version'}",
            "serves": self.model,
            "servers": str(num_servers) if num_servers > 1 else "",
            "token capacity": "" if self.token_capacity is None else str(self.token_capacity),
            "radix cache": "" if self.radix_cache is None else "on" if self.radix_cache else "off",
            "page size": "" if self.page_size in (None, 1) else str(self.page_size),
            "dtype": self.dtype,
            "hidden states": self.hidden_states,
            "head": "as served" if self.is_embedding else "",
        }
        return {name: value for name, value in facts.items() if value}

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, each with what to do about it."""
        warnings = []
        if self.radix_cache is False:
            warnings.append(
                "the radix cache is off, so every step computes its whole prefix anew: start the server without "
                "--disable-radix-cache"
            )
        if self.page_size is not None and self.page_size > 16:
            warnings.append(
                f"pages of {self.page_size} tokens: up to {self.page_size - 1} tokens of each prefix are computed "
                "again for every child; start the server with --page-size 1"
            )
        if self.token_capacity is not None and self.context_tokens and self.token_capacity < 4 * self.context_tokens:
            warnings.append(
                f"room for {self.token_capacity} KV tokens in all, where one sequence may take {self.context_tokens}: "
                "trees will be evicted and computed again; raise --mem-fraction-static"
            )
        parts = self.version.split(".")[:3]
        if all(part.isdecimal() for part in parts) and parts and tuple(map(int, parts)) < (0, 5):
            warnings.append(f"SGLang {self.version} is older than 0.5, which lacks what is asked of it here")
        return tuple(warnings)


async def read_facts(server: SglangServer) -> ServerFacts:
    """Ask a server.

    Raises:
        EngineError: it cannot be reached, or does not answer as SGLang does.
    """
    info, model = await server.server_info(), await server.model_info()
    if "model_path" not in {**info, **model}:
        raise EngineError(f"{server} is no SGLang server: it does not say what model it serves", endpoint=str(server))
    state = _first(info.get("internal_states"))
    longest = _count(info.get("max_req_input_len"))
    return ServerFacts(
        version=str(info.get("version") or ""),
        model=str(model.get("model_path") or info.get("model_path") or ""),
        model_type=str(model.get("model_type") or ""),
        architectures=tuple(map(str, model.get("architectures") or ())),
        is_embedding=model.get("is_generation") is False,
        # Prompts must be shorter than what it calls the longest.
        context_tokens=None if longest is None else longest - 1,
        token_capacity=_count(info.get("max_total_num_tokens"))
        or _count((state.get("memory_usage") or {}).get("token_capacity")),
        radix_cache=None if "disable_radix_cache" not in info else not info["disable_radix_cache"],
        page_size=_count(info.get("page_size")),
        dtype=str(info.get("dtype") or ""),
        hidden_states=_hidden_states(info),
        max_running=_count(info.get("max_running_requests")),
    )


def agree(servers: Sequence[ServerFacts]) -> ServerFacts:
    """The facts of all servers as one: what is least in each.

    Raises:
        ConfigError: they serve different models.
    """
    first = servers[0]
    for other in servers[1:]:
        mine, theirs = (first.model_type, first.is_embedding), (other.model_type, other.is_embedding)
        if mine != theirs or first.architectures != other.architectures:
            raise ConfigError(f"the servers of one engine must serve one model: {first.model} and {other.model}")
    return replace(
        first,
        context_tokens=_least(one.context_tokens for one in servers),
        token_capacity=_least(one.token_capacity for one in servers),
        radix_cache=None if first.radix_cache is None else all(one.radix_cache for one in servers),
        page_size=max((one.page_size for one in servers if one.page_size is not None), default=None),
        hidden_states=min((one.hidden_states for one in servers), key=_MODES.index),
    )


_MODES: tuple[Literal["", "last", "full"], ...] = ("", "last", "full")


def _hidden_states(info: Mapping[str, Any]) -> Literal["", "last", "full"]:
    """By the mode where the server has one (`--return-hidden-states-mode`); the older flag is set beside it."""
    mode = info.get("return_hidden_states_mode")
    if mode in ("last", "full"):
        return "last" if mode == "last" else "full"
    return "full" if info.get("enable_return_hidden_states") else ""


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


async def honours_seeds(server: SglangServer, ids: Sequence[int]) -> bool:
    """Whether samples depend on their seeds: several seeds, each twice in one request, must come out in equal pairs.

    Raises:
        EngineError: the server could not be asked; one that refuses seeds in this form honours none.
    """
    # Seeds of one request alone: a server's own cache of answers, if it had one, must not be mistaken for seeds.
    fresh = random.SystemRandom()
    seeds = [seed for seed in (fresh.getrandbits(62) for _ in range(_SEEDS_TRIED)) for _ in range(2)]
    params = [{"temperature": 1.5, "max_new_tokens": 16, "ignore_eos": True, "sampling_seed": seed} for seed in seeds]
    try:
        answers = await server.generate({"input_ids": [list(ids)] * len(seeds), "sampling_params": params}, "probe")
    except EngineError as error:
        if error.status is not None and error.status < 500:
            return False
        raise
    if not isinstance(answers, list) or len(answers) != len(seeds):
        return False
    texts = [tuple(answer.get("output_ids") or ()) if isinstance(answer, dict) else () for answer in answers]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    return all(one == other for one, other in pairs) and len({one for one, _ in pairs}) > 1


def _first(states: object) -> Mapping[str, Any]:
    if isinstance(states, list) and states and isinstance(states[0], dict):
        return states[0]
    return {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
