"""A router of one's own: the target writes the steps in which the draft's numbers are large.

Usage: python examples/own_router.py

With this line in `ROUTERS` of search/catalogue.py it has a name of its own, `--router largest:50`:

    "largest": RouterKind("own_router:LargestNumber", "N", "largest number of a draft that stays", 50, 1000),
"""

from __future__ import annotations

import re

from arbitrage import DraftTargetWriter, ModelView, RouterParts
from arbitrage.routers import Needs
from search import Problem, Search, SearchSettings, SearchTree
from search.mini import problem
from search.parts import Stateless
from search.setup.registry import make_engine
from search.types import Decision, Step


class LargestNumber(Stateless):
    """Escalates a step of the draft with a number above a threshold: small models slip where numbers are large."""

    needs: Needs = frozenset({"draft"})  # it decides before the target is asked

    def __init__(self, highest: float) -> None:
        self.highest = highest

    @classmethod
    def build(cls, parts: RouterParts) -> LargestNumber:
        return cls(parts.threshold)

    @property
    def name(self) -> str:
        return f"largest:{self.highest:g}"

    async def route(self, tree: SearchTree, draft: Step | None, target: Step | None) -> Decision:
        assert draft is not None
        return Decision(any(int(number) > self.highest for number in re.findall("[0-9]+", draft.text)))


def main() -> None:
    settings = SearchSettings()
    draft, target = (make_engine("local", name, settings, None) for name in ("mini:draft", "mini:target"))
    views = (ModelView(draft, target.tokenizer), ModelView(target, target.tokenizer))
    writer = DraftTargetWriter(*views, LargestNumber.build(RouterParts(30, *views)))
    made = problem("test", 3)
    with Search(policy=writer, method="ets", width=8) as search:
        result = search.solve(Problem(made.id, made.text, made.answer))
    print(f"{result.answer}, {'right' if result.correct else 'wrong'}")
    for node in result.tree:
        if node.writer != "prompt":
            print(f"{node.writer} wrote {node.text.strip()!r}")


if __name__ == "__main__":
    main()
