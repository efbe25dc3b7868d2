"""Virtual time: a tick is a token of every row that advances, exactly, whatever the machine does meanwhile."""

import asyncio
import json

import pytest
from fake_engine import FakeEngine, Fault

from search.engines.virtual import Recall, VirtualEngine
from search.engines.virtual_time import VirtualClock
from search.errors import ConfigError, DataError, EngineError
from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import BestOfN, Rebase
from search.studies import latency
from search.types import Ahead, Child, Prefix, Problem, Sampling, Segment

PROMPT = "Add 3.\n\n"


@pytest.fixture
def runner():
    with asyncio.Runner(loop_factory=VirtualClock) as made:
        yield made


@pytest.fixture(scope="module")
def recall():
    made = Recall(FakeEngine())
    yield made
    made.close()


def prefix(engine, tree="t", ahead=None):
    return Prefix(tree, (Segment(0, engine.tokenizer.encode(PROMPT)),), ahead)


async def write(engine, seeds, ahead=None, tree="t"):
    """Steps with the tick at which each was there."""
    clock, children = asyncio.get_running_loop(), [Child(1000 + seed, seed) for seed in seeds]
    stream = engine.generate(prefix(engine, tree, ahead), children, Sampling())
    return [(step, clock.time()) async for step in stream]


def test_a_row_takes_as_many_ticks_as_it_has_tokens(runner, recall):
    engine = VirtualEngine(runner.get_loop(), recall)
    steps = runner.run(write(engine, range(8)))
    assert len({len(step.ids) for step, _ in steps}) > 1
    assert all(len(step.ids) == tick == step.seconds for step, tick in steps)
    assert engine.usage("t").sampled_tokens == sum(len(step.ids) for step, _ in steps)


def test_the_tokens_are_those_of_the_engine_behind(runner, recall):
    virtual = runner.run(write(VirtualEngine(runner.get_loop(), recall), range(4)))

    async def real():
        engine = FakeEngine()
        children = [Child(1000 + seed, seed) for seed in range(4)]
        return {step.key: step.ids async for step in engine.generate(prefix(engine), children, Sampling())}

    assert {step.key: step.ids for step, _ in virtual} == asyncio.run(real())


def test_rows_beyond_the_capacity_wait_in_their_order(runner, recall):
    engine = VirtualEngine(runner.get_loop(), recall, capacity=1)
    steps = runner.run(write(engine, range(4)))
    assert [step.key for step, _ in steps] == [1000, 1001, 1002, 1003]
    assert [tick for _, tick in steps] == [sum(len(step.ids) for step, _ in steps[: n + 1]) for n in range(4)]


def test_what_is_written_ahead_gives_way_and_goes_on_once_it_is_wanted(runner, recall):
    engine, mark = VirtualEngine(runner.get_loop(), recall, capacity=1), Ahead()
    clock = runner.get_loop()

    async def both():
        early = asyncio.create_task(write(engine, [1], mark))
        await asyncio.sleep(2)
        assert mark.sampled_tokens == 2
        ((wanted, when),) = await write(engine, [2])
        assert mark.sampled_tokens == 2 and when == 2 + len(wanted.ids)
        other = asyncio.create_task(write(engine, [3]))
        await asyncio.sleep(1)
        mark.wanted = True
        return await early, await other, clock.time()

    ((early, early_at),), ((other, other_at),), end = runner.run(both())
    assert early_at < other_at == end, "it came first, and is now served like any other"
    assert end == len(early.ids) + len(runner.run(write(engine, [2]))[0][0].ids) + len(other.ids)


def test_of_a_row_that_is_stopped_the_tokens_so_far_count(runner, recall):
    engine = VirtualEngine(runner.get_loop(), recall)

    async def stop():
        task = asyncio.create_task(write(engine, [1]))
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(50)
        return engine.usage("t").sampled_tokens

    assert runner.run(stop()) == 2


