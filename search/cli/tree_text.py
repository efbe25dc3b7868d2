"""The tree of a search as lines of text: what led to a solution, with what was left out beside it as a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from search.tree import Node, SearchTree
from search.types import NodeId, NodeStatus

_MARKS: Mapping[NodeStatus, str] = {
    NodeStatus.FINISHED: "*",
    NodeStatus.PRUNED: "x",
    NodeStatus.FAILED: "!",
    NodeStatus.EXPANDED: "o",
    NodeStatus.OPEN: "o",
    NodeStatus.PENDING: "?",
}


class Line(NamedTuple):
    """A line of a drawn tree, and whether it lies on the winning path."""

    text: str
    chosen: bool


class _Guides(NamedTuple):
    """What shows where a child hangs: one that others follow, the last one, and what runs beside their children."""

    child: str
    last: str
    beside: str
    ellipsis: str


_LINES = _Guides("├ ", "└ ", "│ ", "…")
_ASCII = _Guides("|-", "`-", "| ", "...")


def legend(routed: bool) -> str:
    """What the marks mean, in lines of at most 80 columns."""
    by = "T, d: written by the target, by the draft\n" if routed else ""
    return (
        f"o step, * end, ! failed, > the winning path, x2: twice the same\n{by}"
        "[3 out, .950]: children that led to no solution, and the best reward of them"
    )


def draw_tree(tree: SearchTree, chosen: NodeId | None, width: int = 80, ascii_only: bool = False) -> list[Line]:
    """The paths to all solutions, or if there is none to the deepest nodes.

    A child that its parent has alone stands below it without a guide; equal ends of one parent are one line.

    Args:
        tree: a searched tree.
        chosen: the winning trajectory's last node.
        width: columns of a line at most.
        ascii_only: no line-drawing letters.
    """
    path = frozenset(() if chosen is None else tree.union([chosen]))
    routed = any(node.writer in ("draft", "target") for node in tree)
    return list(_Drawing(tree, path, _shown(tree), width, _ASCII if ascii_only else _LINES, routed).lines())


def one_line(text: str) -> str:
    """Text on one line, whatever a model wrote: spaces run together, and nothing in it can steer a terminal."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Text whose only control characters are line ends."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _shown(tree: SearchTree) -> set[NodeId]:
    """The nodes that are drawn."""
    ends = [node.id for node in tree.leaves(NodeStatus.FINISHED)]
    if not ends:
        depth = max(node.depth for node in tree)
        ends = [node.id for node in tree if node.depth == depth]
    return tree.union(ends)


class _Hanging(NamedTuple):
    """A node to be drawn: how many it stands for, its guides, and the indent of what hangs below it."""

    node: Node
    number: int
    guides: str
    indent: str


@dataclass(frozen=True, slots=True)
class _Drawing:
    """One tree being drawn; see `draw_tree`."""

    tree: SearchTree
    path: frozenset[NodeId]
    shown: set[NodeId]
    width: int
    guides: _Guides
    routed: bool

    def lines(self) -> Iterator[Line]:
        """All lines, the prompt's first."""
        root = self.tree.root
        yield Line(self._fitted(f"{self._side(root)}prompt", "", self._left_out(root)), root.id in self.path)
        waiting = self._hanging(root, "")
        while waiting:
            row = waiting.pop()
            yield self._line(row.node, row.number, row.guides)
            waiting += self._hanging(row.node, row.indent)

    def _hanging(self, node: Node, indent: str) -> list[_Hanging]:
        """What is to be drawn below a node, the last first."""
        children = self._children(node)
        if len(children) == 1:
            return [_Hanging(*children[0], indent, indent)]
        last, child, beside = self.guides.last, self.guides.child, self.guides.beside
        below = [_Hanging(*pair, indent + child, indent + beside) for pair in children]
        if below:
            below[-1] = _Hanging(*children[-1], indent + last, indent + "  ")
        return below[::-1]

    def _children(self, node: Node) -> list[tuple[Node, int]]:
        """The children that are drawn; equal ends once, the chosen one before the others, with their number."""
        groups: dict[object, list[Node]] = {}
        for child_id in self.tree.children(node.id):
            if child_id in self.shown:
                child = self.tree[child_id]
                ends = not self.tree.children(child_id)
                groups.setdefault((child.text, child.status, child.writer) if ends else child_id, []).append(child)
        return [(min(group, key=lambda member: member.id not in self.path), len(group)) for group in groups.values()]

    def _line(self, node: Node, count: int, guides: str) -> Line:
        if len(guides) > self.width // 2:
            guides = self.guides.ellipsis + guides[-(self.width // 2) :]
        reward = "  - " if node.reward is None else _short(node.reward)
        by = {"target": "T ", "draft": "d "}.get(node.writer, "") if self.routed else ""
        start = f"{self._side(node)}{guides}{_MARKS[node.status]} {reward} {by}"
        times = f" x{count}" if count > 1 else ""
        text = node.reason if node.status is NodeStatus.FAILED else node.text
        return Line(self._fitted(start, one_line(text), times + self._left_out(node)), node.id in self.path)

    def _side(self, node: Node) -> str:
        return "> " if node.id in self.path else "  "

    def _left_out(self, node: Node) -> str:
        """The children that are not drawn, in short."""
        out = [self.tree[child] for child in self.tree.children(node.id) if child not in self.shown]
        if not out:
            return ""
        rewards = [child.reward for child in out if child.reward is not None]
        failed = sum(child.status is NodeStatus.FAILED for child in out)
        parts = [f"{len(out)} out", *([_short(max(rewards))] if rewards else []), *([f"{failed} !"] if failed else [])]
        return f" [{', '.join(parts)}]"

    def _fitted(self, start: str, text: str, end: str) -> str:
        """A line of at most the width; of the step as much as there is room for."""
        room = self.width - cell_len(start) - cell_len(end)
        if cell_len(text) > room:
            cut = Text(text)
            cut.truncate(max(0, room - len(self.guides.ellipsis)), overflow="crop")
            text = cut.plain.rstrip() + (self.guides.ellipsis if room >= len(self.guides.ellipsis) else "")
        whole = Text(start + text + end)
        whole.truncate(self.width, overflow="crop")
        return whole.plain.rstrip()


def _short(reward: float) -> str:
    """A reward in four columns, rounded down so that only 1 reads as 1."""
    return "1.00" if reward >= 1 else f".{int(reward * 1000):03d}"
