"""SGLang: token ids in and out over its native API, with RadixAttention sharing what a tree shares.

The children of one node travel as one request. Where the server honours seeds that request is a batch of the same ids,
each with the seed of its own child, since one `n` has one seed for all; else it is one prompt with `n` samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from search.engines.remote.engine import RemoteEngine
from search.engines.remote.facts import ServerFacts, agree, honours_seeds, read_facts
from search.engines.remote.gather import Gatherer
from search.engines.remote.http import HttpClient, RequestLimits, asking, bad_answer
from search.engines.remote.load_watch import LoadWatch
from search.engines.remote.model import PROBE_TEXT, RemoteModel, check_same, parse_urls, read_model
from search.engines.remote.samples import Read, Sample
from search.engines.remote.transport import HttpServer, SglangServer
from search.errors import ConfigError, EngineError
from search.support.background import run_apart
from search.types import Child, Prefix, Sampling

STREAM_INTERVAL_TOKENS = 64
"""How often a server reports on a step: rarely, but so that a long step is told from a server that is stuck."""

_RESERVED_TOKENS = 7
"""What a prompt must leave free of a server's context, where a router in front does not let it say so itself."""

_SEED_MASK = 2**63 - 1


class _Question(NamedTuple):
    """What is read at the end of a prompt: log-probabilities of labels, or the reward head where there are none."""

    key: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]


