"""The engine's count of KV slots is the brute-force union of what was not released, whatever is asked in what order."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_models import engine, run

from search.engines.local.paged import PagedTree
from search.support.streams import closing
from search.types import Child, Prefix, Sampling, Segment, Usage

Operation = tuple[str, int, int, int]


class Ledger:
    """One tree as a caller sees it, and what must be held for it."""

    def __init__(self, tree: str, ids: tuple[int, ...]) -> None:
        self.tree = tree
        self.ids = {0: ids}
        self.parent: dict[int, int | None] = {0: None}
        self.cached = {0: 0}
        self.unique = len(ids)
        self.next_key = 1

    def path(self, key: int) -> list[int]:
        keys = [key]
        while (above := self.parent[keys[-1]]) is not None:
            keys.append(above)
        return keys[::-1]

    def prefix(self, key: int) -> Prefix:
        return Prefix(self.tree, tuple(Segment(k, self.ids[k]) for k in self.path(key)))

    def read(self, key: int) -> None:
        for node in self.path(key):
            self.cached[node] = len(self.ids[node])

    def add(self, parent: int, key: int, ids: tuple[int, ...], cached: int) -> None:
        self.ids[key], self.parent[key], self.cached[key] = ids, parent, cached
        self.unique += len(ids)

    def release(self, key: int) -> None:
        gone = {key}
        for node, parent in sorted(self.parent.items()):
            if parent in gone:
                gone.add(node)
        for node in gone:
            del self.ids[node], self.parent[node], self.cached[node]


async def apply(local, ledger: Ledger, operations: list[Operation]) -> None:
    sampling = Sampling(temperature=1.0, max_new_tokens=7, stop=("\n",))
    for what, pick, number, seed in operations:
        keys = sorted(ledger.ids)
        key = keys[pick % len(keys)]
        if what == "release":
            if key:
                await local.release(ledger.tree, [key])
                ledger.release(key)
        elif what == "score":
            new = ledger.next_key
            ledger.next_key += 1
            ids = tuple((seed + i) % 200 for i in range(number))
            ledger.add(key, new, ids, 0)
            await local.label_logprobs(ledger.prefix(new), [1])
            ledger.read(new)
        elif len(ledger.prefix(key).ids) < 140:
            children = [Child(ledger.next_key + i, seed + i) for i in range(number)]
            ledger.next_key += number
            async with closing(local.generate(ledger.prefix(key), children, sampling)) as made:
                async for step in made:
                    ledger.add(key, step.key, step.ids, len(step.ids) - 1)
            ledger.read(key)
        usage = local.usage(ledger.tree)
        assert usage.kv_tokens_held == sum(ledger.cached.values())
        assert usage.kv_tokens_peak >= usage.kv_tokens_held
        assert usage.computed_tokens - usage.recomputed_tokens <= ledger.unique
        assert usage.recomputed_tokens == 0
        check_slots(local, ledger)


def check_slots(local, ledger: Ledger) -> None:
    """No slot belongs to two nodes, and after a compaction there are no holes."""
    tree = local._scheduler.trees.get(ledger.tree)
    if tree is None:
        return
    if isinstance(tree, PagedTree):
        assert all(len(node.slots) == node.num_cached for node in tree.nodes.values())
        return
    taken = [slot for node in tree.nodes.values() for first, num in node.pieces for slot in range(first, first + num)]
    assert len(taken) == len(set(taken)) == tree.arena.num_held == tree.num_held
    assert not taken or max(taken) < tree.arena.end <= tree.arena.capacity


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "score", "release"]),
        st.integers(0, 50),
        st.integers(1, 4),
        st.integers(0, 2**32),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("attention", ["cascade", "paged"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(plans=st.lists(OPERATIONS, min_size=1, max_size=3), chunk=st.sampled_from([3, 1024]))
def test_held_slots_are_the_union_of_what_is_kept(plans, chunk, attention):
    async def main() -> None:
        local = engine("llama-gqa", attention=attention, max_batch_tokens=chunk)
        ledgers = [Ledger(f"t{i}", tuple(range(5 + i))) for i in range(len(plans))]
        await asyncio.gather(*(apply(local, *both) for both in zip(ledgers, plans, strict=True)))
        total = sum(local.usage(ledger.tree).kv_tokens_held for ledger in ledgers)
        assert local.pool().held == total <= local.pool().peak
        if attention == "paged":
            nodes = [node for tree in local._scheduler.trees.values() for node in tree.nodes.values()]
            taken = [slot for node in nodes for slot in node.slots.tolist()]
            assert len(taken) == len(set(taken)) == local._scheduler._store._pool.num_held == total
        for ledger in ledgers:
            await local.release(ledger.tree)
            assert local.usage(ledger.tree) == Usage()
        assert local.pool().held == 0
        assert attention != "paged" or not local._scheduler._store._pool.num_held
        await local.aclose()

    run(main())
