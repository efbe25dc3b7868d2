"""What a server does with searches that run: steps that are decided, who watches, the gate, and those it keeps."""

import asyncio

import pytest
from fake_engine import FakeEngine

from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import Beam, BestOfN, Rebase
from search.serve.decided import DecidedSteps
from search.serve.errors import ApiError
from search.serve.gate import Gate
from search.serve.jobs import Jobs
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Problem, Step

# Decided steps


def grow(tree, parent, num_children=1, write=True):
    children = [tree.add_child(parent) for _ in range(num_children)]
    for child in children if write else ():
        tree.write(Step(child, (child,), f"step {child}. ", FinishReason.STOP, "m"))
    return children


def numbers(nodes):
    return [node.id for node in nodes]


def test_a_step_is_decided_when_all_live_leaves_share_it():
    tree, steps = SearchTree("t", (1,), "p"), DecidedSteps()
    one, other = grow(tree, ROOT, 2)
    assert steps.advance(tree) == []
    tree.prune(other, "not kept")
    assert numbers(steps.advance(tree)) == [one]  # alone, it is what all that follows grows from
    (two,) = grow(tree, one, write=False)
    assert steps.advance(tree) == []  # nobody knows yet what it says
    tree.write(Step(two, (9,), "two", FinishReason.STOP, "m"))
    assert numbers(steps.advance(tree)) == [two]
    left, right = grow(tree, two, 2)
    assert steps.advance(tree) == []
    tree.finish(left, "end of text")
    (deep,) = grow(tree, right)
    assert steps.advance(tree) == []  # a finished leaf may win yet
    tree.finish(deep, "end of text")
    assert numbers(steps.rest(tree, deep)) == [right, deep]
    assert steps.rest(tree, deep) == []


def test_failed_leaves_decide_nothing_and_a_dead_tree_has_no_more_steps():
    tree, steps = SearchTree("t", (1,), "p"), DecidedSteps()
    one, other = grow(tree, ROOT, 2)
    tree.fail(other, "broke")
    assert numbers(steps.advance(tree)) == [one]
    (two,) = grow(tree, one)
    tree.fail(two, "broke")
    assert steps.advance(tree) == []


@pytest.mark.parametrize("policy", [BestOfN(), Beam(num_keep=1), Rebase()], ids=lambda policy: policy.name)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_decided_is_always_the_beginning_of_every_trajectory_that_finishes(policy, seed):
    steps, given, seen = DecidedSteps(), [], []

    def watch(progress):
        given.extend(steps.advance(progress.tree))
        seen.append((progress.stage, progress.number, len(progress.tree), progress.kv_tokens))

    driver = Driver(policy, ModelWriter(FakeEngine()), None, width=6, seed=seed)
    outcome = asyncio.run(driver.solve(Problem("p", "Add 3."), "Add 3.\n\n", watch=watch))
    tree = outcome.tree
    for leaf in tree.leaves(NodeStatus.FINISHED):
        assert numbers(tree.path(leaf.id))[1 : 1 + len(given)] == numbers(given)
    assert [stage for stage, *_ in seen] == ["selected", "written"] * (len(seen) // 2) + ["selected"]
    assert seen[0] == ("selected", 0, 7, len(tree.root.ids)) and seen[-1][2] == len(tree)


# The hook


def test_what_a_watcher_raises_ends_the_search_and_frees_it():
    engine = FakeEngine()

    def watch(progress):
        if progress.stage == "written":
            raise RuntimeError("the watcher broke")

    driver = Driver(BestOfN(), ModelWriter(engine), None, width=4)
    with pytest.raises(RuntimeError, match="the watcher broke"):
        asyncio.run(driver.solve(Problem("p", "Add 3."), "Add 3.\n\n", watch=watch))
    (tree,) = {call.prefix.tree for call in engine.calls}
    assert engine.usage(tree).kv_tokens_held == 0 and engine.num_calls("generate") == 1


def test_a_seed_given_with_the_problem_counts_as_the_runs_own():
    def texts(seed, given):
        driver = Driver(BestOfN(), ModelWriter(FakeEngine()), None, width=4, seed=seed)
        outcome = asyncio.run(driver.solve(Problem("p", "Add 3."), "Add 3.\n\n", seed=given))
        return [node.text for node in outcome.tree]

    assert texts(0, 5) == texts(5, None) == texts(7, 5) != texts(0, None)


# The gate


def test_the_gate_lets_in_as_many_as_it_may_and_the_rest_in_order():
    async def run():
        gate, order, hold = Gate(2, 3), [], asyncio.Event()

        async def visit(name):
            async with gate.admit() as seconds:
                order.append(name)
                assert seconds >= 0 and gate.running <= 2
                await hold.wait()

        tasks = [asyncio.create_task(visit(name)) for name in range(5)]
        while len(order) < 2 or gate.waiting < 3:
            await asyncio.sleep(0)
        with pytest.raises(ApiError) as raised:
            async with gate.admit():
                pass
        assert raised.value.status == 429 and int(raised.value.headers["Retry-After"]) >= 1
        tasks[3].cancel()
        await asyncio.wait({tasks[3]})
        assert gate.waiting == 2 and gate.running == 2
        hold.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 1, 2, 4] and (gate.running, gate.waiting) == (0, 0)

    asyncio.run(run())


