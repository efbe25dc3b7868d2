"""A .gguf file as transformers makes a model of it: configuration, tokenizer and weights from that one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.engines.local.quiet import line, quiet
from search.errors import ConfigError
from search.gguf import GgufFile, read_gguf

if TYPE_CHECKING:
    import torch

_FACTORS = "rope_freqs.weight"

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
            f"model {model!r}: its architecture {file.architecture} cannot be read: {line(error)}"
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
        raise ConfigError(f"model {model!r}: its tokenizer cannot be read: {line(error)}") from None
    templates = {
        key.removeprefix("tokenizer.chat_template."): value
        for key, value in file.metadata.items()
        if key.startswith("tokenizer.chat_template.")
    }
    if templates:
        default = {"default": raw.chat_template} if isinstance(raw.chat_template, str) else {}
        raw.chat_template = {**templates, **default}
    return raw


def gguf_weights(model: str, path: Path, config: Any, dtype: torch.dtype) -> Any:
    """A causal decoder with the file's weights, dequantised to `dtype`.

    Raises:
        ConfigError: tensors are missing, or of a quantisation that cannot be read.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    file = read_gguf(model, path)
    if any(name.startswith("rope_factors") for name in file.types):
        raise ConfigError(f"model {model!r}: its positions are stretched by their length, which is not read")
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
            f"model {model!r} ({file.architecture}, {file.quantization}): its weights cannot be loaded: {line(error)}"
        ) from None
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise ConfigError(f"model {model!r}: its weights lack {missing[0]} and {len(missing) - 1} others")
    _stretch(model, file, network)
    return network


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


def gguf_details(file: GgufFile) -> dict[str, str]:
    """What a record says of the file."""
    return {"quantization": file.quantization, "file_size": f"{file.num_bytes / 1e6:.1f} MB"}
