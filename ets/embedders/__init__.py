"""Embedders by name. A model is loaded when it is asked for, not before."""

from __future__ import annotations

from ets.coverage import DEFAULT_DISTANCE
from ets.embedders.base import DEFAULT_CACHE_TEXTS, Embedder, EmbeddingFeature
from search.errors import ConfigError
from search.protocols import FeatureProvider

__all__ = ["CLUSTER_DISTANCES", "EMBEDDERS", "Embedder", "EmbeddingFeature", "cluster_distance", "make_embedder"]

EMBEDDERS = ("tfidf", "minilm", "prm", "sentence-transformers:MODEL")
"""By name. `make_embedder` makes all but "prm", which reads a scorer's hidden states (`prm.hidden`)."""

CLUSTER_DISTANCES = {"tfidf": 0.2, "minilm": 0.05, "prm": 0.01}
"""Where clusters are cut, by embedder; ETS (arXiv 2502.13575) cuts at 0.05, on embeddings of mathematical texts.

Calibrated on dev problems of the mini family (`ets bench embedders`), over pairs of candidates of one level. Cut too
coarsely, a right step falls together with a wrong one that the reward model likes better, and its width with it.
Hashed words find another result of the same operation 0.2 or more away in 98 of 100 pairs, and a third of all other
wordings nearer. MiniLM hardly tells the two apart. The reward model's hidden states do, where its rewards do.
"""


def cluster_distance(embedder: str) -> float:
    """Where clusters are cut unless the user says otherwise; for a model of the user's own as in the paper."""
    return CLUSTER_DISTANCES.get(embedder, DEFAULT_DISTANCE)


def make_embedder(name: str, *, device: str = "cpu", cache_texts: int = DEFAULT_CACHE_TEXTS) -> FeatureProvider:
    """The provider of the feature "embedding".

    Args:
        name: "tfidf", "minilm", or "sentence-transformers:MODEL" with a hub id or a path; for real mathematics that of
            the paper, math-similarity/Bert-MLM_arXiv-MP-class_zbMath.
        device: of a model.
        cache_texts: vectors to keep at most.

    Raises:
        ConfigError: unknown; or its package or model is not here.
    """
    kind, _, model = name.partition(":")
    if name == "tfidf":
        from ets.embedders.tfidf import TfidfEmbedder

        return EmbeddingFeature(TfidfEmbedder(), cache_texts=cache_texts)
    if name == "minilm" or (kind == "sentence-transformers" and model):
        from ets.embedders.sentence import SentenceEmbedder

        return EmbeddingFeature(SentenceEmbedder.load(model, device=device), cache_texts=cache_texts)
    if name == "prm":
        raise ConfigError("embedder prm needs a scorer: make a prm.hidden.HiddenFeature of it")
    raise ConfigError(f"unknown embedder {name!r}; known: {', '.join(EMBEDDERS)}")
