"""Any OpenAI-compatible chat API: conversations go out and text comes back, no token ids and no probabilities.

A tree's ids are then the bytes of its text. What is counted in tokens is what the server's `usage` says, and what it
does not say is not known. A server that continues an assistant's turn writes step by step; any other one writes whole
solutions, which are cut into their steps here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from search.engines.remote.books import Job
from search.engines.remote.chat_server import CONTINUED, ChatServer, Reply, find_out, read_replies
from search.engines.remote.chat_tokens import WHOLE, ChatTokenizer, conversation
from search.engines.remote.engine import RemoteEngine
from search.engines.remote.http import HttpClient, RequestLimits
from search.engines.remote.model import RemoteModel, parse_urls
from search.engines.remote.samples import Read, Sample
from search.engines.remote.workers import Worker
from search.steps import BLANK_LINE
from search.support.background import run_apart
from search.support.streams import side_by_side
from search.types import Child, EngineInfo, FinishReason, Prefix, Sampling, Usage

_NO_LIMIT = 1 << 40
"""Bytes of a context whose length in tokens only the server knows."""

_SEED_MASK = 2**31 - 1
_MOST_CHOICES = 8
"""Samples asked for in one request; servers refuse many more."""


@dataclass(slots=True)
class _Tally:
    """What a server said of the requests of one tree, None once it did not say; and what it wrote and nobody read yet.

    Attributes:
        rests: by the key of a step, what its solution goes on with, and how it ends.
    """

    num_calls: int = 0
    prompt_tokens: int | None = 0
    sampled_tokens: int | None = 0
    rests: dict[int, tuple[tuple[int, ...], FinishReason]] = field(default_factory=dict)

    def add(self, usage: object) -> None:
        """Count a request."""
        self.num_calls += 1
        told = usage if isinstance(usage, dict) else {}
        for name, key in (("prompt_tokens", "prompt_tokens"), ("sampled_tokens", "completion_tokens")):
            one, known = told.get(key), getattr(self, name)
            counts = isinstance(one, int) and not isinstance(one, bool) and known is not None
            setattr(self, name, known + one if counts else None)


class ChatEngine(RemoteEngine[ChatServer]):
    """A model behind one or several servers of the same chat API.

    Attributes:
        continues: whether all servers continue an assistant's turn, so that it can be searched step by step.
    """

    def __init__(self, model: RemoteModel, servers: Sequence[ChatServer], limits: RequestLimits) -> None:
        """Ask `servers`."""
        super().__init__(model, servers, limits)
        self.continues = all(server.continues for server in servers)
        self._tallies: dict[str, _Tally] = {}

    @classmethod
    def connect(
        cls, model: str, address: str, *, limits: RequestLimits | None = None, trust_remote_code: bool = False
    ) -> ChatEngine:
        """An engine over a chat API; two short requests find out what it takes.

        Args:
            model: its name on the server.
            address: the API's base; /v1 is added to one without a path. Several with commas between them.
            limits: how requests are sent.
            trust_remote_code: there is no code.

        Raises:
            ConfigError: no server there, a wrong key, or no such model.
        """
        del trust_remote_code
        limits = limits or RequestLimits()
        urls = [url if url.count("/") > 2 else f"{url}/v1" for url in parse_urls("chat", address)]
        client = HttpClient(limits)
        servers = [run_apart(find_out(model, url, limits))._replace(client=client) for url in urls]
        tokenizer = ChatTokenizer()
        details = {
            "serves": model,
            "ids": "bytes of text",
            "steps": "continues an assistant's turn" if all(server.continues for server in servers) else WHOLE,
            "usage": "told" if all(server.tells_usage for server in servers) else "not told",
            "seed": "sent" if all(server.seeds for server in servers) else "not taken",
        }
        info = EngineInfo("chat", model, _NO_LIMIT, len(tokenizer.table.text), seeds="none", details=details)
        return cls(RemoteModel(tokenizer, tokenizer.table, info), servers, limits)

    def usage(self, tree: str) -> Usage:
        """What the server said of a tree's requests; what was cached or computed, none does."""
        tally = self._tallies.get(tree) or _Tally()
        return Usage(None, tally.sampled_tokens, tally.num_calls, None, None, None, prompt_tokens=tally.prompt_tokens)

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """As `RemoteEngine.release`."""
        await super().release(tree, keys)
        if keys is None:
            self._tallies.pop(tree, None)
        elif (tally := self._tallies.get(tree)) is not None:
            for key in keys:
                tally.rests.pop(key, None)

    async def _attempt(self, job: Job, worker: Worker[ChatServer]) -> None:
        """Write the children that are still owed."""
        if job.sampling.logprobs:
            raise self._error("a chat API gives no log-probabilities of a step's tokens that can be relied on")
        tally = self._tallies.setdefault(job.prefix.tree, _Tally())
        rest = tally.rests.get(job.prefix.segments[-1].key)
        owed = list(job.owed.items())
        if rest is not None and len(owed) == 1:
            self._cut(job, tally, owed[0], *rest)
        elif self.continues:
            await side_by_side(partial(self._step, job, worker, tally), owed, len(owed))
        elif len(job.prefix.segments) > 1:
            raise self._error(
                f"{worker.transport} does not continue an assistant's turn: a step has the one continuation that it had"
            )
        else:
            groups = [owed[first : first + _MOST_CHOICES] for first in range(0, len(owed), _MOST_CHOICES)]
            await side_by_side(partial(self._whole, job, worker, tally), groups, len(groups))

    async def _whole(self, job: Job, worker: Worker[ChatServer], tally: _Tally, group: list[tuple[int, Child]]) -> None:
        """Write whole solutions, deliver the first step of each, and keep the rest."""
        replies = await self._ask(worker.transport, job, tally, group[0][1].seed, b"", num_replies=len(group))
        for one, reply in zip(group, replies, strict=False):
            self._cut(job, tally, one, reply.ids, reply.finish)
        if left := group[len(replies) :]:  # it gives fewer than it was asked for
            groups = [[one] for one in left]
            await side_by_side(partial(self._whole, job, worker, tally), groups, len(groups))

    def _cut(
        self, job: Job, tally: _Tally, asked: tuple[int, Child], ids: tuple[int, ...], finish: FinishReason
    ) -> None:
        """Deliver the first step of what is written already."""
        place, child = asked
        if place not in job.owed:
            return
        rule = self._model.stop_rule(job.sampling.stop)
        number, end = rule.find_end(rule.begin(job.prefix), (), ids, _unlimited(job.sampling))
        if end is FinishReason.STOP and number < len(ids):
            tally.rests[child.key] = (ids[number:], finish)
            self._deliver(job, place, ids[:number], end)
        else:
            self._deliver(job, place, ids, finish)

    async def _step(self, job: Job, worker: Worker[ChatServer], tally: _Tally, asked: tuple[int, Child]) -> None:
        """Write one step: asked again where the server stopped and no step ends."""
        place, child = asked
        rule = self._model.stop_rule(job.sampling.stop)
        ids: tuple[int, ...] = ()
        finish: FinishReason | None = None
        cuts = True
        while finish is None:
            (reply,) = await self._ask(worker.transport, job, tally, child.seed, bytes(ids), cuts=cuts)
            below = len(job.prefix.segments) > 1
            before = self.tokenizer.table.read([*job.prefix.segments[-1].ids, *ids]) if below else b""
            new = reply.ids
            # Templates may leave out the blank line with which a turn ends so far; then it is written once more.
            while new and new[0] == ord("\n") and before.endswith(b"\n"):
                new = new[1:]
            whole = (*ids, *new)
            number, end = rule.find_end(rule.begin(job.prefix), (), whole, _unlimited(job.sampling))
            if end is not None:
                ids, finish = whole[:number], end
            elif reply.finish is not FinishReason.STOP:
                ids, finish = whole, reply.finish
            elif len(whole) == len(ids):
                cuts = False  # it stops before it writes anything; where a step ends is found here
            else:
                ids = whole
        if place in job.owed:
            self._deliver(job, place, ids, finish)

    async def _ask(
        self,
        server: ChatServer,
        job: Job,
        tally: _Tally,
        seed: int,
        written: bytes,
        *,
        num_replies: int = 1,
        cuts: bool = True,
    ) -> list[Reply]:
        """Have the conversation of a prefix, and what is written below it, gone on with."""
        sampling = job.sampling
        messages = conversation((*job.prefix.ids, *written))
        if messages is None:
            raise self._error("a chat server takes conversations: leave --prompt at auto, or use chat in the template")
        body: dict[str, Any] = {
            "model": server.model,
            "messages": messages,
            "temperature": sampling.temperature,
            server.limit: sampling.max_new_tokens,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if server.seeds:
            body["seed"] = seed & _SEED_MASK
        if num_replies > 1:
            body["n"] = num_replies
        if self.continues and cuts:
            body["stop"] = ["\n\n" if stop == BLANK_LINE else stop for stop in sampling.stop]
        if messages[-1]["role"] == "assistant":
            body |= CONTINUED
        answer = await server.client.post(f"{server.url}/chat/completions", body, job.prefix.tree)
        tally.add(answer.get("usage") if isinstance(answer, dict) else None)
        return read_replies(server, answer)[:num_replies]

    def _stream(
        self, server: ChatServer, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Sample, None]:
        raise self._error("a chat API gives no token ids")

    async def _prefill(self, server: ChatServer, prefix: Prefix) -> Read:
        raise self._error("a chat API computes no prompt by itself")

    async def _labels(self, server: ChatServer, prefix: Prefix, labels: tuple[int, ...]) -> Read:
        raise self._error("a chat API gives no probabilities of tokens by their ids")

    async def _numbers(self, server: ChatServer, prefix: Prefix, what: Literal["head", "hidden"]) -> Read:
        raise self._error("a chat API gives no states of its model")

    async def _abort(self, server: ChatServer, requests: Sequence[str]) -> None:
        """There is no way to stop one sample of several."""

    async def _close(self) -> None:
        for worker in self._workers.all:
            await worker.transport.client.aclose()


def _unlimited(sampling: Sampling) -> Sampling:
    """Where a step ends by its text alone: limits count tokens, and there are none here."""
    return replace(sampling, max_new_tokens=_NO_LIMIT, min_new_tokens=0, line_end_tokens=None)
