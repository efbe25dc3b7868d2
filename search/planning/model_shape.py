"""A model's shape from its files: how many parameters it has, and how large a token's keys and values are."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from prm.checkpoint import tensor_shapes
from search.checkpoints.gguf import is_gguf, read_gguf
from search.checkpoints.hub import find_model
from search.errors import ConfigError
from search.setup.registry import model_path

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """As much of a model's architecture as memory depends on.

    Attributes:
        name: as given.
        num_parameters: of all its tensors.
        num_layers, num_kv_heads, head_dim: of its KV cache.
    """

    name: str
    num_parameters: int
    num_layers: int
    num_kv_heads: int
    head_dim: int

    def weight_bytes(self, dtype: str) -> int:
        """Of its weights, loaded."""
        return self.num_parameters * DTYPE_BYTES[dtype]

    def kv_bytes(self, dtype: str) -> int:
        """Of one token's keys and values in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * DTYPE_BYTES[dtype]


def read_shape(model: str) -> ModelShape:
    """A model's shape from its files, without loading a weight.

    Args:
        model: a folder, a .gguf file, a hub id, or `mini:ROLE`.

    Raises:
        ConfigError: there is no such model, or its cache is not one of keys and values for each head.
    """
    folder = find_model(model_path(model))
    if is_gguf(folder):
        file = read_gguf(model, folder)
        about, kind = file.metadata, file.architecture
        return _shape(
            model,
            file.num_parameters,
            layers=about.get(f"{kind}.block_count"),
            hidden=about.get(f"{kind}.embedding_length"),
            heads=about.get(f"{kind}.attention.head_count"),
            kv_heads=about.get(f"{kind}.attention.head_count_kv"),
            head_dim=about.get(f"{kind}.attention.key_length"),
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {model!r}: config.json cannot be read: {error}") from None
    config = config.get("text_config") or config
    if "kv_lora_rank" in config:
        raise ConfigError(f"model {model!r} keeps compressed keys and values, whose size is the engine's to choose")
    return _shape(
        model,
        sum(math.prod(shape) for shape in tensor_shapes(model, folder).values()),
        layers=config.get("num_hidden_layers"),
        hidden=config.get("hidden_size"),
        heads=config.get("num_attention_heads"),
        kv_heads=1 if config.get("multi_query") else config.get("num_key_value_heads"),
        head_dim=config.get("head_dim"),
    )


def _shape(
    model: str, num_parameters: int, *, layers: Any, hidden: Any, heads: Any, kv_heads: Any, head_dim: Any
) -> ModelShape:
    found = {"number of layers": layers, "hidden size": hidden, "number of attention heads": heads}
    for what, value in found.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"model {model!r} does not say its {what}")
    return ModelShape(model, num_parameters, layers, kv_heads or heads, head_dim or hidden // heads)