class SglangEngine(RemoteEngine[SglangServer]):
    """A model on one or several SGLang servers."""

    def __init__(
        self,
        model: RemoteModel,
        servers: Sequence[SglangServer],
        facts: ServerFacts,
        limits: RequestLimits | None = None,
    ) -> None:
        """Serve `model` from `servers`, which `facts` were read from; see `connect`."""
        super().__init__(model, servers, limits or RequestLimits())
        self.facts = facts
        self._gatherers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Gatherer[_Question, Read]]]
        self._gatherers = WeakKeyDictionary()
        self._watch = LoadWatch(self._look)

    @classmethod
    def connect(
        cls, model: str, address: str, *, limits: RequestLimits | None = None, trust_remote_code: bool = False
    ) -> SglangEngine:
        """An engine over servers that run already.

        Args:
            model: the folder or hub id of the model that they serve; its tokenizer is needed here.
            address: http://host:port of a server or a router; several with commas between them.
            limits: how requests are sent.
            trust_remote_code: run a tokenizer's own code.

        Raises:
            ConfigError: no such model, no server at an address, or one that serves another model.
        """
        limits = limits or RequestLimits()
        urls = parse_urls("sglang", address)
        ours = read_model(model, "sglang", trust_remote_code)
        facts = run_apart(_ask(ours, urls, limits))
        client = HttpClient(limits)
        return cls(ours, [HttpServer(client, url) for url in urls], facts, limits)

    @classmethod
    def load(cls, model: str, *, trust_remote_code: bool = False, **server_args: Any) -> SglangEngine:
        """An engine in this process: `sglang.Engine`, which starts processes of its own.

        A script that does this must guard its start by `if __name__ == "__main__":`.

        Args:
            model: a folder, or a hub id.
            trust_remote_code: run code that comes with the model.
            server_args: of `sglang.Engine`, e.g. tp_size=2, mem_fraction_static=0.8.

        Raises:
            ConfigError: the extra `[sglang]` is not installed, or SGLang does not take the model.
        """
        from search.engines.remote.inprocess import InProcessServer

        ours = read_model(model, "sglang", trust_remote_code)
        server = InProcessServer.start(model, trust_remote_code=trust_remote_code, **server_args)
        try:
            facts = server.wait(_facts(ours, [server]))
        except BaseException:
            server.stop()
            raise
        return cls(ours, [server], facts)

    async def flush_cache(self) -> None:
        """Empty the servers' caches of prefixes.

        Raises:
            EngineError: a server cannot be reached, or refuses, as it does while requests run.
        """
        for worker in self._workers.all:
            await worker.transport.flush_cache()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the servers for a tree search, in plain words; empty if nothing is."""
        asked, served = Path(self.info.model), Path(self.facts.model)
        if asked.name == served.name or "snapshots" in (*asked.parts, *served.parts):
            return self.facts.problems
        return (
            f"it serves {served}, and {asked} was asked for: name the model that it serves (their tokenizers agree, so "
            "nothing but the names can tell them apart)",
            *self.facts.problems,
        )

    # Writing

    async def _stream(
        self, server: SglangServer, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Sample, None]:
        if self.facts.is_embedding:
            raise self._error("this server was started with --is-embedding: it reads rewards and writes no text")
        self._watch.wake()
        number = len(children)
        params: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_new_tokens": sampling.max_new_tokens,
            "stop": list(sampling.stop),
            "stop_token_ids": sorted(self.tokenizer.eos_ids),
            "no_stop_trim": True,
            "stream_interval": STREAM_INTERVAL_TOKENS,
        }
        ids = list(prefix.ids)
        body: dict[str, Any]
        if self.info.seeds == "server":
            seeded = [{**params, "sampling_seed": child.seed & _SEED_MASK} for child in children]
            body = {"input_ids": [ids] * number, "sampling_params": seeded}
        elif number > 1:
            body = {"input_ids": ids, "sampling_params": {**params, "n": number}}
        else:
            body = {"input_ids": ids, "sampling_params": params}
        if sampling.logprobs:
            body["return_logprob"] = True
        parts: dict[int, Sample] = {}
        stream = server.stream(body, prefix.tree)
        try:
            async for event in stream:
                sample = _sample(server, event, parts)
                parts[sample.number] = sample
                yield sample
        finally:
            await stream.aclose()

    def _extra_tokens(self, num_samples: int) -> int:
        # Before it writes `n` samples it computes the prompt once more on its own, of which the last token is new.
        return 1 if num_samples > 1 and self.info.seeds != "server" else 0

    async def _prefill(self, server: SglangServer, prefix: Prefix) -> Read:
        body = {"input_ids": list(prefix.ids), "sampling_params": {"max_new_tokens": 0}}
        return Read((), _cached(server, await server.generate(body, prefix.tree)))

    async def _abort(self, server: SglangServer, requests: Sequence[str]) -> None:
        for request in requests:
            try:
                await server.abort(request)
            except EngineError:
                return  # it runs to its end, and nobody waits for it

    # Reading

    async def _labels(self, server: SglangServer, prefix: Prefix, labels: tuple[int, ...]) -> Read:
        if self.facts.is_embedding:
            raise self._error("this server was started with --is-embedding: it has no probabilities of tokens")
        return await self._gatherer(server).ask(_Question(prefix.tree, prefix.ids, labels))

    async def _numbers(self, server: SglangServer, prefix: Prefix, what: Literal["head", "hidden"]) -> Read:
        if what == "head":
            if not self.facts.is_embedding:
                raise self._error("this server has no reward head: start it with --is-embedding on a reward model")
            return await self._gatherer(server).ask(_Question(prefix.tree, prefix.ids, ()))
        if self.facts.is_embedding or not self.facts.hidden_states:
            raise self._error("this server gives no hidden states: start it with --enable-return-hidden-states")
        body = {
            "input_ids": list(prefix.ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_hidden_states": "last" if self.facts.hidden_states == "last" else True,
        }
        answer = await server.generate(body, prefix.tree)
        states: Any = _meta(server, answer).get("hidden_states")
        last = states
        try:
            while isinstance(last[-1], list):
                # One entry a written token, the first with all that was not cached; or the last token's alone.
                last = last[0] if isinstance(last[0][-1], list) else last[-1]
            return Read(tuple(float(value) for value in last), _cached(server, answer))
        except (TypeError, IndexError, ValueError):
            raise bad_answer(str(server), states) from None

    def _gatherer(self, server: SglangServer) -> Gatherer[_Question, Read]:
        """Questions about one tree that are asked of a server at once travel together."""
        known = self._gatherers.setdefault(asyncio.get_running_loop(), {})
        if (found := known.get(str(server))) is None:
            send = partial(self._ask_all, server)
            found = known[str(server)] = Gatherer(send, lambda question: (question.key, bool(question.labels)))
        return found

    async def _ask_all(self, server: SglangServer, asked: Sequence[_Question]) -> list[Read]:
        self._watch.wake()
        many = len(asked) > 1
        ids = [list(question.ids) for question in asked]
        body: dict[str, Any] = {"input_ids": ids if many else ids[0]}
        if not asked[0].labels:
            answers = await server.encode(body, asked[0].key)
        else:
            labels = [list(question.labels) for question in asked]
            body["sampling_params"] = {"max_new_tokens": 0}
            # From the last token on: asked for earlier ones, the server would compute the prefix again to say them.
            body |= {"return_logprob": True, "logprob_start_len": -1}
            body["token_ids_logprob"] = labels if many else labels[0]
            answers = await server.generate(body, asked[0].key)
        answers = answers if many else [answers]
        if not isinstance(answers, list) or len(answers) != len(asked):
            raise bad_answer(str(server), answers)
        read = _logprobs if asked[0].labels else _embedding
        return [read(server, question, answer) for question, answer in zip(asked, answers, strict=True)]

    # Watching

    async def _look(self) -> bool:
        """Note what each server holds that now works on a tree, and whether any does."""
        busy = [worker for worker in self._workers.all if any(self._is_running(tree) for tree in worker.trees)]
        for worker in busy:
            try:
                used = await worker.transport.used_tokens()
            except EngineError:
                continue
            for tree in tuple(worker.trees):
                books = self._trees.get(tree)
                if used is not None and books is not None and books.num_running:
                    books.kv_tokens_peak = max(used, books.kv_tokens_peak or 0)
        return bool(busy)

    def _is_running(self, tree: str) -> bool:
        books = self._trees.get(tree)
        return books is not None and books.num_running > 0

    async def _close(self) -> None:
        self._watch.stop()
        for worker in self._workers.all:
            await worker.transport.aclose()


async def _ask(model: RemoteModel, urls: Sequence[str], limits: RequestLimits) -> ServerFacts:
    """What servers are, asked with little patience: a person waits for it."""
    async with asking("sglang", limits) as client:
        return await _facts(model, [HttpServer(client, url) for url in urls])


async def _facts(model: RemoteModel, servers: Sequence[SglangServer]) -> ServerFacts:
    """Ask all servers; hold them to our model and to each other; and put what they are into the model's `info`.

    Raises:
        ConfigError: one cannot be reached, is no SGLang server, or serves another model.
    """
    try:
        found = list(await asyncio.gather(*(read_facts(server) for server in servers)))
        facts = agree(found)
        ids = list(await asyncio.gather(*(server.probe_ids() for server in servers)))
        for server, fact, seen in zip(servers, found, ids, strict=True):
            check_same(model, str(server), ids=seen, model_type=fact.model_type, served=fact.model)
        seeds: Literal["server", "none"] = "none"
        if not facts.is_embedding:
            honoured = [await honours_seeds(server, model.tokenizer.encode(PROBE_TEXT)) for server in servers]
            seeds = "server" if all(honoured) else "none"
    except EngineError as error:
        raise ConfigError(f"engine sglang: {error}") from error
    context = model.info.context_tokens
    longest = context - _RESERVED_TOKENS if facts.context_tokens is None else facts.context_tokens
    model.described(
        context_tokens=min(context, longest),
        seeds=seeds,
        details=facts.details(len(servers)),
    )
    return facts


def _sample(server: SglangServer, event: Mapping[str, Any], parts: Mapping[int, Sample]) -> Sample:
    """One event of a stream: all ids of a sample so far, whether its server sends all of them each time or the new."""
    meta = _meta(server, event)
    try:
        index = int(event.get("index", 0))
        ids = tuple(map(int, event["output_ids"]))
        finish, number = meta["finish_reason"], int(meta["completion_tokens"])
        before = parts.get(index)
        if len(ids) < number and before is not None:
            ids = (*before.ids, *ids)
        # Some servers put the end of the prompt before what was written.
        ids = ids[len(ids) - number :]
        logprobs = None
        if (entries := meta.get("output_token_logprobs")) is not None:
            logprobs = tuple(float(entry[0]) for entry in entries)
            if len(logprobs) < number and before is not None:
                logprobs = (*(before.logprobs or ()), *logprobs)
            logprobs = logprobs[max(0, len(logprobs) - len(ids)) :]
        kind = None if finish is None else finish["type"]
        matched = finish.get("matched") if finish else None
        if kind not in (None, "stop", "length", "abort"):
            raise ValueError(kind)
        if kind == "abort" and finish.get("message") and int(finish.get("status_code") or 0) == 400:
            raise EngineError(f"{server} refused: {finish['message']}", endpoint=str(server), status=400)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise bad_answer(str(server), event) from None
    matched = matched if isinstance(matched, int) else None
    return Sample(index, ids, kind, _cached(server, event), str(meta.get("id", "")), matched, logprobs)


def _meta(server: SglangServer, answer: Any) -> Mapping[str, Any]:
    meta = answer.get("meta_info") if isinstance(answer, Mapping) else None
    if not isinstance(meta, Mapping):
        raise bad_answer(str(server), answer)
    return meta


def _cached(server: SglangServer, answer: Any) -> int | None:
    cached = _meta(server, answer).get("cached_tokens")
    return cached if isinstance(cached, int) else None


def _logprobs(server: SglangServer, question: _Question, answer: Any) -> Read:
    """The labels' log-probabilities after the last token, in the order asked."""
    try:
        entries = _meta(server, answer)["output_token_ids_logprobs"][0]
        found = {int(token): float(logprob) for logprob, token, *_ in entries}
        return Read(tuple(min(0.0, found[label]) for label in question.labels), _cached(server, answer))
    except (KeyError, TypeError, ValueError, IndexError):
        raise bad_answer(str(server), answer) from None


def _embedding(server: SglangServer, question: _Question, answer: Any) -> Read:
    """The outputs of a reward head."""
    try:
        outputs = answer["embedding"]
        values = tuple(float(value) for value in (outputs if isinstance(outputs, list) else [outputs]))
    except (KeyError, TypeError, ValueError):
        raise bad_answer(str(server), answer) from None
    return Read(values, _cached(server, answer))
