"""The fake engine's books: which tokens of a tree have been computed and are held."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field

from search.types import Prefix, Usage


@dataclass(slots=True)
class _Node:
    """A segment: the first `num_held` of its ids have been through the model and are held."""

    key: int
    parent: int | None
    ids: tuple[int, ...] | None = None
    num_held: int = 0
    children: set[int] = field(default_factory=set)


class TreeCache:
    """One tree's segments, by key, with what computing them cost.

    A step's end leaves its last token pending: it is computed when the segment is first continued or read, so
    a token is computed once. Nodes have handles of their own, as one key may come again with other ids while
    a row under the old one still writes; whoever writes a row sees by `is_held` that its node is gone.
    """

    def __init__(self) -> None:
        """Start with nothing held."""
        self.num_calls = 0
        self.sampled_tokens = 0
        self.num_computed = self._held = self._peak = 0
        self._nodes: dict[int, _Node] = {}
        self._handles: dict[int, int] = {}
        self._new_handle = itertools.count()

    @property
    def keys(self) -> tuple[int, ...]:
        """The keys of all nodes, those being written included."""
        return tuple(self._handles)

    def usage(self) -> Usage:
        """The books so far."""
        return Usage(
            computed_tokens=self.num_computed,
            sampled_tokens=self.sampled_tokens,
            num_calls=self.num_calls,
            kv_tokens_held=self._held,
            kv_tokens_peak=self._peak,
            recomputed_tokens=0,
        )

    def compute(self, prefix: Prefix) -> int:
        """Compute what is not held of `prefix`; returns the handle of its last segment."""
        parent: int | None = None
        for segment in prefix.segments:
            handle = self._handles.get(segment.key)
            if handle is not None:
                node = self._nodes[handle]
                if node.ids != segment.ids or node.parent != parent:
                    self._drop(handle)
                    handle = None
            if handle is None:
                handle = self._add(segment.key, parent, segment.ids)
            node = self._nodes[handle]
            self._hold(node, len(segment.ids) - node.num_held)
            parent = handle
        assert parent is not None, "the prefix has segments"
        return parent

    def start_row(self, parent: int, key: int) -> int:
        """A node for a step to be written below `parent`; returns its handle."""
        if (old := self._handles.get(key)) is not None:
            self._drop(old)
        return self._add(key, parent, None)

    def is_held(self, handle: int) -> bool:
        """Whether a node is still there: not released, not replaced."""
        return handle in self._nodes

    def compute_row_token(self, handle: int) -> None:
        """Put one more token of a step being written through the model."""
        self._hold(self._nodes[handle], 1)

    def finish_row(self, handle: int, ids: tuple[int, ...]) -> None:
        """Give a written step its ids; all but the last are held. One that is gone stays gone."""
        if (node := self._nodes.get(handle)) is not None:
            assert node.num_held == len(ids) - 1
            node.ids = ids

    def drop_unfinished(self, handle: int) -> None:
        """Forget a step whose writing was stopped."""
        node = self._nodes.get(handle)
        if node is not None and node.ids is None:
            self._drop(handle)

    def release(self, keys: Collection[int]) -> None:
        """Give back these keys and all below; unknown ones are ignored."""
        for key in keys:
            if (handle := self._handles.get(key)) is not None:
                self._drop(handle)

    def _add(self, key: int, parent: int | None, ids: tuple[int, ...] | None) -> int:
        handle = next(self._new_handle)
        self._nodes[handle] = _Node(key, parent, ids)
        self._handles[key] = handle
        if parent is not None and parent in self._nodes:
            self._nodes[parent].children.add(handle)
        return handle

    def _hold(self, node: _Node, num_tokens: int) -> None:
        node.num_held += num_tokens
        self.num_computed += num_tokens
        self._held += num_tokens
        self._peak = max(self._peak, self._held)

    def _drop(self, handle: int) -> None:
        above = self._nodes[handle].parent
        if above is not None and above in self._nodes:
            self._nodes[above].children.discard(handle)
        stack = [handle]
        while stack:
            node = self._nodes.pop(current := stack.pop())
            self._held -= node.num_held
            if self._handles.get(node.key) == current:
                del self._handles[node.key]
            stack.extend(node.children)
