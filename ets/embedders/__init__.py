"""Embedders by name. A model is loaded when it is asked for, not before."""

from __future__ import annotations

from ets.embedders.base import Embedder, EmbeddingFeature
from search.errors import ConfigError
from search.protocols import FeatureProvider

__all__ = ["EMBEDDERS", "Embedder", "EmbeddingFeature", "make_embedder"]

EMBEDDERS = ("tfidf", "minilm", "prm", "sentence-transformers:MODEL")
"""By name. `make_embedder` makes all but "prm", which reads a scorer's hidden states (`prm.hidden`)."""


def make_embedder(name: str, *, device: str = "cpu") -> FeatureProvider:
    """The provider of the feature "embedding".

    Args:
        name: "tfidf", "minilm", or "sentence-transformers:MODEL" with a hub id or a path; for real mathematics that of
            ETS (arXiv 2502.13575), math-similarity/Bert-MLM_arXiv-MP-class_zbMath.
        device: of a model.

    Raises:
        ConfigError: unknown; or its package or model is not here.
    """
    kind, _, model = name.partition(":")
    if name == "tfidf":
        from ets.embedders.tfidf import TfidfEmbedder

        return EmbeddingFeature(TfidfEmbedder())
    if name == "minilm" or (kind == "sentence-transformers" and model):
        from ets.embedders.sentence import SentenceEmbedder

        return EmbeddingFeature(SentenceEmbedder.load(model, device=device))
    if name == "prm":
        raise ConfigError("embedder prm needs a scorer: make a prm.hidden.HiddenFeature of it")
    raise ConfigError(f"unknown embedder {name!r}; known: {', '.join(EMBEDDERS)}")
