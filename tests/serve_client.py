"""Two ways to a server of searched answers: its application in this process, and `ets serve` in one of its own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

PROBLEM = "Ben has 13 coins. He gives 4 away. He loses 3. He sells 4. How many coins are left in the end?"


def chat(text=PROBLEM, model="mini-target", **fields):
    """The body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


class Exchange:
    """One request to an ASGI application; `leave` is the client hanging up."""

    def __init__(self, app, method, path, body=b"", headers=None):
        self.app, self.method = app, method
        self.path, _, self.query = path.partition("?")
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {"content-type": "application/json", **(headers or {})}
        self.status, self.answered, self.content = None, {}, b""
        self._left, self._asked = asyncio.Event(), False
        self.arrived = asyncio.Condition()

    def leave(self):
        self._left.set()

    async def send(self):
        """To the end of the answer."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, self._receive, self._take)
        return self

    async def until(self, text):
        """Wait until `text` stands in what arrived."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: text.encode() in self.content)

    async def _receive(self):
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _take(self, message):
        async with self.arrived:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.answered = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.content += message.get("body", b"")
            self.arrived.notify_all()

    @property
    def json(self):
        return json.loads(self.content)

    @property
    def error(self):
        """The one error of the answer, seen to have OpenAI's shape."""
        (error,) = self.json.values()
        assert self.json.keys() == {"error"} and error.keys() == {"message", "type", "param", "code"}
        assert error["message"] and error["type"]
        return error

    @property
    def events(self):
        """The objects of a stream that came to its end."""
        lines = [line for line in self.content.decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


class Server:
    """A running `ets serve`."""

    def __init__(self, process, url):
        self.process, self.url = process, url
        self.said = []

    def metrics(self):
        """Samples of `/metrics` by their name with its labels."""
        import httpx

        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}

    def end(self, number=signal.SIGTERM, timeout=120):
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def ets_serve(*args, env=None, before=None):
    """`ets serve` on a free port, ready; killed on leaving if it still runs. `before`: called in its process first."""
    command = [sys.executable, "-m", "search.cli", "serve", "--port", "0", *map(str, args)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(env or {})},
        preexec_fn=before,
    )
    server, reader = None, None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"serving \S+ at (http://\S+)/v1", line):
                server = Server(process, found[1])
                break
        assert server is not None, "".join(lines)
        reader = threading.Thread(target=lambda: server.said.extend(process.stderr), daemon=True)
        reader.start()
        yield server
    finally:
        process.kill()
        process.wait()
        if reader is not None:
            reader.join()
        process.stderr.close()
