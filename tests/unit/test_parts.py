"""Sessions: who shares one, when it is closed, and what a closing that fails leaves behind."""

import asyncio

import pytest
from fake_engine import FakeEngine
from routing import PROBLEM, PROMPT, Parts
from test_driver import make_driver, make_scorer

from arbitrage.walks import DRAFT
from search.errors import EngineError
from search.loop.writer import ModelWriter
from search.parts import Stateless
from search.protocols import AheadSession, PacedSession, StateSession
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Sampling, Step, WriteJob


def tree_of(engine, name="p#0"):
    return SearchTree(name, engine.tokenizer.encode(PROMPT), PROMPT)


async def write(session, tree):
    node = tree.add_child(ROOT)
    return [step async for step in session.write(tree, [WriteJob(ROOT, (node,), 30)], Sampling())]


def test_who_opens_a_tree_that_is_open_shares_its_session_and_the_last_one_closes_it():
    async def main():
        engine = FakeEngine()
        writer, tree, other = ModelWriter(engine), tree_of(engine), tree_of(engine, "p#1")
        reading = asyncio.Event()

        async def read():
            async with writer.open(tree) as session:
                reading.set()
                await asyncio.Event().wait()
            return session

        async with writer.open(tree) as session, writer.open(other) as second:
            assert session is not second
            reader = asyncio.create_task(read())
            await reading.wait()
            async with writer.open(tree) as again:
                assert again is session
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            for one, its in ((session, tree), (second, other)):
                await write(one, its)
            assert all(engine.usage(name).kv_tokens_held for name in (tree.id, other.id))
        assert not engine._trees and not writer._open
        async with writer.open(tree) as anew:
            assert anew is not session and anew.usage()["policy"].num_calls == 0

    asyncio.run(main())


def test_what_a_session_can_do_is_what_its_writer_says():
    async def main():
        parts = Parts()
        for writer in (ModelWriter(parts.target), parts.writer("never")):
            async with writer.open(tree_of(parts.target)) as session:
                for flag, kind in (("writes_ahead", AheadSession), ("gives_states", StateSession)):
                    assert getattr(writer, flag, False) == isinstance(session, kind)
                assert isinstance(session, PacedSession) == isinstance(writer, ModelWriter)

    asyncio.run(main())


def test_a_part_that_cannot_give_back_keeps_no_other_from_it():
    class Stuck(FakeEngine):
        async def release(self, tree, keys=None):
            if keys is None:
                raise EngineError("stuck")

    async def main(writing, scorer):
        with pytest.raises(EngineError, match="stuck"):
            await make_driver(engine=writing, scorer=scorer).solve(PROBLEM, PROMPT)

    scorer = make_scorer()
    asyncio.run(main(Stuck(), scorer))
    assert scorer.engine.calls and not scorer.engine._trees
    engine, scorer = FakeEngine(), make_scorer()
    scorer.engine.release = Stuck().release
    asyncio.run(main(engine, scorer))
    assert engine.calls and not engine._trees


def test_a_part_without_state_serves_all_trees_at_once():
    async def main():
        part, engine = Stateless(), FakeEngine()
        async with part.open(tree_of(engine)) as one, part.open(tree_of(engine, "p#1")) as other:
            assert one is other is part and not part.usage() and not part.engines
            await one.release({1})

    asyncio.run(main())


def test_what_is_given_up_on_a_fork_is_no_other_node_of_the_same_number():
    """A step written ahead and given up had the router's cache of a real step freed, whose id was the same."""

    async def main():
        parts = Parts()
        ids = parts.target.tokenizer.encode
        tree = tree_of(parts.target)
        fork = tree.fork()
        fork.add_child(ROOT)
        given_up = fork.add_child(ROOT)
        tree.add_child(ROOT)
        node = tree.add_child(tree.write(Step(tree.children(ROOT)[0], ids("Add 3.\n\n"), "Add 3.\n\n",
                                              FinishReason.STOP, DRAFT)).id)  # fmt: skip
        assert node == given_up and tree.keys([node]) != fork.keys([given_up])
        async with parts.router("rsd", threshold=0.0).open(tree) as session:
            await session.route(tree, Step(node, ids("Take 4.\n\n"), "Take 4.\n\n", FinishReason.STOP, DRAFT), None)
            held = session.usage()["router"].kv_tokens_held
            await session.release(fork.keys([given_up]))
            assert session.usage()["router"].kv_tokens_held == held
            await session.release(tree.keys([node]))
            assert session.usage()["router"].kv_tokens_held < held

    asyncio.run(main())