def test_release_ends_rows_as_aborted_and_close_with_an_error(runner, recall):
    engine = VirtualEngine(runner.get_loop(), recall)

    async def release():
        task = asyncio.create_task(write(engine, [1]))
        await asyncio.sleep(2)
        await engine.release("t", [0])
        return await task

    ((step, tick),) = runner.run(release())
    assert (step.finish, len(step.ids), tick) == ("abort", 2, 2)

    async def close():
        task = asyncio.create_task(write(engine, [1]))
        await asyncio.sleep(2)
        await engine.aclose()
        await task

    with pytest.raises(EngineError, match="closed"):
        runner.run(close())


def test_an_error_of_the_engine_behind_reaches_its_request_alone(runner):
    behind = Recall(FakeEngine(faults=[Fault("generate", 2)]))
    engine = VirtualEngine(runner.get_loop(), behind)

    async def three():
        return await asyncio.gather(*(write(engine, [n], tree=f"t{n}") for n in range(3)), return_exceptions=True)

    done = runner.run(three())
    assert [isinstance(one, EngineError) for one in done] == [False, True, False]
    assert len(runner.run(write(engine, [1]))) == 1, "asked again it is answered"
    behind.close()


def search(recall, policy, capacity=None, width=8):
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        engine = VirtualEngine(runner.get_loop(), recall, capacity)
        driver = Driver(policy, ModelWriter(engine), None, width=width)
        outcome = runner.run(driver.solve(Problem("a", PROMPT), PROMPT))
        return outcome, runner.get_loop().time()


def longest(tree):
    return max(node.num_path_tokens for node in tree) - tree.root.num_path_tokens


def test_a_flat_method_takes_the_ticks_of_its_longest_chain_and_a_level_those_of_its_longest_steps(recall):
    flat, ticks = search(recall, BestOfN())
    assert ticks == longest(flat.tree)
    levels, ticks = search(recall, Rebase())
    depths = {}
    for node in list(levels.tree)[1:]:
        depths[node.depth] = max(depths.get(node.depth, 0), len(node.ids))
    assert ticks == sum(depths.values()) > longest(levels.tree)


def test_a_capacity_changes_the_clock_and_no_tree(recall):
    free, ticks = search(recall, Rebase())
    tight, slower = search(recall, Rebase(), capacity=2)
    assert [node.ids for node in free.tree] == [node.ids for node in tight.tree]
    assert slower >= free.stats.policy_tokens / 2 > 0 and slower > ticks


def test_waiting_for_nothing_is_an_error_and_not_a_hang():
    async def forever():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="everything waits"), asyncio.Runner(loop_factory=VirtualClock) as runner:
        runner.run(forever())


def test_a_capacity_and_a_model_without_seeds_are_refused(runner, recall):
    with pytest.raises(ConfigError, match="capacity must be at least 1, not 0"):
        VirtualEngine(runner.get_loop(), recall, 0)


SENTENCES = ["First we add two and two.", "Then we halve it.", "So the answer is 4."]


@pytest.fixture
def recording(tmp_path):
    """Twelve problems with three solutions each, of different lengths."""
    rows = []
    for number in range(12):
        for way in range(3):
            steps = [SENTENCES[0] + " And so on." * ((number + way) % 4), *SENTENCES[1 : 1 + way], SENTENCES[2]]
            rows.append({"problem": f"p{number}", "text": "\n\n".join(steps), "correct": way > 0})
    file = tmp_path / "solutions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_latency_of_recorded_solutions_is_exact_and_repeatable(recording):
    first, second = (latency.run(limit=2, data=str(recording), widths=(4,))["figures"] for _ in range(2))
    assert first == second
    assert 0 < first["steps_longest_4"] < first["steps_level_4"]


def test_a_recording_without_its_fields_is_refused(tmp_path):
    file = tmp_path / "solutions.jsonl"
    file.write_text('{"problem": "a", "text": "b"}\n')
    with pytest.raises(DataError, match="correct is missing; a solution has problem, text, answer and correct"):
        latency.run(limit=2, data=str(file))
    file.write_text('{"problem": "a", "text": "b", "correct": true}\n')
    with pytest.raises(DataError, match="1 problems; at least 6 are needed"):
        latency.run(limit=2, data=str(file))
