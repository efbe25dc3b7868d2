"""The calls that read a tree's arena: every row's slots exactly once, and never dearer than one call for all."""

import numpy as np
import pytest

from search.engines.local import bands
from search.engines.local.arena import BLOCKED


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
