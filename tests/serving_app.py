"""The server's routes over the fake engine, called in this process: what its tests share."""

import asyncio
from contextlib import asynccontextmanager

from fake_engine import FakeEngine, Fault
from serve_client import Exchange, chat

from search.config import SearchSettings
from search.serve.app import make_app
from search.serve.service import ServeLimits, Service
from search.setup.routing import Engines

TEXT = "Add 3."
CHAT = "/v1/chat/completions"


class Running:
    """An application with its service and its one engine."""

    def __init__(self, service, app, engine):
        self.service, self.app, self.engine = service, app, engine

    def exchange(self, method, path, body=b"", **headers):
        return Exchange(self.app, method, path, body, headers)

    async def get(self, path, **headers):
        return await self.exchange("GET", path, **headers).send()

    async def ask(self, text=TEXT, **fields):
        return await self.exchange("POST", CHAT, {**chat(text), **fields}).send()

    async def complete(self, prompt, **fields):
        body = {"model": "mini-target", "prompt": prompt, **fields}
        return await self.exchange("POST", "/v1/completions", body).send()

    @property
    def held(self):
        return sum(self.engine.usage(call.prefix.tree).kv_tokens_held for call in self.engine.calls)

    async def metrics(self):
        lines = (await self.get("/metrics")).content.decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line[:1] != "#")


@asynccontextmanager
async def running(keys=(), engine=None, limits=None, origins=(), log=None, **settings):
    engine = engine or FakeEngine()
    chosen = SearchSettings(**{"prm": "none", "method": "beam", "width": 4, "vote": "majority", **settings})
    service = Service(chosen, limits or ServeLimits(max_width=8, max_tokens=1024), engines=Engines(policy=engine))
    app = make_app(service, keys, log, origins)
    async with app.router.lifespan_context(app):
        yield Running(service, app, engine)


def served(test):
    """Run a test of one coroutine, its server at its default settings."""

    def run():
        async def whole():
            async with running() as server:
                await test(server)

        asyncio.run(whole())

    run.__name__ = test.__name__
    return run


def slow(num_hanging=99):
    return FakeEngine(faults=[Fault("generate", call, kind="hang") for call in range(1, num_hanging + 1)])


async def settle(condition):
    """Let the loop go on until something is so."""
    while not condition():
        await asyncio.sleep(0.001)
