"""The in-process engine serves what is asked ahead after all that is wanted, and it comes out the same."""

import asyncio
from dataclasses import replace

import pytest
from local_models import engine, run

from search.support.streams import closing
from search.types import Ahead, Child, Prefix, Sampling, Segment

SAMPLING = Sampling(max_new_tokens=24, stop=())
PREFIX = Prefix("t", (Segment(0, tuple(range(10, 30))),))
REAL = [Child(key, key) for key in (1, 2)]
LATER = [Child(key, key) for key in (3, 4)]

pytestmark = pytest.mark.usefixtures("attention")


async def write(model, prefix, children, done):
    async with closing(model.generate(prefix, children, SAMPLING)) as steps:
        async for step in steps:
            done.append((step.key, step.ids))


async def alone(children):
    model, done = engine(), []
    await write(model, PREFIX, children, done)
    await model.aclose()
    return dict(done)


async def together(marks, **options):
    """Two steps asked for ahead, and two that are wanted a little later; in the order in which they ended."""
    model, done = engine(**options), []
    early = [
        asyncio.create_task(write(model, replace(PREFIX, ahead=mark), [child], done))
        for mark, child in zip(marks, LATER, strict=True)
    ]
    while not all(mark is None or mark.sampled_tokens > 2 for mark in marks):
        await asyncio.sleep(0.001)
    await write(model, PREFIX, REAL, done)
    await model.release("t", {child.key for child in REAL})
    for mark in marks:
        mark.wanted = True
    await asyncio.gather(*early)
    usage = model.usage("t")
    await model.aclose()
    return done, usage


@pytest.mark.parametrize("room", [{"max_rows": 2}, {"max_kv_tokens": 96}])
def test_a_wanted_step_takes_the_place_of_one_that_is_written_ahead(room):
    marks = [Ahead(), Ahead()]
    done, usage = run(together(marks, **room))
    assert {1, 2} <= {key for key, _ in done[:3]}, "one of the others at most ended before the wanted ones"
    assert dict(done) == run(alone(REAL + LATER))
    assert [mark.sampled_tokens for mark in marks] == [len(dict(done)[key]) for key in (3, 4)]
    assert usage.sampled_tokens == sum(len(ids) for _, ids in done)


def test_a_step_that_is_wanted_after_all_is_served_like_any_other():
    marks = [Ahead(wanted=True), Ahead(wanted=True)]
    done, _ = run(together(marks, max_rows=2))
    assert [key for key, _ in done[:2]] == [3, 4], "they came first, and nothing takes their places"


def test_what_was_computed_ahead_is_counted_on_its_mark():
    marks = [Ahead(), Ahead()]
    done, usage = run(together(marks))
    own = sum(mark.computed_tokens for mark in marks)
    assert own == sum(len(ids) - 1 for key, ids in done if key in (3, 4))
    assert sum(mark.prefix_tokens for mark in marks) == len(PREFIX.ids), "they came first"
    assert usage.computed_tokens == len(PREFIX.ids) + sum(len(ids) - 1 for _, ids in done)
