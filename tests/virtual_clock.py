"""Coroutines on a virtual clock, so that waiting costs nothing and seconds are exact."""

import asyncio

from ets.embedders.tfidf import TfidfEmbedder
from search.engines.virtual_time import VirtualClock


def timed(coroutine):
    """What a coroutine returns, and the seconds that it waited."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        value = runner.run(coroutine)
        return value, runner.get_loop().time()


class Embedded:
    """The embeddings of a level without a thread, which a virtual clock would not see, nor a fake engine wait for."""

    name = "embedding"

    async def compute(self, tree, nodes):
        return list(TfidfEmbedder().embed([node.text.strip() for node in nodes]))
