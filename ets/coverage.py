"""Semantic coverage: which leaves say the same, by average-linkage clusters of their steps' embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array

from ets.problem import Floats, Ints
from search.errors import ConfigError, PolicyError

DEFAULT_DISTANCE = 0.05
"""Where ETS (arXiv 2502.13575) cuts."""

SPARSE = 0.15
"""Vectors less filled than this are multiplied as sparse ones ..."""

FEW = 128
"""... unless they are fewer than this."""


class Clusters(NamedTuple):
    """Groups of leaves.

    Attributes:
        labels: 0 .. K - 1, numbered by their first leaf. (num_leaves,)
        num_unknown: leaves whose embedding is not finite; each is a cluster of its own, equal texts together.
    """

    labels: Ints
    num_unknown: int = 0

    @property
    def num_clusters(self) -> int:
        """K."""
        return int(self.labels.max()) + 1


def cluster_steps(
    texts: Sequence[str], embeddings: Sequence[ArrayLike], distance: float = DEFAULT_DISTANCE
) -> Clusters:
    """Cluster leaves by the cosine distance of their newest steps, cut at `distance`, as in ETS.

    A single leaf, or texts that are all equal, make one cluster without a look at the embeddings. Zero vectors have
    no direction: they are together, at distance 1 from all others. The result does not depend on the leaves' order.

    Differs: equal texts with equal embeddings count once in an average, so clusters do not move with how often a step
    was sampled.

    Args:
        texts: the newest step of each leaf; at least one.
        embeddings: a vector of each, of equal lengths. (num_leaves, dim)
        distance: cosine distance in [0, 2]; clusters whose average distance is at most this are joined.

    Raises:
        ConfigError: the distance is out of range.
        PolicyError: as many embeddings as texts are needed, all of one length.
    """
    check_distance(distance)
    if len(texts) != len(embeddings):
        raise PolicyError(f"{len(embeddings)} embeddings for {len(texts)} steps")
    if len(set(texts)) == 1:
        return Clusters(np.zeros(len(texts), dtype=np.int64))
    try:
        rows = np.asarray(embeddings, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PolicyError(f"embeddings must be vectors of one length: {error}") from None
    if rows.ndim != 2:
        raise PolicyError(f"embeddings must be vectors of one length, not {rows.shape[1:]}")
    # One text may stand below several parents; embedders that read the path above it then tell the two apart.
    steps = [(text, row.tobytes()) for text, row in zip(texts, rows, strict=True)]
    first: dict[tuple[str, bytes], int] = {}
    for leaf, step in enumerate(steps):
        first.setdefault(step, leaf)
    unique = sorted(first)
    vectors = rows[[first[step] for step in unique]]
    known = np.asarray(np.isfinite(vectors).all(axis=1))
    groups = np.empty(len(unique), dtype=np.int64)
    groups[~known] = len(unique) + np.arange(len(unique) - known.sum())
    groups[known] = _average_linkage(cosine_distances(vectors[known]), distance)
    group_of = dict(zip(unique, groups.tolist(), strict=True))
    is_known = dict(zip(unique, known.tolist(), strict=True))
    label: dict[int, int] = {}
    labels = [label.setdefault(group_of[step], len(label)) for step in steps]
    return Clusters(np.array(labels, dtype=np.int64), sum(not is_known[step] for step in steps))


def cosine_distances(vectors: Floats) -> Floats:
    """1 - cosine of every pair; 0 between two zero vectors, 1 between a zero vector and another, (n, n)."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    zero = lengths == 0
    directions = vectors / np.where(zero, 1.0, lengths)[:, None]
    distances = np.clip(1.0 - _products(directions), 0.0, 2.0)
    distances[np.ix_(zero, zero)] = 0.0
    np.fill_diagonal(distances, 0.0)
    return np.asarray((distances + distances.T) / 2)


def _products(rows: Floats) -> Floats:
    """The dot product of every pair of rows, of shape (n, n).

    Hashed words leave most of a vector empty. A sparse product is then faster, and unlike a dense one it never waits
    for another thread on a machine that is busy with the search itself.
    """
    if len(rows) < FEW or np.count_nonzero(rows) > SPARSE * rows.size:
        return np.asarray(rows @ rows.T)
    sparse = csr_array(rows)
    return np.asarray((sparse @ sparse.T).toarray())


def check_distance(distance: float) -> None:
    """Refuse a cut that is no cosine distance.

    Raises:
        ConfigError: not in [0, 2].
    """
    if not 0 <= distance <= 2:
        raise ConfigError(f"cluster_distance must be in [0, 2], not {distance}")


def _average_linkage(distances: Floats, cut: float) -> Ints:
    """Labels of the flat clusters, from 1, (n,)."""
    if len(distances) < 2:
        return np.ones(len(distances), dtype=np.int64)
    upper = distances[np.triu_indices(len(distances), 1)]
    return np.asarray(fcluster(linkage(upper, "average"), cut, "distance"), dtype=np.int64)
