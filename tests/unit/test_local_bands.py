"""The calls that read a tree's arena: every row's slots exactly once, and never dearer than one call for all."""

import asyncio

import numpy as np
import pytest
from local_models import GREEDY, engine, prompt, reference_greedy, run, write

from search.engines.local import bands
from search.engines.local.arena import BLOCKED
from search.types import Child, Prefix, Sampling, Segment


def tree_mask(trunk, own):
    """Rows that share `trunk` slots and have `own[i]` further ones each, one row's after the other's."""
    extent = trunk + sum(own)
    mask = np.full((len(own), max(extent, 1)), BLOCKED, np.float32)
    mask[:, :trunk] = 0.0
    at = trunk
    for row, length in enumerate(own):
        mask[row, at : at + length] = 0.0
        at += length
    return mask


def cost(trunk, found, num_rows, num_channels):
    """What calls cost by the module's own prices."""
    call = bands.CALL_COST / num_channels
    calls = [(band.last - band.first, band.high - band.low) for band in found]
    calls += [(num_rows, trunk)] if trunk else []
    return sum(call + slots * (bands.SLOT_COST + rows) for rows, slots in calls)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("free", [False, True])
def test_every_seen_slot_is_read_once_and_no_blocked_one_is_needed(seed, free, monkeypatch):
    if free:
        monkeypatch.setattr(bands, "CALL_COST", 0)
    random = np.random.default_rng(seed)
    own = random.integers(0, 60, random.integers(1, 70)).tolist()
    mask = tree_mask(int(random.integers(0, 80)), own)
    trunk, found = bands.cut(mask, 256)
    read = np.zeros(mask.shape, np.int64)
    read[:, :trunk] += 1
    for band in found:
        assert band.first < band.last and 0 <= band.low < band.high <= mask.shape[1]
        read[band.first : band.last, band.low : band.high] += 1
    assert (read[mask == 0.0] == 1).all()
    assert (mask[:, :trunk] == 0.0).all()
    covered = [row for band in found for row in range(band.first, band.last)]
    assert covered == list(range(len(own)))
    whole = cost(0, [bands.Band(0, len(own), 0, mask.shape[1])], len(own), 256)
    assert cost(trunk, found, len(own), 256) <= whole


def test_rows_with_much_of_their_own_are_read_apart_and_few_small_ones_together():
    trunk, found = bands.cut(tree_mask(150, [100] * 64), 256)
    assert trunk == 150 and 4 < len(found) < 32
    assert bands.cut(tree_mask(150, [20] * 8), 256) == (0, [bands.Band(0, 8, 0, 310)])


@pytest.mark.parametrize("kind", ["llama-gqa", "neox"])
def test_a_wide_tree_attends_in_bands_and_stays_exact(kind, monkeypatch):
    """Where calls cost nothing, neighbouring rows read their own range of the arena beside the shared trunk."""
    monkeypatch.setattr(bands, "CALL_COST", 0)
    hot = Sampling(temperature=2.0, max_new_tokens=14, stop=())
    used_bands = []

    async def main() -> None:
        local = engine(kind, attention="cascade")
        forward = local._scheduler._forward

        def watched(batch):
            used_bands.extend(part.trunk and len(part.bands) > 1 for part in batch.decode)
            return forward(batch)

        leaves = [prompt()]
        key = 0
        for width, sampling in ((20, hot), (30, hot), (60, GREEDY)):
            jobs = []
            for leaf in leaves:
                children = [Child(key + i + 1, 7 * (key + i)) for i in range(width // len(leaves))]
                key += len(children)
                jobs.append(write(local, leaf, children, sampling))
            if width == 60:
                local._scheduler._forward = _Watched(forward, watched)
            results = await asyncio.gather(*jobs)
            pairs = [(leaf, step) for leaf, steps in zip(leaves, results, strict=True) for step in steps.values()]
            leaves = [Prefix("t", (*leaf.segments, Segment(step.key, step.ids))) for leaf, step in pairs]
            if width == 20:
                await local.release("t", [leaf.segments[-1].key for leaf in leaves[::4]])
                leaves = [leaf for i, leaf in enumerate(leaves) if i % 4]
        for leaf, step in pairs:
            assert step.ids == reference_greedy(kind, leaf.ids, GREEDY.max_new_tokens)
        await local.aclose()

    run(main())
    assert any(used_bands)


class _Watched:
    """A forward that shows its batches."""

    def __init__(self, forward, call) -> None:
        self.name, self.shape = forward.name, forward.shape
        self._forward, self._call = forward, call

    @property
    def hidden(self):
        return self._forward.hidden

    def __call__(self, batch):
        return self._call(batch)
