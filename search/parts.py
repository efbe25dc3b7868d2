"""What writers, scorers and routers may inherit: one session for all who share it, or none to speak of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from search.protocols import Engine
from search.tree import SearchTree
from search.types import Usage


class Engineless:
    """What a part without an engine of its own, and its sessions, have to say of engines."""

    engines: ClassVar[Mapping[str, Engine]] = MappingProxyType({})

    def usage(self) -> Mapping[str, Usage]:
        """Nothing runs."""
        return {}

    def num_unique_tokens(self) -> int:
        """None are read."""
        return 0

    async def release(self, keys: Collection[int]) -> None:
        """Nothing is cached."""


class Stateless(Engineless):
    """A part that holds nothing of a tree: it is its own session, for all trees."""

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[Self]:
        """Nothing begins."""
        del tree
        yield self


class _Session(Protocol):
    async def release(self, keys: Collection[int] | None) -> None:
        """Free what is cached for these keys, or, at the end, for the whole tree (None)."""


_S = TypeVar("_S", bound=_Session)


class Shared(ABC, Generic[_S]):
    """A part that several others use for one tree, e.g. a writer whose states a probe reads.

    Who opens a tree that is open already is given the session that there is, and the last one to leave closes it.
    """

    def __init__(self) -> None:
        """None is open."""
        self._open: dict[str, tuple[_S, int]] = {}

    @abstractmethod
    def _session(self, tree: SearchTree) -> _S:
        """A new session."""

    @asynccontextmanager
    async def open(self, tree: SearchTree) -> AsyncIterator[_S]:
        """The session of a tree."""
        session, num_users = self._open.get(tree.id) or (self._session(tree), 0)
        self._open[tree.id] = (session, num_users + 1)
        try:
            yield session
        finally:
            _, num_users = self._open.pop(tree.id)
            if num_users > 1:
                self._open[tree.id] = (session, num_users - 1)
            else:
                await session.release(None)
