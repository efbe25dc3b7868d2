"""A server that speaks SGLang's native API and answers at once, so that what a search costs is the client's own work.

Run as `python -m search.studies.instant PORT_FILE SCRIPT`; it writes its port there and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

STEPS = 8
"""Steps of a trajectory; the last one ends its text."""


class Script(NamedTuple):
    """What the server writes.

    Attributes:
        mark: the id that begins each step, and stands nowhere else.
        letters: ids of which two follow, other ones each time, so that no two steps say the same.
        step: ids that end a step.
        last: ids that end the last step, and the text.
        labels: the good label and the bad one.
    """

    mark: int
    letters: tuple[int, ...]
    step: tuple[int, ...]
    last: tuple[int, ...]
    labels: tuple[int, int]


class InstantServer:
    """Requests in, answers that are made at once out."""

    def __init__(self, script: Script) -> None:
        """Write by `script`; the steps of all connections are counted."""
        self._script, self._numbers = script, itertools.count()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every request of a connection, one after the other."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
                lengths = [int(line[15:]) for line in lines if line[:15].lower() == b"content-length:"]
                body = await reader.readexactly(sum(lengths))
                writer.write(self._answer(first.split(b" ", 2)[1], body))
        writer.close()

    def _answer(self, path: bytes, body: bytes) -> bytes:
        if path == b"/generate":
            request = json.loads(body)
            if request.get("stream"):
                return _response(self._samples(request), b"text/event-stream")
            return _response(json.dumps(self._reads(request)).encode())
        if path == b"/v1/loads":
            return _response(b'{"loads": [{"num_used_tokens": 0}]}')
        return _response(b"{}")

    def _samples(self, request: dict[str, Any]) -> bytes:
        prompt, script = request["input_ids"], self._script
        ending = script.last if prompt.count(script.mark) >= STEPS - 1 else script.step
        parts = []
        for index in range(request["sampling_params"].get("n", 1)):
            number = next(self._numbers)
            letters = [script.letters[digit % len(script.letters)] for digit in (number, number // len(script.letters))]
            ids = [script.mark, *letters, *ending]
            parts.append({"output_ids": ids, "index": index, "meta_info": _meta(len(prompt), len(ids), "stop")})
        return b"".join(b"data: %b\n\n" % json.dumps(part).encode() for part in parts) + b"data: [DONE]\n\n"

    def _reads(self, request: dict[str, Any]) -> Any:
        many = isinstance(request["input_ids"][0], list)
        good, bad = self._script.labels
        answers = []
        for prompt in request["input_ids"] if many else [request["input_ids"]]:
            meta = _meta(len(prompt), 0, "length")
            # Some number from -3 to 3 by the content of the prompt, as rewards are.
            bent = (sum(prompt[-12:]) * 37 % 61) / 10 - 3
            meta["output_token_ids_logprobs"] = [[[min(0.0, bent) - 1, good, None], [-max(0.0, bent) - 1, bad, None]]]
            answers.append({"output_ids": [], "meta_info": meta})
        return answers if many else answers[0]


def _meta(prompt_tokens: int, completion_tokens: int, finish: str) -> dict[str, Any]:
    return {
        "id": "0",
        "finish_reason": {"type": finish},
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cached_tokens": prompt_tokens - 1,
    }


def _response(content: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(content), content)


async def serve(port_file: Path, script: Script) -> None:
    """Serve until cancelled; the port stands in `port_file` once it does."""
    server = await asyncio.start_server(InstantServer(script).connection, "127.0.0.1", 0)
    part = port_file.with_suffix(".part")
    part.write_text(str(server.sockets[0].getsockname()[1]), encoding="utf-8")
    part.replace(port_file)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Script(*json.loads(sys.argv[2]))))
