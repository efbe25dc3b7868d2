"""The exact oracle: a router that asks a checker of steps, and takes the target's where it alone is right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from arbitrage.collect import Verdict
from arbitrage.models import ModelView
from arbitrage.writer import DraftTargetWriter
from search.api import Search
from search.parts import Stateless
from search.protocols import Engine, Router
from search.tree import SearchTree
from search.types import Decision, Problem, Step


class Verdicts(NamedTuple):
    """Whether the draft's step and the target's at one node are right."""

    draft: bool
    target: bool


class CheckerRouter(Stateless):
    """An upper bound of every router: its rewards are exact. It sees both steps, so it saves nothing.

    Attributes:
        verdicts: of all nodes that it decided on, in the order of the decisions.
    """

    name = "exact"
    needs: frozenset[Literal["draft", "target"]] = frozenset({"draft", "target"})

    def __init__(self, checker: Verdict, problems: Iterable[Problem]) -> None:
        """Ask `checker` about steps of `problems`, whose texts are the questions of the trees."""
        self._checker = checker
        self._problems = {problem.text: problem for problem in problems}
        self.verdicts: list[Verdicts] = []

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        """Have both steps checked."""
        assert draft is not None and target is not None
        above = [node.text for node in tree.path(draft.node)[1:-1]]
        problem = self._problems[tree.question]
        verdicts = Verdicts(*(self._checker(problem, [*above, step.text]) for step in (draft, target)))
        self.verdicts.append(verdicts)
        return Decision(verdicts.target and not verdicts.draft)


def routed_chain(draft: Engine, target: Engine, router: Router, **settings: Any) -> Search:
    """A search for one chain by draft and target, under a router that has no name in the settings.

    Args:
        draft: the draft model.
        target: the target, in whose ids the trees are.
        router: decides.
        settings: other fields of `SearchSettings`.
    """
    writer = DraftTargetWriter(ModelView(draft, target.tokenizer), ModelView(target, target.tokenizer), router)
    return Search(writer, None, "chain", **settings)
