"""Merged streams: everything arrives, errors end all, closing stops all."""

import asyncio
from contextlib import aclosing

import pytest

from search.support.streams import closing, merge


async def count(to, delay=0.0, ended=None, error_at=None):
    try:
        for i in range(to):
            await asyncio.sleep(delay)
            if i == error_at:
                raise ValueError("broken")
            yield i
    finally:
        if ended is not None:
            ended.append(to)


@pytest.mark.parametrize("sizes", [[], [3], [1, 0, 4, 2]])
def test_everything_arrives(sizes):
    async def main():
        return sorted([item async for item in merge([count(size) for size in sizes])])

    assert asyncio.run(main()) == sorted(i for size in sizes for i in range(size))


def test_the_quick_do_not_wait_for_the_slow():
    async def main():
        return [item async for item in merge([count(1, 0.2), count(3)])]

    assert asyncio.run(main()) == [0, 1, 2, 0]


def test_an_error_ends_all_streams():
    ended = []

    async def main():
        with pytest.raises(ValueError, match="broken"):
            async for _ in merge([count(1000, 0.001, ended), count(3, 0, ended, error_at=1)]):
                pass

    asyncio.run(main())
    assert sorted(ended) == [3, 1000]


@pytest.mark.parametrize("num_streams", [1, 3])
def test_closing_stops_all_streams(num_streams):
    ended = []

    async def main():
        async with aclosing(merge([count(10**6, 0.001, ended) for _ in range(num_streams)])) as merged:
            async for _ in merged:
                break
        assert len(ended) == num_streams

    asyncio.run(main())


def test_closing_is_for_any_iterator():
    class Plain:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise StopAsyncIteration

    async def main():
        async with closing(Plain()) as stream:
            return [item async for item in stream]

    assert asyncio.run(main()) == []
