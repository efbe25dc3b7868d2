"""A fake SGLang server over real HTTP: its native API and `/v1/completions`, over a model with known logits.

It caches as SGLang does: by content, filled when a prompt is through the model, at most all but a prompt's last token;
prompts that are cold and arrive together do not share. What goes wrong, and how slow it is, is said from outside.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fake_engine import FakeEngine
from markov import EOS, STEP_END, FakeModel, LabelModel, MarkovModel, hashed_hidden, hashed_reward

from search.support.background import BackgroundLoop
from search.support.streams import closing
from search.types import Child, FinishReason, Generation, Prefix, Sampling, Segment

WORDS = (EOS, STEP_END, "How", " many", "?", *(f" w{number}" for number in range(15)), " x", "y")
"""The vocabulary of `contract_model`, by ids."""

Write = Callable[[bytes], Awaitable[None]]


def word_model() -> MarkovModel:
    """Writes words at random; a step ends, or a text, within some ten of them."""
    row = {STEP_END: 0.12, EOS: 0.08, **dict.fromkeys(WORDS[2:], 0.8 / 20)}
    return MarkovModel.from_probabilities(WORDS, {}, row)


@dataclass
class Script:
    """What the server is like, and what goes wrong on it.

    Attributes:
        context: tokens of its context.
        seeds: whether samples depend on their seeds.
        openai_ids: whether it gives token ids on `/v1/completions`; label names are then ids too.
        seconds_per_request: how slow it is.
        held: whether what it writes stands still after its first sign.
        statuses: answers of the next requests that compute: a status, "stall", "nonsense", "cut", "broken" (a stream is
            cut when its first sample has ended), the seconds by which a good one comes later, or "" for a good one.
        hidden: whether it was started with --enable-return-hidden-states.
        hidden_mode: its --return-hidden-states-mode; None for a server of before there was one.
        api_key: the key that every request must bring; empty for none.
        prompt_tail: whether it puts the prompt's last token before what it wrote.
        logprobs: whether it gives the log-probabilities of what it writes.
        head: outputs of its reward head; None for a model that writes.
        step_tag: the token at which alone vLLM gives them; None for every token.
        tokenize: its tokenizer; None for a server that does not tell.
        model_type, radix, capacity: what it says of itself.
    """

    context: int = 103
    seeds: bool = False
    openai_ids: bool = True
    seconds_per_request: float = 0.0
    held: bool = False
    statuses: Iterator[int | float | str] = field(default_factory=lambda: iter(()))
    hidden: bool = True
    hidden_mode: str | None = None
    api_key: str = ""
    prompt_tail: bool = False
    logprobs: bool = True
    head: Callable[[Any], tuple[float, ...]] | None = None
    step_tag: int | None = None
    model_type: str = "llama"
    radix: bool = True
    capacity: int = 65536
    tokenize: Callable[[str], Sequence[int]] | None = None


class RefusedError(Exception):
    """A request that the server answers with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeServer:
    """One server on a port of the loopback.

    Attributes:
        calls: how often each path was asked.
        prefilled: prompt tokens that went through the model.
        in_flight, most_in_flight: requests that compute, now and at most.
        aborted: requests that ended because their client left or asked for it.
        keys: routing keys seen, in order.
    """

    def __init__(self, script: Script | None = None, model: FakeModel | None = None) -> None:
        self.script = script or Script()
        self.model = model or word_model()
        self.engine = FakeEngine(self.model, context_tokens=10**6)
        self.calls: Counter[str] = Counter()
        self.keys: list[str] = []
        self.prefilled = self.in_flight = self.most_in_flight = self.aborted = 0
        self._cache: set[tuple[int, ...]] = set()
        self._names = itertools.count()
        self._stopped: set[str] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        assert self._server is not None
        # A connection that is just being accepted must be open before the port is closed: Python would lose it else.
        await asyncio.sleep(0.03)
        self._server.close()
        for _ in range(2):
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the last connections go

    # HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                _, path, _ = head.split(b" ", 2)
                fields = dict(line.lower().split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
                body = await reader.readexactly(int(fields.get(b"content-length", 0)))
                self.keys.append(fields.get(b"x-smg-routing-key", b"").decode())
                wanted = f"bearer {self.script.api_key}" if self.script.api_key else ""
                if fields.get(b"authorization", b"").decode() != wanted:
                    writer.write(b"HTTP/1.1 401 X\r\ncontent-length: 26\r\n\r\n" + b'{"error": "Unauthorized."}')
                    await writer.drain()
                    continue
                work = asyncio.create_task(self._answer(path.decode(), json.loads(body or b"{}"), writer))
                gone = asyncio.create_task(reader.read(1))
                try:
                    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not work.done():
                        self.aborted += 1
                        return
                    await work
                    gone.cancel()
                    await asyncio.wait({gone})
                finally:
                    for one in (work, gone):
                        one.cancel()
                    await asyncio.gather(work, gone, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.calls[path] += 1

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        async def send(status: int, value: Any) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            await write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))

        computes = path in ("/generate", "/encode", "/v1/completions", "/pooling")
        if not computes:
            status, value = self._say(path, body)
            await send(status, value)
            return
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            fault = next(self.script.statuses, "")
            if fault == "stall":
                await asyncio.Event().wait()
            if fault == "nonsense":
                return await send(200, b"<html>welcome</html>")
            if fault == "cut":
                await write(b"HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\n{")
                writer.close()
                return None
            if isinstance(fault, int):
                return await send(fault, {"error": {"message": f"scripted {fault}"}})
            await asyncio.sleep(self.script.seconds_per_request + (fault if isinstance(fault, float) else 0.0))
            if path == "/generate" and body.get("stream"):
                await self._stream(body, write, fault == "broken")
            elif path == "/generate":
                await send(200, await self._generate(body))
            elif path == "/encode":
                await send(200, await self._encode(body))
            elif path == "/pooling":
                await send(200, self._pooling(body))
            else:
                await send(200, await self._completions(body))
        except RefusedError as refused:
            await send(refused.status, {"error": {"message": str(refused)}})
        finally:
            self.in_flight -= 1

    def _say(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """What needs no model."""
        script = self.script
        if path == "/server_info":
            return 200, {
                "model_path": "fake",
                "version": "0.5.23",
                "max_req_input_len": script.context - 6,
                "max_total_num_tokens": script.capacity,
                "disable_radix_cache": not script.radix,
                "page_size": 1,
                "dtype": "float32",
                "enable_return_hidden_states": script.hidden,
                **({} if script.hidden_mode is None else {"return_hidden_states_mode": script.hidden_mode}),
            }
        if path == "/model_info":
            architectures = ["LlamaForCausalLM"]
            generation = {"is_generation": script.head is None, "model_type": script.model_type}
            return 200, {"model_path": "fake", "architectures": architectures, **generation}
        if path == "/v1/loads":
            return 200, {"loads": [{"num_used_tokens": 7 * self.in_flight}]}
        if path == "/v1/models":
            return 200, {"data": [{"id": "fake", "owned_by": "vllm", "max_model_len": script.context - 6}]}
        if path == "/tokenize" and script.tokenize is not None:
            return 200, {"tokens": list(script.tokenize(body["prompt"]))}
        if path == "/flush_cache":
            self._cache.clear()
            return 200, b"Cache flushed.\nPlease check backend logs for more details.\n"
        if path == "/abort_request":
            self._stopped.add(body["rid"])
            return 200, {}
        return 404, {"error": {"message": f"no {path}"}}

    # The model

    def _prefill(self, ids: tuple[int, ...]) -> int:
        """Put a prompt through the model; how much of it was cached; `_keep` has it found later."""
        if not self.script.radix:
            self.prefilled += len(ids)
            return 0
        cached = max((n for n in range(len(ids)) if ids[:n] in self._cache), default=0)
        self.prefilled += len(ids) - cached
        return cached

    def _keep(self, ids: tuple[int, ...]) -> None:
        self._cache.update(ids[:n] for n in range(1, len(ids) + 1))

    def _check(self, ids: tuple[int, ...], new: int = 0) -> None:
        if not ids or min(ids) < 0 or max(ids) >= len(self.model.vocabulary):
            raise AssertionError(f"the real server dies of these ids: {ids}")
        if len(ids) >= self.script.context - 6:
            longest = self.script.context - 6
            raise RefusedError(400, f"Input length ({len(ids)}) exceeds the maximum allowed length ({longest})")
        if len(ids) + new > self.script.context:
            raise RefusedError(400, "Requested token count exceeds the model's maximum context length")

    async def _samples(
        self, prompts: list[tuple[int, ...]], params: list[dict[str, Any]]
    ) -> AsyncIterator[tuple[int, str, tuple[int, ...], str | None, Any, int, tuple[float, ...]]]:
        """First sign and end of each sample: (index, name, ids, finish, matched, cached tokens, log-probabilities)."""
        for ids, one in zip(prompts, params, strict=True):
            self._check(ids, one.get("max_new_tokens", 0))
        number = params[0].get("n", 1)
        if number > 1:
            prompts, params = prompts * number, params * number
            self._prefill(prompts[0])
            self._keep(prompts[0])
        cached = [self._prefill(ids) for ids in prompts]
        await asyncio.sleep(0)
        for ids in prompts:
            self._keep(ids)
        names = [f"r{next(self._names)}" for _ in prompts]
        out: asyncio.Queue[Any] = asyncio.Queue()

        async def write(index: int) -> None:
            ids, one, name = prompts[index], params[index], names[index]
            seed = one.get("sampling_seed") if self.script.seeds else None
            child = Child(1, random.getrandbits(62) if seed is None else seed)
            sampling = Sampling(
                one.get("temperature", 1.0), one.get("top_p", 1.0), max(1, one.get("max_new_tokens", 128)), (),
                logprobs=True,
            )  # fmt: skip
            if one.get("max_new_tokens") == 0:
                out.put_nowait((index, name, (), "length", None, cached[index], ()))
                return
            prefix = Prefix(f"{name}", (Segment(0, ids),))
            async with closing(self.engine.generate(prefix, [child], sampling)) as steps:
                async for whole in steps:
                    step, stop = self._cut(whole, one.get("stop") or ())
                    assert step.logprobs is not None
                    logprobs = step.logprobs[: len(step.ids)]
                    out.put_nowait((index, name, step.ids[:1], None, None, cached[index], logprobs[:1]))
                    await asyncio.sleep(0)
                    while self.script.held and name not in self._stopped:
                        await asyncio.sleep(0.01)
                    if name in self._stopped:
                        out.put_nowait((index, name, step.ids[:1], "abort", None, cached[index], ()))
                        self.aborted += 1
                        return
                    self._keep((*ids, *step.ids[:-1]))
                    cut = step.finish is FinishReason.LENGTH or len(step.ids) >= sampling.max_new_tokens
                    matched = 0 if step.finish is FinishReason.EOS else stop
                    finish, found = ("length", None) if cut else ("stop", matched)
                    out.put_nowait((index, name, step.ids, finish, found, cached[index], logprobs))
            await self.engine.release(name)

        tasks = [asyncio.create_task(write(index)) for index in range(len(prompts))]
        try:
            left = len(tasks)
            while left:
                sample = await out.get()
                left -= sample[3] is not None
                yield sample
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self, whole: Generation, stops: Sequence[str]) -> tuple[Generation, str]:
        """A text up to the token in which it has a stop string, and that string: a server knows nothing of steps."""
        for number in range(1, len(whole.ids) + 1):
            text = self.engine.tokenizer.decode(whole.ids[:number])
            for stop in stops:
                if stop in text:
                    return replace(whole, ids=whole.ids[:number], finish=FinishReason.STOP), stop
        return whole, ""

    def _event(self, sample: Any, body: dict[str, Any], prompt_tokens: int) -> dict[str, Any]:
        index, name, ids, finish, matched, cached, logprobs = sample
        reason = None if finish is None else {"type": finish, **({} if matched is None else {"matched": matched})}
        meta = {
            "id": name, "finish_reason": reason, "prompt_tokens": prompt_tokens,
            "completion_tokens": len(ids), "cached_tokens": cached,
        }  # fmt: skip
        if body.get("return_logprob") and self.script.logprobs:
            meta["output_token_logprobs"] = [[one, token, None] for one, token in zip(logprobs, ids, strict=False)]
        return {"text": "", "output_ids": list(ids), "meta_info": meta, "index": index}

    @staticmethod
    def _prompts(body: dict[str, Any]) -> tuple[list[tuple[int, ...]], list[dict[str, Any]]]:
        ids, params = body["input_ids"], body.get("sampling_params", {})
        if ids and isinstance(ids[0], list):
            prompts = [tuple(one) for one in ids]
            return prompts, params if isinstance(params, list) else [params] * len(prompts)
        return [tuple(ids)], [params]

    async def _stream(self, body: dict[str, Any], write: Write, broken: bool) -> None:
        prompts, params = self._prompts(body)
        started = False
        async with closing(self._samples(prompts, params)) as samples:
            async for sample in samples:
                if not started:
                    await write(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
                    started = True
                event = self._event(sample, body, len(prompts[0]))
                if self.script.prompt_tail:
                    event["output_ids"] = [prompts[0][-1], *event["output_ids"]]
                data = b"data: %b\n\n" % json.dumps(event).encode()
                await write(b"%x\r\n%b\r\n" % (len(data), data))
                if broken and sample[3] is not None:
                    raise ConnectionError
        await write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async def _generate(self, body: dict[str, Any]) -> Any:
        prompts, params = self._prompts(body)
        answers: dict[int, dict[str, Any]] = {}
        async with closing(self._samples(prompts, params)) as samples:
            async for sample in samples:
                if sample[3] is not None:
                    answers[sample[0]] = self._event(sample, body, len(prompts[0]))
        labels = body.get("token_ids_logprob")
        for index, ids in enumerate(prompts):
            meta = answers[index]["meta_info"]
            if labels:
                wanted = labels[index] if isinstance(labels[0], list) else labels
                logprobs = await self.engine.label_logprobs(Prefix("l", (Segment(0, ids),)), wanted)
                meta["output_token_ids_logprobs"] = [
                    [[max(-1e9, value), label, None] for value, label in zip(logprobs, wanted, strict=True)]
                ]
            asked, mode = body.get("return_hidden_states"), self.script.hidden_mode
            if asked is True and mode == "last":
                raise RefusedError(400, "The requested return_hidden_states mode exceeds the server maximum `last`.")
            if asked == "last":
                meta["hidden_states"] = [list(hashed_hidden(ids))]
            elif asked and self.script.hidden:
                meta["hidden_states"] = [[list(hashed_hidden(ids))]]
        found = [answers[index] for index in sorted(answers)]
        return found if isinstance(body["input_ids"][0], list) else found[0]

    async def _encode(self, body: dict[str, Any]) -> Any:
        if self.script.head is None:
            raise RefusedError(400, "this model does not appear to be an embedding model")
        prompts, _ = self._prompts(body)
        answers = []
        for ids in prompts:
            self._check(ids)
            cached = self._prefill(ids)
            self._keep(ids)
            answers.append({"embedding": list(self.script.head(ids)), "meta_info": {"cached_tokens": cached}})
        return answers if isinstance(body["input_ids"][0], list) else answers[0]

    def _pooling(self, body: dict[str, Any]) -> Any:
        """As vLLM answers for a model with a head: its outputs at every token of the prompt, or at the step tags."""
        ids, script = tuple(body["input"]), self.script
        if script.head is None or body["task"] != "token_classify" or body["use_activation"]:
            raise RefusedError(400, "The model does not support Pooling API")
        self._check(ids)
        ends = [end for end in range(1, len(ids) + 1) if script.step_tag in (None, ids[end - 1])]
        rows = [list(script.head(ids[:end])) for end in ends]
        return {"object": "list", "data": [{"index": 0, "object": "pooling", "data": rows}]}

    async def _completions(self, body: dict[str, Any]) -> Any:
        """As vLLM answers: ids where they are asked for, tokens named by their ids, nothing about the cache."""
        if self.script.head is not None:
            raise RefusedError(404, "The model does not support Completions API")
        params = {
            "temperature": body.get("temperature", 1.0), "top_p": body.get("top_p", 1.0), "n": body.get("n", 1),
            "max_new_tokens": body["max_tokens"], "stop": body.get("stop"),
        }  # fmt: skip
        ids = tuple(body["prompt"])
        samples = [dict(params, n=1, sampling_seed=body.get("seed", 0) + i) for i in range(body.get("n", 1))]
        choices: dict[int, dict[str, Any]] = {}
        async with closing(self._samples([ids] * len(samples), samples)) as stream:
            async for index, _, made, finish, matched, _, written in stream:
                if finish is not None:
                    stop_reason = matched if isinstance(matched, str) else None
                    choices[index] = {"index": index, "text": "", "finish_reason": finish, "stop_reason": stop_reason}
                    choices[index]["token_ids"] = list(made) if self.script.openai_ids else None
                    if body.get("logprobs") and self.script.logprobs:
                        choices[index]["logprobs"] = {"token_logprobs": written}
        if body.get("logprobs"):
            logprobs = await self.engine.label_logprobs(Prefix("l", (Segment(0, ids),)), range(len(WORDS)))
            best = sorted(range(len(WORDS)), key=lambda token: -logprobs[token])[: body["logprobs"]]
            top = [{f"token_id:{t}": max(-1e9, logprobs[t]) for t in best}]
            choices[0].setdefault("logprobs", {})["top_logprobs"] = top
        return {"choices": [choices[index] for index in sorted(choices)]}


def label_model(good: str = " x", bad: str = "y") -> LabelModel:
    """A reward model over the same words."""
    return LabelModel(hashed_reward, WORDS, good, bad)


@contextmanager
def serving(script: Script | None = None, model: FakeModel | None = None) -> Iterator[FakeServer]:
    """A fake server on a thread of its own."""
    server, loop = FakeServer(script, model), BackgroundLoop()
    loop.wait(server.start())
    try:
        yield server
    finally:
        loop.wait(server.stop())
        loop.stop()


async def main(port: int, context: int, seconds_per_request: float) -> None:
    """Serve until killed; the address is the first line of output."""
    server = FakeServer(Script(context, seeds=True, seconds_per_request=seconds_per_request))
    await server.start(port)
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
