"""Steps that may never become nodes, as nodes of a tree beside the search's own, so that a scorer can score them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from search.protocols import ScorerSession
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Step, Usage


class Scored(NamedTuple):
    """A score in [0, 1] and the place of what it was given to; see `StepScorer`."""

    score: float
    place: NodeId


class StepScorer:
    """Scores steps that pending nodes of one tree might get, each settled by `keep` or `drop` once its fate is known.

    They hang in a tree beside it, below the paths of its own nodes.
    """

    def __init__(self, root: int, beside: SearchTree, scorer: ScorerSession) -> None:
        """Ask `scorer`, opened for the tree `beside`, which sees each step as the newest of a path; `root` is a key."""
        self._tree, self._scorer = beside, scorer
        self._places: dict[int, NodeId] = {root: ROOT}

    async def score(self, tree: SearchTree, step: Step) -> Scored:
        """Score a step for a pending node of `tree`, which is not changed.

        Raises:
            ScoringError, EngineError: as the scorer does.
        """
        at = ROOT
        for node in tree.path(step.node)[:-1]:
            if node.seed not in self._places:
                same = Step(node.id, node.ids, node.text, FinishReason.STOP, node.writer, logprobs=node.logprobs)
                self._places[node.seed] = self._add(at, same)
            at = self._places[node.seed]
        place = self._add(at, step)
        (score,) = await self._scorer.score(self._tree, [place])
        return Scored(score, place)

    def keep(self, key: int, scored: Scored) -> None:
        """The search took this step for the node of this key: what is cached for it serves what comes below."""
        self._places[key] = scored.place

    async def drop(self, scored: Scored) -> None:
        """The search did not take this step: what is cached for it is given back."""
        await self._scorer.release(self._tree.keys([scored.place]))

    def usage(self) -> Mapping[str, Usage]:
        """What the scorer's engine did, as "router", if it has one."""
        return dict(zip(("router",), self._scorer.usage().values(), strict=False))

    async def release(self, keys: Collection[int]) -> None:
        """Free what is cached for the nodes of these keys and all below."""
        if places := {self._places[key] for key in keys if key in self._places}:
            await self._scorer.release(self._tree.keys(places))

    def _add(self, above: NodeId, step: Step) -> NodeId:
        node = self._tree.add_child(above)
        self._tree.write(Step(node, step.ids, step.text, step.finish, step.writer, logprobs=step.logprobs))
        return node
