"""Which slots of a tree's arena its rows read in which calls: the shared trunk once, then ranges of neighbouring rows.

A row sees its own path, scattered over the arena; one masked call for all rows reads everything that any of them sees.
Rows that have written much of their own see little of that, so they are cut into bands, each with a range of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CALL_COST = 800_000
"""What a call costs beside its work, in multiply-adds of one row, slot and channel: measured, 40 us against 70 ps."""
SLOT_COST = 4
"""What reading a slot's keys and values costs, in rows that use them."""
_MOST_ROWS = 32


class Band(NamedTuple):
    """Rows [first, last) see nothing beyond the trunk but slots in [low, high)."""

    first: int
    last: int
    low: int
    high: int


def cut(mask: NDArray[np.float32], num_channels: int) -> tuple[int, list[Band]]:
    """The cheapest calls that read what each row sees.

    Args:
        mask: (num_rows, extent) 0 where a row sees a slot.
        num_channels: numbers in a slot's keys.

    Returns:
        Slots [0, trunk) that are read for all rows by a call of their own, 0 for none; and bands that cover all rows
        in order.
    """
    num_rows, extent = mask.shape
    call = CALL_COST / num_channels
    whole_cost = call + extent * (SLOT_COST + num_rows)
    whole = (0, [Band(0, num_rows, 0, extent)])
    if num_rows == 1 or whole_cost < 3 * call:
        return whole
    seen = mask == 0.0
    common = seen.all(0)
    trunk = extent if common.all() else int(common.argmin())
    if trunk == extent:
        return whole
    beyond = seen[:, trunk:]
    some = beyond.any(1)
    lows = np.where(some, trunk + beyond.argmax(1), extent - 1)
    highs = np.where(some, extent - beyond[:, ::-1].argmax(1), 0)
    cost, bands = _cheapest(lows, highs, extent, call)
    if trunk:
        # The two parts' merge is some small operations more.
        cost += 2 * call + trunk * (SLOT_COST + num_rows)
    return (trunk, bands) if cost < 0.9 * whole_cost else whole


def _cheapest(lows: NDArray[np.int64], highs: NDArray[np.int64], extent: int, call: float) -> tuple[float, list[Band]]:
    """Bands of least total cost, by dynamic programming over where the last one begins."""
    costs, starts = [0.0], [0]
    for last in range(1, len(lows) + 1):
        first = max(0, last - _MOST_ROWS)
        lowest = np.minimum.accumulate(lows[first:last][::-1])[::-1]
        highest = np.maximum.accumulate(highs[first:last][::-1])[::-1]
        num_rows = last - np.arange(first, last)
        ends = np.array(costs[first:last]) + call + np.maximum(highest - lowest, 1) * (SLOT_COST + num_rows)
        best = int(ends.argmin())
        costs.append(float(ends[best]))
        starts.append(first + best)
    bands = []
    last = len(lows)
    while last:
        first = starts[last]
        low = min(int(lows[first:last].min()), extent - 1)
        bands.append(Band(first, last, low, max(low + 1, int(highs[first:last].max()))))
        last = first
    return costs[-1], bands[::-1]
