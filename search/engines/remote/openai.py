"""Any OpenAI-compatible server whose `/v1/completions` takes and gives token ids, e.g. vLLM.

That API says neither what was cached nor what was computed, so the books of its trees hold None there.

A vLLM server that was started with `--runner pooling` writes nothing, and gives a reward head's outputs at every token
on `/pooling` (its task "token_classify", without its activation), or, where it was told of a step tag, at the tags: the
last of them are those at the end of the prompt, where a step is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from search.engines.remote.engine import RemoteEngine
from search.engines.remote.http import HttpClient, RequestLimits, asking, bad_answer
from search.engines.remote.model import PROBE_TEXT, RemoteModel, check_same, parse_urls, read_ids, read_model
from search.engines.remote.samples import Read, Sample
from search.errors import EngineError
from search.support.background import run_apart
from search.types import Child, Prefix, Sampling

_FEW_LABELS = 20
"""Likeliest tokens asked for first; what servers give unless they are told to give more."""

_RESERVED_TOKENS = {"sglang": 7}
"""What a server's prompts must leave free of its context, by who it says it is; one token for all others."""

_SEED_MASK = 2**63 - 1


class OpenAIServer(NamedTuple):
    """One server: where it is, and its own name of its model."""

    client: HttpClient
    url: str
    model: str

    def __str__(self) -> str:
        return self.url


class OpenAIEngine(RemoteEngine[OpenAIServer]):
    """A model on one or several OpenAI-compatible servers."""

    @classmethod
    def connect(
        cls, model: str, address: str, *, limits: RequestLimits | None = None, trust_remote_code: bool = False
    ) -> OpenAIEngine:
        """An engine over servers that run already.

        Args:
            model: the folder or hub id of the model that they serve; its tokenizer is needed here.
            address: http://host:port, with or without /v1; several with commas between them.
            limits: how requests are sent.
            trust_remote_code: run a tokenizer's own code.

        Raises:
            ConfigError: no such model, no server at an address, one that serves another model, or one that does not
                give token ids.
        """
        limits = limits or RequestLimits()
        urls = [url.removesuffix("/v1") for url in parse_urls("openai", address)]
        ours = read_model(model, "openai", trust_remote_code)
        names = run_apart(_ask(ours, urls, limits))
        client = HttpClient(limits)
        return cls(ours, [OpenAIServer(client, url, name) for url, name in zip(urls, names, strict=True)], limits)

    async def _stream(
        self, server: OpenAIServer, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Sample, None]:
        body: dict[str, Any] = {
            "n": len(children),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "stop_token_ids": sorted(self.tokenizer.eos_ids),
        }
        if sampling.stop:
            # By either name, vLLM's or SGLang's, the stop string stays in the step.
            body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True, "no_stop_trim": True}
        if self.info.seeds == "server":
            body["seed"] = children[0].seed & _SEED_MASK
        if sampling.logprobs:
            # The written token's alone would do; SGLang reads 0 as none.
            body["logprobs"] = 1
        for choice in await _complete(server, prefix.ids, body, prefix.tree):
            yield _sample(server, choice)

    async def _prefill(self, server: OpenAIServer, prefix: Prefix) -> Read:
        await _complete(server, prefix.ids, {"max_tokens": 1}, prefix.tree)
        return Read(())

    async def _labels(self, server: OpenAIServer, prefix: Prefix, labels: tuple[int, ...]) -> Read:
        for number in sorted({min(_FEW_LABELS, self.info.vocab_size), self.info.vocab_size}):
            try:
                logprobs = await self._likeliest(server, prefix, number)
            except EngineError as error:
                if number <= _FEW_LABELS or error.retryable:
                    raise
                raise self._error(
                    f"{server} does not give the log-probabilities of labels beyond the {_FEW_LABELS} likeliest "
                    "tokens; vLLM does with --max-logprobs -1"
                ) from error
            if all(label in logprobs for label in labels):
                return Read(tuple(min(0.0, logprobs[label]) for label in labels))
        raise self._error(
            f"{server} does not say which of its log-probabilities are those of the labels: it names tokens by their "
            "text, and several tokens have the same; serve the model with SGLang, engine sglang:URL"
        )

    async def _likeliest(self, server: OpenAIServer, prefix: Prefix, number: int) -> dict[int, float]:
        """Log-probabilities of the likeliest next tokens by id; those whose name could be of several are left out."""
        body = {"max_tokens": 1, "logprobs": number, "return_tokens_as_token_ids": True}
        choices = await _complete(server, prefix.ids, body, prefix.tree)
        try:
            top = choices[0]["logprobs"]["top_logprobs"][0]
            named = {self._model.token_id(str(name)): float(logprob) for name, logprob in top.items()}
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            raise bad_answer(str(server), choices) from None
        return {token: logprob for token, logprob in named.items() if token is not None}

    async def _numbers(self, server: OpenAIServer, prefix: Prefix, what: Literal["head", "hidden"]) -> Read:
        if what == "hidden":
            raise self._error("an OpenAI-compatible server has no hidden states: serve the model with SGLang")
        if "head" not in self.info.details:
            raise self._error(
                f"{server} has no reward head: serve the model with SGLang, or start vLLM with --runner pooling"
            )
        if not (outputs := await _pool(server, prefix.ids, prefix.tree)):
            raise self._error(f"{server} gives outputs at its own step tag alone, and there is none in what was asked")
        return Read(outputs)

    async def _abort(self, server: OpenAIServer, requests: Sequence[str]) -> None:
        """There is no way to stop one sample of several; it runs to its end, and nobody waits for it."""

    async def _close(self) -> None:
        for worker in self._workers.all:
            await worker.transport.client.aclose()


