"""Steps that may never become nodes, as nodes of a tree beside the search's own, so that a scorer can score them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from search.protocols import Engine, Scorer
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Step, Usage


class Scored(NamedTuple):
    """A score in [0, 1] and the place of what it was given to; see `StepScorer`."""

    score: float
    place: NodeId


class _ShadowTree:
    """The paths of a search tree, with steps hung below them that the search may or may not take."""

    __slots__ = ("nodes", "tree")

    def __init__(self, tree: SearchTree) -> None:
        root = tree.root
        self.tree = SearchTree(f"{tree.id}/router", root.ids, root.text, tree.question)
        self.nodes: dict[NodeId, NodeId] = {ROOT: ROOT}

    def hang(self, tree: SearchTree, step: Step) -> NodeId:
        """Add a step for a pending node of `tree`, with whatever of the path above it is not here yet."""
        *above, pending = tree.path(step.node)
        assert pending.parent is not None
        for node in above:
            if node.id not in self.nodes:
                assert node.parent is not None
                same = Step(node.id, node.ids, node.text, FinishReason.STOP, node.writer)
                self.nodes[node.id] = self._add(self.nodes[node.parent], same)
        return self._add(self.nodes[pending.parent], step)

    def _add(self, above: NodeId, step: Step) -> NodeId:
        node = self.tree.add_child(above)
        self.tree.write(Step(node, step.ids, step.text, step.finish, step.writer))
        return node


class StepScorer:
    """Scores steps that pending nodes might get. Each is settled by `keep` or `drop` once its fate is known."""

    def __init__(self, scorer: Scorer) -> None:
        """Ask `scorer`, which sees each step as the newest of a path."""
        self.scorer = scorer
        self._trees: dict[str, _ShadowTree] = {}

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The scorer's engine, as "router"."""
        (engine,) = self.scorer.engines.values()
        return {"router": engine}

    async def score(self, tree: SearchTree, step: Step) -> Scored:
        """Score a step for a pending node of `tree`, which is not changed.

        Raises:
            ScoringError, EngineError: as the scorer does.
        """
        shadow = self._trees.setdefault(tree.id, _ShadowTree(tree))
        place = shadow.hang(tree, step)
        (score,) = await self.scorer.score(shadow.tree, [place])
        return Scored(score, place)

    def keep(self, tree: SearchTree, node: NodeId, scored: Scored) -> None:
        """The search took this step for its node: what is cached for it serves what comes below."""
        self._trees[tree.id].nodes[node] = scored.place

    async def drop(self, tree: SearchTree, scored: Scored) -> None:
        """The search did not take this step: what is cached for it is given back."""
        if tree.id in self._trees:
            await self.scorer.release(self._trees[tree.id].tree, {scored.place})

    def usage(self, tree: SearchTree) -> Mapping[str, Usage]:
        """What the scorer's engine did for a tree, as "router"."""
        if tree.id not in self._trees:
            return {"router": Usage()}
        (usage,) = self.scorer.usage(self._trees[tree.id].tree).values()
        return {"router": usage}

    async def release(self, tree: SearchTree, nodes: Collection[NodeId] | None) -> None:
        """Free what is cached for these nodes and all below, or for the whole tree (None)."""
        shadow = self._trees.get(tree.id)
        if shadow is None:
            return
        if nodes is None:
            del self._trees[tree.id]
            await self.scorer.release(shadow.tree, None)
        elif places := {shadow.nodes[node] for node in nodes if node in shadow.nodes}:
            await self.scorer.release(shadow.tree, places)
