"""Embedding without a model: words and pairs of words, weighted by how rare they are among a level's steps."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ets.embedders.base import Vectors

_TOKEN = re.compile(r"\\?\w+|[^\w\s]")
"""A word, a number, a LaTeX command, or a single sign."""

NUM_BUCKETS = 1024
"""Dimensions; terms are hashed into them."""

MAX_WORDS = 2
"""Length of a term in words at most."""


class TfidfEmbedder:
    """Hashed TF-IDF. A term's weight is (1 + ln count) * (1 + ln((1 + n) / (1 + n_t))), n texts, n_t with the term.

    The n texts are the distinct ones of one call, which the driver makes for the leaves of one level: what all
    candidates share says little. A vector therefore depends on the call, but not on its order.
    """

    name: ClassVar[str] = "tfidf"
    batch_free: ClassVar[bool] = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1; a text without words is the zero vector, (num_texts, NUM_BUCKETS)."""
        counts = np.zeros((len(texts), NUM_BUCKETS))
        for row, text in enumerate(texts):
            for term, count in Counter(_terms(text)).items():
                counts[row, zlib.crc32(term.encode()) % NUM_BUCKETS] += count
        present = counts > 0
        rarity = 1 + np.log((1 + len(texts)) / (1 + present.sum(axis=0)))
        weights = np.where(present, 1 + np.log(np.where(present, counts, 1.0)), 0.0) * rarity
        lengths = np.sqrt((weights**2).sum(axis=1, keepdims=True))
        return np.asarray(weights / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def _terms(text: str) -> list[str]:
    words = _TOKEN.findall(text.lower())
    return [
        " ".join(words[start : start + length])
        for length in range(1, MAX_WORDS + 1)
        for start in range(len(words) - length + 1)
    ]
