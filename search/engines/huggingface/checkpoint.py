"""A Hugging Face checkpoint or a .gguf file, by path or hub id, as transformers makes a causal decoder of it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.checkpoints.gguf import is_gguf
from search.checkpoints.hub import find_model
from search.engines.huggingface.devices import import_torch
from search.engines.huggingface.gguf import gguf_config, gguf_tokenizer, gguf_weights
from search.errors import ConfigError, first_line
from search.support.quiet import quiet

if TYPE_CHECKING:
    import torch
    from torch import nn

_HEADED = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForRewardModel",
    "ForProcessRewardModel",
    "ForPrmModel",
)


def plain_model(model: str, dtype: str) -> Any:
    """A checkpoint as transformers runs it, on the CPU: what the engine is measured and checked against.

    Args:
        model: a folder, a .gguf file, or a hub id.
        dtype: `float32` or `bfloat16`.

    Raises:
        ConfigError: it cannot be found or read.
    """
    torch = import_torch()
    folder = find_model(model)
    names = tensor_names(model, folder)
    config = read_config(model, folder, False, names)
    return read_weights(model, folder, config, getattr(torch, dtype), False, names).eval()


def tensor_names(model: str, folder: Path) -> frozenset[str]:
    """Names of all tensors of a checkpoint; none of a .gguf file, which has names of its own, and no heads.

    Raises:
        ConfigError: there are no safetensors files, or one is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if is_gguf(folder):
        return frozenset()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"model {model!r} has no safetensors weights in {folder}; other formats are not read, convert them "
            "once: torch.load(FILE, weights_only=True), then safetensors.torch.save_file"
        )
    names: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                names.update(opened.keys())
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"model {model!r}: {file.name} is damaged or cut short: {first_line(error)}") from None
    return frozenset(names)


def any_config(model: str, folder: Path, trust_remote_code: bool) -> Any:
    """A checkpoint's configuration, of whatever kind of model it is.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    if is_gguf(folder):
        return gguf_config(model, folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model {model!r} has no config.json in {folder}")
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # what a broken file makes transformers raise is not to be listed
        raise ConfigError(f"model {model!r}: its config.json cannot be used: {first_line(error)}") from None


def read_config(model: str, folder: Path, trust_remote_code: bool, names: frozenset[str] = frozenset()) -> Any:
    """A checkpoint's configuration; with a reward head among its tensors (`names`), that of the decoder below it.

    Raises:
        ConfigError: it is of no causal decoder.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    from search.engines.huggingface.reward_head import head_names

    config = any_config(model, folder, trust_remote_code)
    architectures = list(config.architectures or [])
    known = {name for names in CAUSAL.values() for name in ([names] if isinstance(names, str) else names)}
    remote = trust_remote_code and bool(getattr(config, "auto_map", None))
    headed = bool(head_names(names))
    foreign = bool(architectures) and not remote and not known & set(architectures)
    if foreign and not headed and config.model_type in CAUSAL and any(one.endswith(_HEADED) for one in architectures):
        raise ConfigError(
            f"model {model!r} is a {', '.join(architectures)} without its head: no score.* or v_head.* tensor"
        )
    if config.is_encoder_decoder or (foreign and not headed):
        raise ConfigError(
            f"model {model!r} is a {', '.join(architectures) or config.model_type}, not a causal language model"
        )
    if not remote and config.model_type not in CAUSAL:
        raise ConfigError(f"model {model!r}: type {config.model_type!r} is not a causal language model")
    return config


def read_tokenizer(model: str, folder: Path, trust_remote_code: bool) -> Any:
    """A checkpoint's transformers tokenizer.

    Raises:
        ConfigError: there is none, or it is broken.
    """
    from transformers import AutoTokenizer

    if is_gguf(folder):
        return gguf_tokenizer(model, folder)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
    if not any((folder / name).is_file() for name in names):
        raise ConfigError(f"model {model!r} has no tokenizer in {folder}")
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # The Rust tokenizer raises plain Exception for a broken file.
        raise ConfigError(f"model {model!r}: its tokenizer cannot be read: {first_line(error)}") from None


def check_sizes(model: str, raw_tokenizer: Any, num_embeddings: int) -> None:
    """Refuse a tokenizer that gives ids for which a model has no embedding; one that only pads with them may.

    Raises:
        ConfigError: it does.
    """
    beyond = {number for number in raw_tokenizer.get_vocab().values() if number >= num_embeddings}
    if beyond - {raw_tokenizer.pad_token_id}:
        raise ConfigError(
            f"model {model!r}: its tokenizer has {len(raw_tokenizer)} tokens, its embeddings {num_embeddings}: "
            "they are not of one model"
        )


def context_tokens(config: Any, raw_tokenizer: Any) -> int:
    """The longest sequence for which a model's positions are what they were in training."""
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else "default"
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
    longest = next((int(v) for name in names if isinstance(v := getattr(text, name, None), int) and v > 0), None)
    if longest is None:
        limit = int(raw_tokenizer.model_max_length)
        longest = limit if limit < 10**7 else 4096
    if kind in ("dynamic", "longrope"):
        # Beyond the original length these stretch all positions by the sequence's length, which voids cached keys.
        original = rope.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        longest = min(longest, int(original)) if original else longest
    return longest


def read_weights(
    model: str,
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    trust_remote_code: bool,
    names: frozenset[str] | None = None,
    *,
    packed: bool = False,
) -> Any:
    """A causal decoder with a checkpoint's weights; those of a .gguf file stay packed on request.

    Raises:
        ConfigError: the weights are missing, broken, or of another form, or hold what is no finite number.
    """
    if is_gguf(folder):
        network = gguf_weights(model, folder, config, dtype, packed=packed)
        check_finite(model, network)
        return network
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    names = tensor_names(model, folder) if names is None else names
    wrapped = any(name.startswith("pretrained_model.") for name in names)
    config = copy.deepcopy(config)
    if not {"lm_head.weight", "pretrained_model.lm_head.weight"} & names and any(n.startswith("score.") for n in names):
        # Its head stands in place of the output embeddings: tied ones cost no memory, and are never read.
        config.tie_word_embeddings = True
    try:
        with quiet():
            loader: Any = AutoModelForCausalLM
            network, report = loader.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **({"key_mapping": {"^pretrained_model\\.": ""}} if wrapped else {}),
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise ConfigError(f"model {model!r}: its weights cannot be loaded: {first_line(error)}") from None
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise ConfigError(f"model {model!r}: its weights lack {missing[0]} and {len(missing) - 1} others")
    check_finite(model, network)
    return network


def check_finite(model: str, module: nn.Module) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        ConfigError: names the first such tensor.
    """
    import torch

    for name, weight in module.named_parameters():
        # One pass and no copy: a sum is finite only if every summand is.
        if not math.isfinite(float(torch.sum(weight.detach(), dtype=torch.float64))):
            bad = int((~torch.isfinite(weight)).sum())
            raise ConfigError(
                f"model {model!r}: {bad} of {weight.numel()} numbers in its tensor {name} are NaN or infinite"
            )
