"""Where a search stands, for who watches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from search.tree import SearchTree
from search.types import Selected


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands, for who watches it.

    Attributes:
        stage: "selected": what the policy ordered stands in the tree as pending nodes, or nothing does and the search
            is at its end; "written": it is about to be asked again, as steps were written and scored, or have failed.
        number: of the selection, from 0.
        tree: the search's own tree, to be read at once and not to be changed.
        selections: what each selection below the root kept so far.
        kv_tokens: tokens of all nodes whose cache is not released.
    """

    stage: Literal["selected", "written"]
    number: int
    tree: SearchTree
    selections: Sequence[Selected]
    kv_tokens: int


Watch = Callable[[Progress], None]
"""Called on the search's own event loop, so it must be quick. What it raises ends the search and is raised there."""
