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

PAPER_DISTANCE = 0.05
"""Where ETS (arXiv 2502.13575) cuts."""

TYPICAL = 0.25
"""Steps are alike that are nearer than this part of the mean distance of two different steps of their level.

So the number is not tied to an embedder or a language. At half of the mean, three more of 64 problems of mini:dev were
lost at width 64. On a real model's steps it hardly matters (`ets bench coverage`), but coarser cuts did harm: steps
that are nearer to each other, or state the same numbers, are hardly more alike in where they lead than any two are.
"""

SPARSE = 0.15
"""Vectors less filled than this are multiplied as sparse ones ..."""

FEW = 128
"""... unless they are fewer than this."""


class Clusters(NamedTuple):
    """Groups of leaves.

    Attributes:
        labels: 0 .. K - 1, numbered by their first leaf. (num_leaves,)
        distance: where they were cut; 0 where there was nothing to cut.
        num_unknown: leaves whose embedding is not finite; each is a cluster of its own, equal texts together.
    """

    labels: Ints
    distance: float = 0.0
    num_unknown: int = 0

    @property
    def num_clusters(self) -> int:
        """K."""
        return int(self.labels.max()) + 1


def cluster_steps(
    texts: Sequence[str], embeddings: Sequence[ArrayLike], distance: float | None = PAPER_DISTANCE
) -> Clusters:
    """Cluster leaves by average linkage of the cosine distances of their newest steps, as in ETS (arXiv 2502.13575).

    A single leaf, or texts that are all equal, make one cluster without a look at the embeddings. Zero vectors have
    no direction: they are together, at distance 1 from all others. The result does not depend on the leaves' order.

    Args:
        texts: the newest step of each leaf; at least one.
        embeddings: a vector of each, of equal lengths. (num_leaves, dim)
        distance: cosine distance in [0, 2]; clusters whose average distance is at most this are joined. None: found
            from the level's own distances, `TYPICAL` of their mean over different steps.

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
    embedded = np.asarray(np.isfinite(rows).all(axis=1))
    order = sorted(np.flatnonzero(embedded).tolist(), key=lambda leaf: steps[leaf])
    cut, groups = _average_linkage(rows[order], [steps[leaf] for leaf in order], distance)
    group_of: dict[tuple[str, bytes], int] = {steps[leaf]: group for leaf, group in zip(order, groups, strict=True)}
    for leaf in np.flatnonzero(~embedded).tolist():
        group_of.setdefault(steps[leaf], -1 - leaf)
    label: dict[int, int] = {}
    labels = [label.setdefault(group_of[step], len(label)) for step in steps]
    return Clusters(np.array(labels, dtype=np.int64), cut, int((~embedded).sum()))


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


def check_distance(distance: float | None) -> None:
    """Refuse a cut that is no cosine distance; None stands for one that is found.

    Raises:
        ConfigError: not in [0, 2].
    """
    if distance is not None and not 0 <= distance <= 2:
        raise ConfigError(f"cluster_distance must be in [0, 2], not {distance}")


def _average_linkage(
    rows: Floats, steps: Sequence[tuple[str, bytes]], distance: float | None
) -> tuple[float, list[int]]:
    """Where the tree of clusters is cut, and the flat clusters below, from 1.

    Args:
        rows: (n, dim), equal ones together.
        steps: what tells different ones apart.
        distance: the cut; None for one that is found.
    """
    if len(rows) < 2:
        return distance or 0.0, [1] * len(rows)
    distances = cosine_distances(rows)
    if distance is None:
        first = [i for i, step in enumerate(steps) if i == 0 or step != steps[i - 1]]
        apart = distances[np.ix_(first, first)]
        num_pairs = len(first) * (len(first) - 1)
        distance = TYPICAL * float(apart.sum()) / num_pairs if num_pairs else 0.0
    upper = distances[np.triu_indices(len(distances), 1)]
    return distance, fcluster(linkage(upper, "average"), distance, "distance").tolist()
