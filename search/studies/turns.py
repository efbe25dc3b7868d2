"""How many torch operations a turn of the local engine takes: on a GPU each is a launch, which is what takes its time.

Counted on the path that a GPU takes, run on the CPU: there the two kernels of a layer's attention are replaced by their
plain form, which is as many operations for any plan. Rows are shared by 1, 16 or 64 trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search.studies.engine import Schedule, make_prompt
from search.tree import derive_seed
from search.types import Generation, Prefix, Sampling, Segment

if TYPE_CHECKING:
    from search.engines.local.loading import LoadedModel
    from search.engines.local.scheduler import Scheduler

NUM_TREES = (1, 16, 64)
_NUM_ROWS = 64
_NUM_LEVELS = 3


def ops_per_turn(path: str, seed: int, num_trees: Sequence[int] = NUM_TREES) -> dict[str, float]:
    """Operations a turn, means over all turns of a search of some levels, its prompts included.

    Args:
        path: of a model.
        seed: of the schedule.
        num_trees: among how many trees the rows are shared.

    Returns:
        `ops_per_turn_N` by number of trees.
    """
    from search.engines.local.loading import load_model

    loaded = load_model(path, device="cpu", dtype="float32", trust_remote_code=False, attention="paged")
    return {f"ops_per_turn_{num}": count_ops(loaded, num, seed) for num in num_trees}


def count_ops(loaded: LoadedModel, num_trees: int, seed: int, num_rows: int = _NUM_ROWS) -> float:
    """Mean operations a turn of a loaded model with its rows shared by some trees."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        number = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Count.number += 1
            return func(*args, **(kwargs or {}))

    loaded.tokenizer.eos_ids = frozenset()
    scheduler = loaded.scheduler(None, num_rows, 4096)
    with loaded.computing(), Count():  # type: ignore[no-untyped-call]
        num_turns = _search(scheduler, make_prompt(loaded.info.vocab_size, seed), num_trees, num_rows, seed)
    return Count.number / num_turns


def _search(scheduler: Scheduler, prompt: tuple[int, ...], num_trees: int, num_rows: int, seed: int) -> int:
    """Write some levels, all trees side by side, each level from a quarter of the last one; returns the turns."""
    schedule = Schedule(num_rows, _NUM_LEVELS, seed)
    leaves = [Prefix(f"t{row % num_trees}", (Segment(0, prompt),)) for row in range(num_rows)]
    turns = 0
    for level in range(schedule.num_levels):
        written: dict[int, Generation] = {}

        def take(result: object, written: dict[int, Generation] = written) -> None:
            assert isinstance(result, Generation), result
            written[result.key] = result

        if level:
            # In each tree the first of four rows goes on, as its own and in place of the three after it.
            leaves = [leaves[row % num_trees + (row // num_trees // 4 * 4) * num_trees] for row in range(num_rows)]
        for row, (prefix, length) in enumerate(zip(leaves, schedule.lengths(level), strict=True)):
            key = 1 + level * num_rows + row
            sampling = Sampling(temperature=1.0, max_new_tokens=length, stop=())
            children = ((key, derive_seed(seed, key) % 2**64),)
            scheduler.submit(prefix, take, children=children, sampling=sampling, arrived=0.0)
        while len(written) < num_rows:
            assert scheduler.turn()
            turns += 1
        leaves = [
            Prefix(leaf.tree, (*leaf.segments, Segment(key, written[key].ids)))
            for key, leaf in enumerate(leaves, 1 + level * num_rows)
        ]
    return turns
