"""A .gguf file as transformers makes a model of it: configuration, tokenizer and weights from that one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.checkpoints.gguf import GgufFile, read_gguf
from search.errors import ConfigError, first_line
from search.support.quiet import quiet

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FACTORS = "rope_freqs.weight"
_PACKED = ("llama", "qwen2", "qwen3")
"""Architectures whose tensors are the model's own, but for the order of rows that llama.cpp gives Llama's heads."""
_AT_ONCE = 2**18
"""Numbers that are dequantised at a time: numpy holds several copies of them, and leaves holes where they were."""

# What broken or unknown files make transformers raise is not to be listed, so all of it becomes one line.


def gguf_config(model: str, path: Path) -> Any:
    """The model's configuration.

    Raises:
        ConfigError: the file cannot be read, or is of an architecture that transformers does not make of such files.
    """
    from transformers import AutoConfig

    file = read_gguf(model, path)
    try:
        with quiet(), file.alone() as folder:
            config: Any = AutoConfig.from_pretrained(folder, gguf_file=path.name)
    except Exception as error:
        raise ConfigError(
            f"model {model!r}: its architecture {file.architecture} cannot be read: {first_line(error)}"
        ) from None
    text = config.get_text_config(decoder=True)
    text.eos_token_id = sorted(file.eos_ids()) or None
    scaling = file.metadata.get(f"{file.architecture}.rope.scaling.type", "none")
    known = getattr(text, "rope_parameters", None) or {}
    if scaling != "none" and known.get("rope_type", "default") == "default":
        raise ConfigError(f"model {model!r}: its positions are stretched ({scaling}), which transformers does not read")
    return config


def gguf_tokenizer(model: str, path: Path) -> Any:
    """The model's transformers tokenizer, with its chat template.

    Raises:
        ConfigError: there is none, or it is of an unknown kind.
    """
    from transformers import AutoTokenizer

    file = read_gguf(model, path)
    if not file.tokens:
        raise ConfigError(f"model {model!r} has no tokenizer in it")
    try:
        with quiet(), file.alone() as folder:
            raw: Any = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
    except Exception as error:
        raise ConfigError(f"model {model!r}: its tokenizer cannot be read: {first_line(error)}") from None
    templates = {
        key.removeprefix("tokenizer.chat_template."): value
        for key, value in file.metadata.items()
        if key.startswith("tokenizer.chat_template.")
    }
    if templates:
        default = {"default": raw.chat_template} if isinstance(raw.chat_template, str) else {}
        raw.chat_template = {**templates, **default}
    return raw


def gguf_weights(model: str, path: Path, config: Any, dtype: torch.dtype, *, packed: bool = False) -> Any:
    """A causal decoder with the file's weights.

    Args:
        model: for messages.
        path: the file.
        config: of `gguf_config`.
        dtype: what they are dequantised to.
        packed: keep linear layers of 4-bit weights as `PackedLinear`; the dequantised model is then never held.

    Raises:
        ConfigError: tensors are missing, or of a quantisation that cannot be read.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    file = read_gguf(model, path)
    if any(name.startswith("rope_factors") for name in file.types):
        raise ConfigError(f"model {model!r}: its positions are stretched by their length, which is not read")
    if packed:
        network = _packed_weights(model, file, config, dtype)
        _stretch(model, file, network)
        return network
    try:
        with quiet(), file.alone() as folder:
            loader: Any = AutoModelForCausalLM
            network, report = loader.from_pretrained(
                folder,
                gguf_file=path.name,
                config=config,
                dtype=dtype,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
    except Exception as error:
        raise ConfigError(
            f"model {model!r} ({file.architecture}, {file.quantization}): its weights cannot be loaded: "
            f"{first_line(error)}"
        ) from None
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise ConfigError(f"model {model!r}: its weights lack {missing[0]} and {len(missing) - 1} others")
    _stretch(model, file, network)
    return network


def _packed_weights(model: str, file: GgufFile, config: Any, dtype: torch.dtype) -> Any:
    """As `gguf_weights`, tensor by tensor from the file; embeddings and the output layer are dequantised."""
    import gguf
    import torch
    from accelerate import init_empty_weights
    from torch import nn
    from transformers import AutoModelForCausalLM

    from search.engines.huggingface.packed import BLOCK_BYTES, PackedLinear

    if file.architecture not in _PACKED:
        raise ConfigError(
            f"model {model!r}: gguf_weights packed reads {', '.join(_PACKED)}, not {file.architecture}; "
            "take gguf_weights dequantized"
        )
    loader: Any = AutoModelForCausalLM
    with quiet(), init_empty_weights(include_buffers=False):
        network = loader.from_config(config, dtype=dtype)
    heads = {".attn_q.": config.num_attention_heads, ".attn_k.": config.num_key_value_heads}
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == file.architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    output = network.get_output_embeddings()
    missing = []
    for full, empty in list(network.named_parameters()):
        owner, _, leaf = full.rpartition(".")
        module, name = network.get_submodule(owner), f"{names.get_name(owner)}.{leaf}"
        if module is output and config.tie_word_embeddings:
            continue
        if name not in file.types:
            missing.append(full)
            continue
        shape = tuple(empty.shape)
        if file.shapes[name] != shape:
            raise ConfigError(f"model {model!r}: its tensor {name} is of shape {file.shapes[name]}, not {shape}")
        found = [heads[part] for part in heads if part in name and file.architecture == "llama"]
        # llama.cpp turns pairs of neighbours where transformers turns halves.
        order = np.arange(shape[0]).reshape(found[0], -1, 2).swapaxes(1, 2).ravel() if found else np.arange(shape[0])
        kind = file.types[name]
        linear = isinstance(module, nn.Linear) and module is not output and leaf == "weight"
        if linear and kind in BLOCK_BYTES and shape[0] % 16 == 0:  # as the kernel takes them
            layer = PackedLinear(shape[1], shape[0]).fill(kind, file.rows(name, 0, shape[0])[order])
            network.set_submodule(owner, layer)
        else:
            weights = _dequantized(model, file, name, dtype)
            setattr(module, leaf, nn.Parameter(weights[torch.from_numpy(order)] if found else weights))
    if missing:
        raise ConfigError(f"model {model!r}: its weights lack {missing[0]} and {len(missing) - 1} others")
    network.tie_weights()
    return network


def _dequantized(model: str, file: GgufFile, name: str, dtype: torch.dtype) -> Tensor:
    import gguf
    import torch

    weights = torch.empty(file.shapes[name], dtype=dtype)
    flat = weights.view(-1, weights.shape[-1])
    step = max(1, _AT_ONCE // flat.shape[1])
    kind = gguf.GGMLQuantizationType[file.types[name]]
    for first in range(0, len(flat), step):
        data = file.rows(name, first, min(len(flat), first + step))
        try:
            flat[first : first + step] = torch.from_numpy(np.array(gguf.dequantize(data, kind)))
        except NotImplementedError:
            raise ConfigError(f"model {model!r}: its tensor {name} is of {kind.name}, which is not read") from None
    return weights


def _stretch(model: str, file: GgufFile, network: Any) -> None:
    """Slow the rotations down by the factors that a file holds (Llama 3.1), which transformers leaves out."""
    import torch

    if _FACTORS not in file.types:
        return
    factors = torch.tensor(file.floats(_FACTORS) if file.types[_FACTORS] == "F32" else ())
    found = [module for module in network.modules() if hasattr(module, "inv_freq")]
    if not found or any(module.inv_freq.shape != factors.shape for module in found):
        raise ConfigError(f"model {model!r}: its tensor {_FACTORS} does not fit its positions")
    for module in found:
        module.inv_freq = module.inv_freq / factors.to(module.inv_freq)
        module.original_inv_freq = module.inv_freq.clone()


def gguf_details(file: GgufFile, network: Any) -> dict[str, str]:
    """What a record says of the file, and of how much of it is kept packed in a network."""
    from search.engines.huggingface.packed import num_packed, num_parameters

    packed = num_packed(network)
    kept = f"{packed / num_parameters(network):.1%} packed" if packed else "dequantized"
    return {
        "quantization": file.quantization,
        "file_size": f"{file.num_bytes / 1e6:.1f} MB",
        "gguf_weights": kept,
    }
