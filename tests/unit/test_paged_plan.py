"""A turn's plan: every query sees each slot of its path exactly once, and what many see is read once."""

import numpy as np
import pytest

from search.engines.local.paged_plan import Reader, job_width, make_plan


def drawn_readers(seed):
    """Rows and prompts of some random trees over scattered slots; with each query's slots."""
    random = np.random.default_rng(seed)
    free = iter(random.permutation(100_000).astype(np.int32))

    def slots(number):
        return np.array([next(free) for _ in range(number)], np.int32)

    readers, seen, first = [], [], 0
    for _ in range(random.integers(1, 5)):
        paths = [[slots(random.integers(1, 400))]]
        for _ in range(random.integers(1, 30)):
            above = paths[random.integers(len(paths))]
            paths.append([*above, slots(random.integers(1, 60))])
        for path in paths:
            if random.random() < 0.3:
                continue
            num = int(random.choice([1, 1, 1, 7, 90]))
            own = slots(num if num > 1 else random.integers(1, 70))
            sees = 1 if num > 1 else len(own)
            readers.append(Reader(first, num, path, own, sees))
            seen += [[*np.concatenate(path), *own[: sees + i]] for i in range(num)]
            first += num
    order = random.permutation(len(readers))
    return [readers[i] for i in order], seen


def read(plan, query):
    """Slots that a query sees, in the order of its jobs."""
    width = plan.queries.shape[1]
    found = []
    for place in plan.parts[query][plan.parts[query] >= 0]:
        job, at = divmod(place, width)
        assert plan.queries[job, at] == query and 0 < plan.limits[job, at] <= plan.lengths[job]
        found.extend(plan.slots[plan.first[job] :][: plan.limits[job, at]])
    return found


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("width", "split", "worth"), [(16, 256, 64), (1, 16, 0), (64, 100_000, 10**9)])
def test_every_query_sees_its_path_once_whatever_is_shared(seed, width, split, worth):
    readers, seen = drawn_readers(seed)
    if not readers:
        return
    plan = make_plan(readers, width, split=split, worth=worth)
    assert plan.lengths.max() <= split and plan.queries.shape == plan.limits.shape == (len(plan.lengths), width)
    assert len(plan.parts) == len(seen)
    for query, wanted in enumerate(seen):
        assert sorted(read(plan, query)) == sorted(wanted)
    assert (plan.limits[plan.queries < 0] == 0).all()


def test_a_shared_prefix_is_read_once_for_all_rows_and_a_short_one_with_each():
    prompt, step = np.arange(500, dtype=np.int32), np.arange(500, 510, dtype=np.int32)
    rows = [Reader(i, 1, [prompt, step], np.array([1000 + i], np.int32), 1) for i in range(4)]
    rows += [Reader(4 + i, 1, [prompt], np.array([2000 + i], np.int32), 1) for i in range(2)]
    plan = make_plan(rows, 16)
    assert sorted(plan.slots) == sorted([*prompt, *np.tile(step, 4), *range(1000, 1004), 2000, 2001])
    assert plan.parts.shape == (6, 3), "two of the prompt's, and its own"


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(8, 8, 64), (12, 2, 10), (9, 3, 21), (128, 1, 1)])
def test_a_job_fills_one_matrix_product(heads, kv_heads, width):
    assert job_width(heads, kv_heads) == width
