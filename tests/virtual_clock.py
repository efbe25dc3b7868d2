"""Coroutines on a virtual clock, so that waiting costs nothing and seconds are exact."""

import asyncio

from search.engines.virtual_time import VirtualClock


def timed(coroutine):
    """What a coroutine returns, and the seconds that it waited."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        value = runner.run(coroutine)
        return value, runner.get_loop().time()
