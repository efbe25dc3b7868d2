"""Clusters of steps, by hand and in the corners: zero vectors, NaN, one leaf, equal texts."""

import numpy as np
import pytest

from ets.coverage import FEW, cluster_steps, cosine_distances
from search.errors import ConfigError, PolicyError


def at(*degrees):
    return [np.array([np.cos(np.radians(d)), np.sin(np.radians(d))]) for d in degrees]


def labels(texts, vectors, distance=0.05):
    return cluster_steps(texts, vectors, distance).labels.tolist()


def test_average_linkage_by_hand():
    # 1 - cos: 10 degrees 0.0152, 20 degrees 0.0603, 30 degrees 0.134.
    texts = ["a", "b", "c", "d"]
    assert labels(texts, at(0, 10, 90, 100)) == [0, 0, 1, 1]
    # c is 0.0152 from b and 0.0603 from a: on average 0.0377, so it joins at 0.05 and not at 0.03.
    assert labels(["a", "b", "c"], at(0, 10, 20)) == [0, 0, 0]
    assert labels(["a", "b", "c"], at(0, 9, 20), 0.03) == [0, 0, 1]
    # The length of a vector does not matter, its direction does.
    assert labels(["a", "b"], [np.array([1.0, 0.0]), np.array([50.0, 0.0])], 0.0) == [0, 0]
    assert labels(["a", "b"], [np.array([1.0, 0.0]), np.array([-1.0, 0.0])], 1.9) == [0, 1]
    assert labels(["a", "b"], [np.array([1.0, 0.0]), np.array([-1.0, 0.0])], 2.0) == [0, 0]


def test_equal_texts_weigh_in_the_linkage_as_often_as_they_are():
    # 1 - cos: 0.0152 between neighbours, 0.0603 between the first and the last.
    assert labels(["a", "b", "c"], at(0, 10, 20)) == [0, 0, 0]
    # Ten times "a" and once "b": the mean distance to "c" is 0.056.
    assert labels(["a"] * 10 + ["b", "c"], at(*[0] * 10, 10, 20)) == [0] * 11 + [1]
    assert labels(["a", "b", "a"], at(0, 90, 0)) == [0, 1, 0]


def test_the_cut_is_found_from_the_levels_own_distances():
    angles = [0, 8, 60, 68, 120, 200]
    texts = [f"t{angle}" for angle in angles]
    vectors = at(*angles)
    found = cluster_steps(texts, vectors, None)
    apart = [1 - float(a @ b) for i, a in enumerate(vectors) for b in vectors[:i]]
    assert found.distance == pytest.approx(np.mean(apart) / 4)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 3]
    # How often a step was sampled does not move the cut, nor does an embedder that finds all things nearer.
    often = cluster_steps(texts[:1] * 20 + texts, vectors[:1] * 20 + vectors, None)
    assert often.distance == pytest.approx(found.distance)
    near = [np.append(v, 3.0) for v in vectors]
    assert cluster_steps(texts, near, None).labels.tolist() == found.labels.tolist()
    assert cluster_steps(texts, near, None).distance == pytest.approx(found.distance / 10)


def test_levels_without_a_distance_are_cut_nowhere():
    assert labels(["a", "a"], at(0, 0), None) == [0, 0] and labels(["b"], at(0), None) == [0]
    assert labels(["a", "b", "c"], at(0, 120, 240), None) == [0, 1, 2], "all as far from each other"
    assert labels(["a", "b"], at(0, 1), None) == [0, 1], "two steps: nothing is typical"
    assert labels(["a", "b", "c"], [np.zeros(2)] * 3, None) == [0, 0, 0]
    nan = np.array([np.nan, 0.0])
    assert labels(["a", "b", "c"], [nan] * 3, None) == [0, 1, 2]


def test_one_leaf_and_equal_texts_need_no_look_at_the_vectors():
    nothing = np.array([np.nan])
    assert labels(["a"], [nothing]) == [0]
    assert cluster_steps(["a", "a", "a"], [nothing] * 3, 0.05).num_clusters == 1


def test_zero_vectors_are_together_and_far_from_all_others():
    zero, one = np.zeros(2), np.array([1.0, 0.0])
    assert labels(["a", "b", "c", "d"], [zero, one, zero, one]) == [0, 1, 0, 1]
    assert cosine_distances(np.array([zero, one, zero])).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_what_is_not_finite_is_a_cluster_of_its_own_and_is_counted():
    nan, inf, one = np.array([np.nan, 0.0]), np.array([np.inf, 0.0]), np.array([1.0, 0.0])
    found = cluster_steps(["a", "b", "c", "d", "a"], [nan, one, inf, one, nan])
    assert found.labels.tolist() == [0, 1, 2, 1, 0]
    assert found.num_unknown == 3
    assert cluster_steps(["a", "b"], [nan, inf]).labels.tolist() == [0, 1]


def test_sparse_and_dense_vectors_give_the_same_distances():
    rng = np.random.default_rng(0)
    dense = rng.random((FEW, 400)) * (rng.random((FEW, 400)) < 0.05)
    lengths = np.linalg.norm(dense, axis=1)
    assert cosine_distances(dense) == pytest.approx(1 - dense @ dense.T / np.outer(lengths, lengths), abs=1e-12)
    full = rng.normal(size=(12, 8))
    lengths = np.linalg.norm(full, axis=1)
    assert cosine_distances(full) == pytest.approx(1 - full @ full.T / np.outer(lengths, lengths), abs=1e-12)


def test_wrong_input_is_refused():
    with pytest.raises(ConfigError, match=r"cluster_distance must be in \[0, 2\], not -0.1"):
        cluster_steps(["a"], at(0), -0.1)
    with pytest.raises(ConfigError, match="cluster_distance"):
        cluster_steps(["a"], at(0), float("nan"))
    with pytest.raises(PolicyError, match="1 embeddings for 2 steps"):
        cluster_steps(["a", "b"], at(0))
    with pytest.raises(PolicyError, match="vectors of one length"):
        cluster_steps(["a", "b"], [np.zeros(2), np.zeros(3)])
    with pytest.raises(PolicyError, match="vectors of one length"):
        cluster_steps(["a", "b"], [np.float64(1), np.float64(2)])
    with pytest.raises(PolicyError, match="vectors of one length"):
        cluster_steps(["a", "b"], [None, None])
