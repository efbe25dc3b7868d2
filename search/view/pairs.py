"""Two searches of the same problem side by side: where they part, why each pruned what it pruned, what each cost."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from search.errors import ConfigError
from search.view.document import asset, content_policy, data_element, filled, viewer, viewer_script
from search.view.kept import Kept

_COSTS = ("kv_tokens_peak", "kv_tokens_mean", "policy_tokens", "unique_tokens")
_FATES = {"expanded": "kept", "finished": "kept", "pruned": "pruned", "failed": "failed"}
_REASON_CHARACTERS = 80


def pair_views(left: Kept, right: Kept) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The views of the problems that both hold, in the order of the left one.

    Raises:
        ConfigError: there are none.
    """
    others = {(view["id"], view["problem"]): view for view in right.views}
    pairs = [(view, others[key]) for view in left.views if (key := (view["id"], view["problem"])) in others]
    if not pairs and len(left.views) == len(right.views) == 1 and left.views[0]["problem"] == right.views[0]["problem"]:
        pairs = [(left.views[0], right.views[0])]
    if not pairs:
        raise ConfigError(f"{left.title} and {right.title} have no problem in common")
    return pairs


def partings(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Where two searches of one problem part.

    Nodes are the same where the texts on their paths are; of siblings with one text the first is the first.

    Args:
        left: what `problem_view` gave of one search.
        right: of the other.

    Returns:
        `num_shared`: nodes that both trees have, the prompt left out. `depth`: of the first step that one of them has
        or keeps and the other does not; None where there is none. `nodes`: the shared steps that one kept and the other
        did not, by depth: their ids (`left`, `right`), depth, text, and what became of each with its reason.
    """
    trees = [_Tree(left), _Tree(right)]
    shared: list[tuple[int, int, int]] = []
    alone: list[int] = []
    todo = [(0, 0, 0)] if all(tree.children for tree in trees) else []
    while todo:
        left_node, right_node, depth = todo.pop()
        below = [tree.by_text(node) for tree, node in zip(trees, (left_node, right_node), strict=True)]
        for text in {**below[0], **below[1]}:
            mine, theirs = below[0].get(text, []), below[1].get(text, [])
            found = [(a, b, depth + 1) for a, b in zip(mine, theirs, strict=False)]
            shared += found
            todo += found
            if len(mine) != len(theirs):
                alone.append(depth + 1)
    parted: list[dict[str, Any]] = []
    for left_node, right_node, depth in sorted(shared, key=lambda pair: (pair[2], pair[0])):
        fates = [tree.fate(node) for tree, node in zip(trees, (left_node, right_node), strict=True)]
        if fates[0][0] != fates[1][0]:
            parted.append(
                {
                    "left": left_node,
                    "right": right_node,
                    "depth": depth,
                    "text": trees[0].text(left_node),
                    "fates": [fate for fate, _ in fates],
                    "reasons": [reason for _, reason in fates],
                }
            )
    depths = [*alone, *(parting["depth"] for parting in parted)]
    return {"num_shared": len(shared), "depth": min(depths, default=None), "nodes": parted}


class _Tree:
    """A view's tree, read by its columns."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        self._columns, self._strings = view["nodes"], view["strings"]
        self.children: dict[int, list[int]] = defaultdict(list)
        for node, parent in enumerate(self._columns.get("parent") or ()):
            if parent is not None:
                self.children[parent].append(node)

    def text(self, node: int) -> str:
        return self._string("text", node)

    def by_text(self, node: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for child in self.children.get(node, ()):
            found[self.text(child)].append(child)
        return found

    def fate(self, node: int) -> tuple[str, str]:
        status = self._string("status", node)
        return _FATES.get(status, status), self._string("reason", node)

    def reasons(self) -> list[tuple[str, int]]:
        """Why steps were left out, most frequent first; figures in a reason do not tell it from others."""
        pruned = (node for node in range(len(self._columns.get("parent") or ())) if self.fate(node)[0] == "pruned")
        counts = Counter(_kind(self.fate(node)[1]) for node in pruned)
        return counts.most_common()

    def _string(self, column: str, node: int) -> str:
        text: str = self._strings[self._columns[column][node]]
        return text


def _kind(reason: str) -> str:
    """A reason's first clause, without its figures."""
    return re.sub(r"[0-9][0-9.,]*", "N", reason.partition(";")[0])[:_REASON_CHARACTERS]


def pair_page(names: tuple[str, str], pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """One self-contained HTML page with the trees of two runs next to each other.

    Args:
        names: of the runs.
        pairs: from `pair_views`.
    """
    problems = [
        {
            "id": left["id"],
            "problem": left["problem"],
            "reference": left["reference"],
            "sides": [_side(view) for view in (left, right)],
            "partings": partings(left, right),
        }
        for left, right in pairs
    ]
    frame = viewer("{{name}}", "{{data}}")
    parts = [data_element("pair", {"names": list(names), "problems": problems, "frame": frame})]
    for place, sides in enumerate(pairs):
        parts += [data_element(f"{side}-{place}", view) for side, view in zip(("left", "right"), sides, strict=True)]
    style, script = asset("pair.css"), asset("script/pair.js")
    title = " and ".join(names)
    # The frames' own style and script are let through as well: a frame from a text has its page's policy too.
    return filled(
        asset("pair.html"),
        title=html.escape(title.encode("utf-8", "replace").decode()),
        policy=html.escape(content_policy([style, asset("page.css")], [script, viewer_script()])),
        style=style,
        script=script,
        data="\n".join(parts),
    )


def _side(view: Mapping[str, Any]) -> dict[str, Any]:
    stats = view["stats"] or {}
    return {
        **{name: view[name] for name in ("answer", "correct", "error", "method", "width", "num_nodes")},
        "costs": {name: stats.get(name) for name in _COSTS},
        "reasons": _Tree(view).reasons(),
    }
