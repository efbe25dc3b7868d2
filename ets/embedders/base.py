"""What embeds texts, and the node feature made of it: batched, cached, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.errors import EngineError
from search.tree import Node, SearchTree

Vectors: TypeAlias = NDArray[np.float32]

DEFAULT_CACHE_TEXTS = 8192
"""Texts whose vectors are kept: 12 MB at 384 dimensions."""


class Embedder(Protocol):
    """Texts to vectors. Called from one thread at a time."""

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def batch_free(self) -> bool:
        """Whether a text's vector depends on that text alone, and not on the others of its call."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text, (num_texts, dim)."""


class EmbeddingFeature:
    """The node feature "embedding": each node's own text through an embedder (a `search.protocols.FeatureProvider`).

    Equal texts are embedded once, all texts of one call in one batch, in a thread of their own; vectors that depend
    on their text alone are kept for the next call, the least recently used dropped first. Problems that run side
    by side share the cache.
    """

    name: ClassVar[str] = "embedding"

    def __init__(self, embedder: Embedder, *, cache_texts: int = DEFAULT_CACHE_TEXTS) -> None:
        """Wrap an embedder.

        Args:
            embedder: who does the work.
            cache_texts: vectors to keep at most.
        """
        self.embedder = embedder
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._cache_texts = cache_texts if embedder.batch_free else 0
        self._lock = threading.Lock()

    @property
    def batch_free(self) -> bool:
        """Whether a text's vector depends on that text alone."""
        return self.embedder.batch_free

    async def compute(self, tree: SearchTree, nodes: Sequence[Node]) -> Sequence[object]:
        """One vector for each node, in order; white space round a text does not count.

        Raises:
            EngineError: the embedder failed.
        """
        return await asyncio.to_thread(self._compute, [node.text.strip() for node in nodes])

    def _compute(self, texts: Sequence[str]) -> list[Vectors]:
        unique = sorted(set(texts))
        with self._lock:
            vectors = {text: self._cache[text] for text in unique if text in self._cache}
            missing = [text for text in unique if text not in vectors]
            if missing:
                vectors.update(zip(missing, self._embed(missing), strict=True))
            for text in unique[: self._cache_texts]:
                self._cache[text] = vectors[text]
                self._cache.move_to_end(text)
            while len(self._cache) > self._cache_texts:
                self._cache.popitem(last=False)
        return [vectors[text] for text in texts]

    def _embed(self, texts: Sequence[str]) -> Vectors:
        try:
            vectors = np.asarray(self.embedder.embed(texts), dtype=np.float32)
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"embedder {self.embedder.name}: {error}", endpoint=self.embedder.name) from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            message = f"embedder {self.embedder.name}: {vectors.shape} for {len(texts)} texts"
            raise EngineError(message, endpoint=self.embedder.name)
        return vectors
