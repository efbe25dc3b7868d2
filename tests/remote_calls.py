"""How tests ask an engine on servers: a prompt of the contract's checkpoint, children of it, and what they get."""

import asyncio

from markov import STEP_END

from search.engines.remote.http import RequestLimits
from search.support.streams import closing
from search.types import Child, Prefix, Sampling, Segment

PROMPT = (2, 3, 4, 1)
SAMPLING = Sampling(1.0, 1.0, 12, (STEP_END,))
FAST = RequestLimits(timeout_seconds=2.0, attempts=3)


def prefix(tree="t", *more):
    return Prefix(tree, (Segment(0, PROMPT), *more))


def children(number, first=1):
    return [Child(first + i, 1000 + i) for i in range(number)]


async def write(engine, at, wanted, sampling=SAMPLING):
    async with closing(engine.generate(at, wanted, sampling)) as made:
        return [step async for step in made]


def with_engine(engine, body):
    async def main():
        try:
            return await body(engine)
        finally:
            await engine.aclose()

    return asyncio.run(main())