async def _complete(server: OpenAIServer, ids: Sequence[int], body: Mapping[str, Any], key: str) -> list[Any]:
    """The choices that a server gives for a prompt."""
    whole = {"model": server.model, "prompt": list(ids), "return_token_ids": True, **body}
    answer = await server.client.post(f"{server.url}/v1/completions", whole, key)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise bad_answer(str(server), answer)
    return choices


async def _pool(server: OpenAIServer, ids: Sequence[int], key: str) -> tuple[float, ...]:
    """The outputs of the reward head at the end of a prompt; none where the server waits for another step tag."""
    body = {"model": server.model, "input": list(ids), "task": "token_classify", "use_activation": False}
    answer = await server.client.post(f"{server.url}/pooling", body, key)
    try:
        rows = answer["data"][0]["data"]
        return tuple(map(float, rows[-1])) if rows else ()
    except (KeyError, TypeError, IndexError, ValueError):
        raise bad_answer(str(server), answer) from None


def _sample(server: OpenAIServer, choice: Mapping[str, Any]) -> Sample:
    if choice.get("token_ids") is None:
        raise EngineError(
            f"{server} gives no token ids, and text cannot be cut into the same ids again",
            endpoint=str(server),
            hint="vLLM does since 0.10.2, SGLang since 0.5.4",
        )
    try:
        ids = tuple(map(int, choice["token_ids"]))
        index, finish = int(choice["index"]), choice["finish_reason"]
        given = (choice.get("logprobs") or {}).get("token_logprobs")
        logprobs = None if given is None else tuple(map(float, given))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise bad_answer(str(server), choice) from None
    if finish not in ("stop", "length", "abort"):
        raise bad_answer(str(server), choice)
    matched = choice.get("stop_reason", choice.get("matched_stop"))
    return Sample(index, ids, finish, matched=matched if isinstance(matched, int) else None, logprobs=logprobs)


async def _ask(model: RemoteModel, urls: Sequence[str], limits: RequestLimits) -> list[str]:
    """Ask all servers, hold them to our model, and put what they are into its `info`.

    Returns:
        Each server's name of the model.

    Raises:
        ConfigError: one cannot be reached, serves another model, or gives no token ids.
    """
    async with asking("openai", limits) as client:
        served = list(await asyncio.gather(*(_served(client, url) for url in urls)))
        servers = [OpenAIServer(client, url, str(entry["id"])) for url, entry in zip(urls, served, strict=True)]
        ids = list(await asyncio.gather(*(read_ids(client, server.url, server.model) for server in servers)))
        for server, seen in zip(servers, ids, strict=True):
            check_same(model, server.url, ids=seen, model_type="", served=server.model)
        probe = model.tokenizer.encode(PROBE_TEXT)
        try:
            seeds = [await _honours_seeds(server, probe) for server in servers]
            pools = False
        except EngineError as error:
            seeds, pools = [False], await _all_pool(servers, probe)
            if not pools:
                raise error from None
    contexts = [model.info.context_tokens]
    for entry in served:
        if isinstance(longest := entry.get("max_model_len"), int):
            contexts.append(longest - _RESERVED_TOKENS.get(str(entry.get("owned_by")), 1))
    details = {"server": str(served[0].get("owned_by") or "unknown"), "serves": servers[0].model}
    if pools:
        details["head"] = "as served"
    if len(urls) > 1:
        details["servers"] = str(len(urls))
    model.described(context_tokens=min(contexts), seeds="server" if all(seeds) else "none", details=details)
    return [server.model for server in servers]


async def _all_pool(servers: Sequence[OpenAIServer], ids: Sequence[int]) -> bool:
    """Whether servers that write nothing give the outputs of a reward head."""
    try:
        for server in servers:
            await _pool(server, ids, "probe")
    except EngineError:
        return False
    return True


async def _served(client: HttpClient, url: str) -> Mapping[str, Any]:
    answer = await client.get(f"{url}/v1/models")
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not data or not isinstance(data[0], dict) or "id" not in data[0]:
        raise bad_answer(f"{url}/v1/models", answer)
    return data[0]


async def _honours_seeds(server: OpenAIServer, ids: Sequence[int]) -> bool:
    """Whether the samples of one request depend on its seed and differ among themselves.

    Raises:
        EngineError: the server could not be asked, or gives no token ids.
    """
    body = {"n": 4, "temperature": 1.5, "max_tokens": 16, "ignore_eos": True, "seed": 20250213}
    once, again = [
        sorted(_sample(server, choice)[:2] for choice in await _complete(server, ids, body, "probe")) for _ in range(2)
    ]
    return once == again and len({sampled for _, sampled in once}) > 1
