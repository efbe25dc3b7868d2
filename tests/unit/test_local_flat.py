"""Flat sampling on the local engine: no chain loses a turn between its steps, nor waits for another."""

import pytest
from local_models import engine, run

from search.engines.local import turns as module
from search.loop.driver import Driver, Limits
from search.loop.writer import ModelWriter
from search.policies import BestOfN
from search.types import NodeStatus, Problem, Sampling

SHORT_STEPS = Sampling(stop=("e", "a", "t", "o", "i"), max_new_tokens=9)


class Patient(BestOfN):
    """The same chains, but each waits for the others of its level."""

    pace = "level"


@pytest.mark.parametrize("width", [4, 16])
def test_turns_of_the_engine_equal_the_tokens_of_the_longest_solution(width, monkeypatch):
    monkeypatch.setattr(module, "_REPLY_SECONDS", 30)  # however busy the machine is
    local = engine()
    forward, count = local._scheduler._forward, 0

    class Counted:
        def __call__(self, batch):
            nonlocal count
            count += 1
            return forward(batch)

        def __getattr__(self, name):
            return getattr(forward, name)

    local._scheduler._forward = Counted()

    async def solved(policy):
        nonlocal count
        count, limits = 0, Limits(max_tokens=90, max_depth=12)
        driver = Driver(policy, ModelWriter(local), None, width=width, sampling=SHORT_STEPS, limits=limits)
        outcome = await driver.solve(Problem("p", "How many?"), "How many?")
        nodes = [outcome.tree[node] for node in outcome.tree.in_order()]
        lengths = [
            node.num_path_tokens - nodes[0].num_path_tokens for node in nodes if node.status is NodeStatus.FINISHED
        ]
        return count, lengths, outcome.stats.depth

    turns, lengths, depth = run(solved(BestOfN()))
    assert len(lengths) == width and depth > 5 and turns == max(lengths)
    patient, same, _ = run(solved(Patient()))
    assert same == lengths and patient > turns
    run(local.aclose())
