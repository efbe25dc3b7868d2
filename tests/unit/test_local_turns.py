"""What a turn launches on a GPU does not grow with trees, rows or results: counted on the same path on the CPU."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from local_models import byte_tokenizer, engine, network, prompt, run
from torch.utils._python_dispatch import TorchDispatchMode

from search.engines.local.loading import prepare
from search.engines.local.sampling import sample
from search.engines.local.turns import Turns
from search.studies.turns import count_ops
from search.types import Segment


def loaded(attention):
    return prepare(network("llama-gqa"), byte_tokenizer(), name="tiny", attention=attention)


def test_operations_of_a_turn_are_equal_for_1_16_and_64_trees():
    model = loaded("paged")
    counts = [count_ops(model, num_trees, seed=0) for num_trees in (1, 16, 64)]
    assert max(counts) <= 1.1 * min(counts)
    assert count_ops(model, 8, seed=0, num_rows=8) <= 1.1 * min(counts), "nor do they grow with the rows"


def test_over_arenas_they_grow_with_the_trees():
    """What the count is for, and that it counts."""
    model = loaded("cascade")
    assert count_ops(model, 64, seed=0) > 2 * count_ops(model, 1, seed=0)


class Count(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        Count.number += 1
        return func(*args, **(kwargs or {}))


def counted(work):
    Count.number = 0
    with torch.inference_mode(), Count():
        work()
    return Count.number


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0)])
@pytest.mark.parametrize("logprobs", [False, True])
def test_sampling_takes_as_many_operations_for_any_number_of_rows(temperature, top_p, logprobs):
    def work(rows):
        logits = torch.randn(rows, 300, generator=torch.Generator().manual_seed(0))
        ones = np.ones(rows)
        return lambda: sample(logits, temperature * ones, top_p * ones, 0.5 * ones, logprobs=logprobs)

    assert counted(work(2)) == counted(work(64))


def test_readings_of_one_turn_are_fetched_together():
    """Scores of many steps at once: as many operations as for one."""

    def operations(number):
        local = engine("llama-gqa", attention="paged")
        scheduler = local._scheduler
        got = []
        for i in range(number):
            path = prompt(f"t{i}", Segment(1, (i, 2, 3)))
            scheduler.submit(path, got.append, labels=(1, 2), arrived=0.0)

        def turns():
            while scheduler.turn():
                pass

        count = counted(turns)
        assert len(got) == number
        run(asyncio.wait_for(local.aclose(), 60))
        return count

    assert operations(40) <= 1.1 * operations(2)


@pytest.mark.parametrize(
    ("device", "ended", "running", "seconds"),
    [
        ("cpu", 1, 15, 0.1),
        ("cuda", 4, 0, 0.1),
        ("cuda", 1, 4, 0.005),
        ("cuda", 1, 255, 0.001),
        ("cuda", 100, 10, 0.1),
    ],
)
def test_the_next_turn_waits_no_longer_than_that_costs_the_other_rows(device, ended, running, seconds):
    scheduler = SimpleNamespace(lanes=[None] * running)
    shape = SimpleNamespace(device=torch.device(device))
    turns = Turns(scheduler, SimpleNamespace(forward=SimpleNamespace(shape=shape)))
    turns._turn_seconds = 0.02
    loop = asyncio.new_event_loop()
    for _ in range(ended):
        turns.reply(loop, lambda: None, a_step=True)
    loop.close()
    assert turns._most_wait() == pytest.approx(seconds)
    assert turns._num_ended == 0
