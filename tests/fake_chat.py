"""A fake chat API over real HTTP: it puts a conversation into its template, and a small model goes on with the text."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from search.support.background import BackgroundLoop

BEGIN = "[assistant]"
WEEK = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"


@dataclass
class ChatScript:
    """What the server is like, and what goes wrong on it.

    Attributes:
        continues: whether it continues an assistant's turn.
        trims: whether its template strips the text of a turn, as many do.
        usage: whether it tells its usage.
        tells_stop: vLLM's or SGLang's name of what stopped it; empty for a server that does not say.
        most_choices: samples that it gives at once.
        refuses: fields of a request that it answers with 400.
        api_key: the key that every request must bring; empty for none.
        faults: answers of the next requests: a status, a pair of a status and its Retry-After, "nonsense", "html",
            "filter", "thinks" (its limit goes into thoughts), or "" for a good one.
    """

    continues: bool = False
    trims: bool = False
    usage: bool = True
    tells_stop: str = "stop_reason"
    most_choices: int = 100
    refuses: frozenset[str] = frozenset()
    api_key: str = ""
    faults: Iterator[Any] = field(default_factory=lambda: iter(()))


def write(text: str, seed: int) -> str:
    """What the model writes after a text, to its end: the week, or a story of sums."""
    said = text.rpartition(BEGIN)[2]
    if "days of the week" in text:
        return WEEK[len(said) :] if said and WEEK.startswith(said) else f"They are {WEEK}."
    luck = random.Random(f"{seed} {said}")
    written = said[:0]
    if said and not said.endswith("\n"):
        written += "\n\n"
    while luck.random() < 0.7:
        written += f"Add {luck.randrange(10)}.\n\n"
    return written + f"The answer is \\boxed{{{luck.choice('4443')}}}."


def tokens(text: str) -> list[str]:
    """Its own tokens: words with the space behind them."""
    return re.findall(r"\S+\s*|\s+", text)


class FakeChat:
    """The server; `requests` are the bodies that came in."""

    def __init__(self, script: ChatScript) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                path = lines[0].split(" ")[1]
                status, more, data = self._answer(path, headers, json.loads(content) if content else {})
                writer.write(b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, more, len(data), data))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, bytes, bytes]:
        script = self.script
        if script.api_key and headers.get("authorization") != f"bearer {script.api_key.lower()}":
            return 401, b"", self._error("Incorrect API key provided")
        if path == "/v1/models":
            return 200, b"", json.dumps({"data": [{"id": "small"}, {"id": "large"}]}).encode()
        if path != "/v1/chat/completions":
            return 404, b"", self._error(f"no {path}")
        self.requests.append(body)
        fault = next(script.faults, "")
        if isinstance(fault, tuple):
            return fault[0], b"retry-after: %d\r\n" % fault[1], self._error("slow down")
        if isinstance(fault, int):
            return fault, b"", self._error(f"scripted {fault}")
        if fault == "html":
            return 200, b"", b"<html>welcome</html>"
        if fault == "nonsense":
            return 200, b"", json.dumps({"choices": [{"text": 3}]}).encode()
        if body["model"] not in ("small", "large"):
            return 404, b"", self._error(f"The model `{body['model']}` does not exist")
        if found := sorted(script.refuses & body.keys()):
            return 400, b"", self._error(f"Unrecognized request argument supplied: {found[0]}")
        return 200, b"", json.dumps(self._complete(body, fault)).encode()

    @staticmethod
    def _error(message: str) -> bytes:
        return json.dumps({"error": {"message": message}}).encode()

    def _rendered(self, body: dict[str, Any]) -> str:
        turns = [
            (one["role"], one["content"].strip() if self.script.trims else one["content"]) for one in body["messages"]
        ]
        goes_on = self.script.continues and body.get("continue_final_message")
        text = "".join(f"[{role}]{content}" for role, content in turns)
        return text if goes_on else text + BEGIN

    def _complete(self, body: dict[str, Any], fault: str) -> dict[str, Any]:
        text = self._rendered(body)
        limit = body.get("max_tokens", body.get("max_completion_tokens", 1000))
        choices = []
        num_written = 0
        for index in range(min(body.get("n", 1), self.script.most_choices)):
            whole = "" if fault == "thinks" else write(text, body.get("seed", 0) + index)
            ends = [(whole.index(stop), stop) for stop in body.get("stop", ()) if stop in whole]
            where, stop = min(ends, default=(len(whole), None))
            pieces = tokens(whole[:where])
            finish = "length" if len(pieces) > limit or fault == "thinks" else "stop"
            num_written += limit if fault == "thinks" else min(limit, len(pieces))
            choice = {"index": index, "finish_reason": finish, "message": {"content": "".join(pieces[:limit])}}
            if fault == "filter":
                choice["finish_reason"] = "content_filter"
            if self.script.tells_stop:
                choice[self.script.tells_stop] = stop if finish == "stop" else None
            choices.append(choice)
        usage = {"prompt_tokens": len(tokens(text)), "completion_tokens": num_written}
        return {"choices": choices, **({"usage": usage} if self.script.usage else {})}


@contextmanager
def chatting(script: ChatScript | None = None) -> Iterator[FakeChat]:
    """A fake chat server on a thread of its own."""
    server, loop = FakeChat(script or ChatScript()), BackgroundLoop()
    loop.wait(server.start())
    try:
        yield server
    finally:
        loop.wait(server.stop())
        loop.stop()
