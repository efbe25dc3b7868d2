"""Writing ahead while a level's last steps are being written: what the search will do next, as far as it can be told.

Nothing here enters a result. The policy is asked what it would select if only what is known were there; the steps that
it would order are written, and scored, on a fork of the tree, at lower priority than the search's own; and when the
search asks the same of its writer and its scorer they have it already (`search.ahead`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from search.errors import PolicyError, SearchError
from search.loop.contract import check_selection
from search.loop.running import Running
from search.protocols import AheadSession
from search.tree import SearchTree, derive_seed
from search.types import NodeId, NodeStatus, Selection, Step, WriteJob

if TYPE_CHECKING:
    from search.loop.driver import Driver

FORECASTS_PER_LEVEL = 16
"""The policy is asked again when so large a part of the width was scored since it was last asked."""


class _Wanted(NamedTuple):
    """A step that will be ordered if the forecast holds: the less likely, the later it comes.

    Attributes:
        depth: selections until then, from 0.
        rank: its number below its parent, counted from the last of the children that the forecast gives it, up to -1.
        node: pending on `tree`, the forecast's own fork.
    """

    depth: int
    rank: int
    node: NodeId
    tree: SearchTree


@dataclass(slots=True, eq=False)
class _Ghost:
    """A step that is being written ahead, or was.

    Attributes:
        wanted: where it stands.
        depth: steps from the root.
        above: the key of its parent.
        task: writes and scores it.
        step: once it is written.
        reward: once it is scored.
    """

    wanted: _Wanted
    depth: int
    above: int
    task: asyncio.Task[None] | None = None
    step: Step | None = None
    reward: float | None = None


class Speculation:
    """Writes ahead for one search whose method compares the leaves of a level.

    At most a share of the idle places is used: those of the width that no step of the search's own takes.
    """

    def __init__(self, driver: Driver, writer: AheadSession, run: Running, share: float) -> None:
        """Write ahead for a search.

        Args:
            driver: runs it.
            writer: the search's.
            run: the search.
            share: of the idle places, in (0, 1].
        """
        self._driver, self._writer, self._run, self._share = driver, writer, run, share
        self._ghosts: dict[int, _Ghost] = {}
        self._queue: list[_Wanted] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._forecasting: asyncio.Task[None] | None = None
        self._num_seen = self._level = 0

    # When

    def look(self) -> None:
        """Something was written or scored: use what places there are."""
        if self._forecasting is not None or not self._num_free:
            return
        known = self._num_known
        if known - self._num_seen >= max(1, self._driver.width // FORECASTS_PER_LEVEL):
            self._num_seen = known
            self._forecasting = self._start(self._forecast())
        else:
            self._begin()

    def settle(self) -> None:
        """The search has ordered its next steps: what was written ahead of others is given up."""
        tree = self._run.tree
        ordered = tree.keys(self._run.pending)
        alive = ordered | tree.keys(leaf.id for leaf in tree.leaves())
        for key, ghost in sorted(self._ghosts.items(), key=lambda one: one[1].depth):
            if key not in ordered and ghost.above in alive:
                alive.add(key)
                continue
            del self._ghosts[key]
            if key not in ordered:
                self._give_up(ghost)
            elif ghost.task is not None:
                ghost.task.cancel()
        self._queue.clear()
        self._num_seen, self._level = 0, self._level + 1

    async def stop(self) -> None:
        """Give everything up; when this returns nothing is done ahead any more, so what was done can be counted."""
        self._queue.clear()
        if self._forecasting is not None:
            self._forecasting.cancel()
        for ghost in self._ghosts.values():
            self._give_up(ghost)
        self._ghosts.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _num_free(self) -> int:
        run, busy = self._run, sum(ghost.step is None and ghost.task is not None for ghost in self._ghosts.values())
        return max(0, int(self._share * (self._driver.width - len(run.pending))) - busy)

    @property
    def _num_known(self) -> int:
        """What a forecast could go by: leaves of the search, and steps written ahead."""
        run = self._run
        leaves = [*run.tree.leaves(), *run.tree.leaves(NodeStatus.FINISHED)]
        known = sum(leaf.id not in run.unscored for leaf in leaves)
        return known + sum(self._is_known(ghost) for ghost in self._ghosts.values())

    # What

    async def _forecast(self) -> None:
        """Ask the policy what it would select, and begin what comes of it."""
        level = self._level
        queue: list[_Wanted] = []
        try:
            await self._look_ahead(queue)
        except SearchError:
            pass  # the policy cannot do with what is known so far: the search itself will ask when it is all there
        finally:
            self._forecasting = None
        if level == self._level:
            self._queue = sorted(queue, key=lambda one: (one.depth, one.rank))
            self._begin()
            self.look()

    async def _look_ahead(self, queue: list[_Wanted]) -> None:
        """Go through selections to come while any leaf is known; those known share as much of the width as they are.

        Raises:
            SearchError: the policy refuses what is known.
        """
        driver, run = self._driver, self._run
        tree, number, share, depth = run.tree.fork(), run.number + 1, 1.0, 0
        for node in tree.leaves():
            if node.id in run.unscored:
                node.status = NodeStatus.PENDING
        unknown = len(tree.leaves(NodeStatus.PENDING))
        while leaves := [node.id for node in tree.leaves()]:
            share *= len(leaves) / (len(leaves) + unknown)
            width = round(share * (driver.width - tree.num_finished))
            if width < 1:
                return
            await driver.provide(tree, leaves)
            rng = random.Random(derive_seed(tree.root.seed, "level", number + depth))
            selection = self._select(tree, width, rng)
            ordered: list[NodeId] = []
            for leaf, num_children in ((one.node, one.num_children) for one in selection.expansions):
                for rank in range(-num_children, 0):
                    child = tree.add_child(leaf)
                    if not self._recall(tree, child):
                        queue.append(_Wanted(depth, rank, child, tree))
                    ordered.append(child)
            kept = selection.waiting | {one.node for one in selection.expansions}
            for leaf in leaves:
                if leaf not in kept:
                    tree.prune(leaf, "forecast")
            unknown = sum(tree[child].status is NodeStatus.PENDING for child in ordered)
            if unknown == len(ordered):
                return
            depth += 1

    def _select(self, tree: SearchTree, width: int, rng: random.Random) -> Selection:
        try:
            selection = self._driver.policy.select(tree, width, rng)
        except Exception as error:
            # One that is made for whole levels alone may stumble over a part of one; that is no fault in it.
            raise PolicyError(f"no forecast of {self._driver.policy.name}: {error}") from error
        check_selection(self._driver.policy, tree, selection, width, 1)
        return selection

    def _is_known(self, ghost: _Ghost) -> bool:
        return ghost.step is not None and (self._driver.scorer is None or ghost.reward is not None)

    def _recall(self, tree: SearchTree, node: NodeId) -> bool:
        """Whether a step is written ahead already, or being so; what is known of it is put into the fork."""
        ghost = self._ghosts.get(tree[node].seed)
        if ghost is None:
            return False
        if self._is_known(ghost):
            assert ghost.step is not None
            self._driver.accept(tree, replace(ghost.step, node=node))
            if ghost.reward is not None:
                tree.set_reward(node, ghost.reward)
        return True

    # Writing

    def _begin(self) -> None:
        """Fill the free places with what is most likely to be wanted."""
        free = self._num_free
        while self._queue and free:
            wanted = self._queue.pop(0)
            key = wanted.tree[wanted.node].seed
            if key not in self._ghosts:
                path = wanted.tree.path(wanted.node)
                ghost = self._ghosts[key] = _Ghost(wanted, len(path) - 1, path[-2].seed)
                ghost.task = self._start(self._write(ghost))
                free -= 1

    async def _write(self, ghost: _Ghost) -> None:
        """Write a step, and score it."""
        driver, (_, _, node, tree) = self._driver, ghost.wanted
        above = tree[node].parent
        assert above is not None
        try:
            job = WriteJob(above, (node,), driver.room(tree, above))
            step = await self._writer.write_ahead(tree, job, driver.sampling)
            if step is not None and driver.accept(tree, step):
                ghost.step = step
                self.look()
                if self._run.scorer is not None and getattr(driver.scorer, "scores_ahead", False):
                    (ghost.reward,) = await self._run.scorer.score(tree, [node])
        except SearchError:
            pass  # asked for again it fails on the search's own account, or not at all
        ghost.task = None
        self.look()

    def _give_up(self, ghost: _Ghost) -> None:
        """Stop what is done for a step, and give back what is held for it."""
        if ghost.task is not None:
            ghost.task.cancel()
        self._start(self._drop(ghost))

    async def _drop(self, ghost: _Ghost) -> None:
        keys = ghost.wanted.tree.keys([ghost.wanted.node])
        await self._writer.release(keys)
        if self._run.scorer is not None:
            await self._run.scorer.release(keys)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