def test_a_visitor_whose_deadline_comes_before_its_turn_is_told_so_and_keeps_no_place():
    async def run():
        gate, loop = Gate(1, 2), asyncio.get_running_loop()
        async with gate.admit(loop.time() + 60):
            with pytest.raises(ApiError, match="the deadline came before its turn") as raised:
                async with gate.admit(loop.time() + 0.01):
                    pass
            assert (raised.value.status, raised.value.code) == (429, "deadline") and gate.waiting == 0
        async with gate.admit(loop.time() + 60):
            assert gate.running == 1
        assert gate.running == 0

    asyncio.run(run())


def test_a_visitor_who_leaves_as_its_turn_comes_hands_it_on():
    async def run():
        gate, hold = Gate(1, 2), asyncio.Event()
        done = []

        async def visit(name):
            async with gate.admit():
                await hold.wait()
                done.append(name)

        first, second, third = (asyncio.create_task(visit(name)) for name in "abc")
        while gate.waiting < 2:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})  # the turn is the second's now, which has not woken yet
        second.cancel()
        hold.set()
        await asyncio.gather(second, third, return_exceptions=True)
        assert done == ["c"] and (gate.running, gate.waiting) == (0, 0)

    asyncio.run(run())


def test_a_closed_gate_turns_away_who_waits_and_who_comes():
    async def run():
        gate, hold = Gate(1, 2), asyncio.Event()

        async def visit():
            async with gate.admit():
                await hold.wait()

        inside, outside = asyncio.create_task(visit()), asyncio.create_task(visit())
        while not gate.waiting:
            await asyncio.sleep(0)
        gate.close()
        with pytest.raises(ApiError) as raised:
            await outside
        assert raised.value.status == 503
        with pytest.raises(ApiError):
            await visit()
        hold.set()
        await inside
        assert (gate.running, gate.waiting) == (0, 0)

    asyncio.run(run())


# Kept searches


class Ended:
    """A job as the list of jobs sees it."""

    def __init__(self, number, num_nodes):
        self.id, self.num_nodes, self.arrived = str(number), num_nodes, number
        self.running, self.began = False, True


def test_searches_that_ended_are_kept_within_bounds():
    async def run(jobs, sizes):
        for number, size in enumerate(sizes):
            task = asyncio.create_task(asyncio.sleep(0))
            jobs.started(Ended(number, size), task)
            assert jobs.find(str(number)) is not None
            await task
            await asyncio.sleep(0)
        return [job.id for job in jobs.list()]

    assert asyncio.run(run(Jobs(max_ended=3), [1] * 5)) == ["4", "3", "2"]
    assert asyncio.run(run(Jobs(max_ended=9, max_ended_nodes=10), [4, 4, 4])) == ["2", "1"]
    assert asyncio.run(run(Jobs(max_ended=9, max_ended_nodes=10), [4, 40])) == ["1"]
