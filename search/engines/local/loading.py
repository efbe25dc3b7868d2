"""A Hugging Face checkpoint or a .gguf file, by path or hub id, as a model that the engine can serve."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.checkpoints.gguf import is_gguf, read_gguf
from search.checkpoints.hub import find_model
from search.engines.local.gguf import gguf_config, gguf_details, gguf_tokenizer, gguf_weights
from search.engines.local.quiet import line, quiet
from search.engines.local.stops import TokenBytes
from search.engines.local.tokenizer import HFTokenizer
from search.errors import ConfigError
from search.types import EngineInfo

if TYPE_CHECKING:
    import torch
    from torch import nn

    from search.engines.local.forward import Forward
    from search.engines.local.scheduler import Scheduler
    from search.engines.local.selfcheck import Attention

_HEADED = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForRewardModel",
    "ForProcessRewardModel",
    "ForPrmModel",
)
_SMALL_PARAMETERS = 20_000_000
"""Below this one thread is faster than several: a forward's matrices are too small to share."""


def import_torch() -> Any:
    """Import torch, telling OpenMP first not to spin.

    Threads that spin while they wait take the cores from each other: on a busy machine a tenth of the speed is left.
    The variable is read once, when torch is imported, and one that is set is left alone.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    return torch


@dataclass(slots=True)
class LoadedModel:
    """A model that passed its self-check.

    Attributes:
        forward: runs batches.
        tokenizer: its tokenizer.
        table: bytes of its tokens.
        eos_ids: tokens that end a text.
        info: what it is.
        num_threads: torch threads its forwards use; None leaves them alone.
        head: the checkpoint's reward head; None without one.
        has_language_model: whether its logits over the vocabulary mean anything.
    """

    forward: Forward
    tokenizer: HFTokenizer
    table: TokenBytes
    eos_ids: frozenset[int]
    info: EngineInfo
    device: torch.device
    dtype: torch.dtype
    num_threads: int | None
    head: nn.Module | None = None
    has_language_model: bool = True

    def scheduler(self, max_kv_tokens: int | None, max_rows: int, max_batch_tokens: int) -> Scheduler:
        """A scheduler over this model."""
        from search.engines.local.scheduler import Scheduler

        return Scheduler(
            self.forward,
            device=self.device,
            dtype=self.dtype,
            context_tokens=self.info.context_tokens,
            vocab_size=self.info.vocab_size,
            table=self.table,
            eos_ids=self.eos_ids,
            max_kv_tokens=max_kv_tokens,
            max_rows=max_rows,
            max_batch_tokens=max_batch_tokens,
            head=self.head,
        )

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.forward.shape.num_layers

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inference mode, with this model's number of threads."""
        import torch

        before = torch.get_num_threads()
        if self.num_threads is not None and before != self.num_threads:
            torch.set_num_threads(self.num_threads)
        with torch.inference_mode():
            yield


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


def read_device(name: str) -> torch.device:
    """A device by its name.

    Raises:
        ConfigError: it is none, or is not there.
    """
    import_torch()
    import torch

    try:
        place = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is not one of cpu, cuda, cuda:N") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: no CUDA device can be used here")
    if place.type not in ("cpu", "cuda") or (place.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"device {name!r} is not one of cpu, cuda, cuda:N with a device N that is there")
    return place


def is_small(network: nn.Module) -> bool:
    """Whether one thread of the processor computes it faster than several."""
    from search.engines.local.packed import num_parameters

    on_cpu = next(network.parameters()).device.type == "cpu"
    return on_cpu and num_parameters(network) < _SMALL_PARAMETERS


def load_model(
    model: str,
    *,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    attention: Attention = "auto",
    gguf_weights: str = "dequantized",
) -> LoadedModel:
    """Load and check a model; see `LocalEngine.load`."""
    torch = import_torch()
    from search.engines.local.heads import head_names, read_head

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(dtypes)}")
    place = read_device(device)
    packed = _wants_packed(gguf_weights, place.type, dtype)
    folder = find_model(model)
    if packed and not is_gguf(folder):
        raise ConfigError(f"model {model!r}: gguf_weights packed is for .gguf files, and this is none")
    names = tensor_names(model, folder)
    # A head is made here, over the decoder that transformers has: code that comes with it is not needed.
    trust = trust_remote_code and not head_names(names)
    config = read_config(model, folder, trust, names)
    raw_tokenizer = read_tokenizer(model, folder, trust_remote_code)
    network = read_weights(model, folder, config, dtypes[dtype], trust, names, packed=packed).to(place)
    loaded = prepare(network, raw_tokenizer, name=model, attention=attention)
    loaded.head = read_head(model, sorted(folder.glob("*.safetensors")))
    if loaded.head is not None:
        check_finite(model, loaded.head)
        loaded.head.to(device=place, dtype=dtypes[dtype]).eval().requires_grad_(False)
        outputs = loaded.head(
            torch.zeros(1, config.get_text_config(decoder=True).hidden_size).to(network.lm_head.weight)
        )
        loaded.has_language_model = _has_language_model(config, names)
        loaded.info = replace(loaded.info, details={**loaded.info.details, "head": f"{outputs.shape[-1]} outputs"})
    if is_gguf(folder):
        details = gguf_details(read_gguf(model, folder), network)
        loaded.info = replace(loaded.info, details={**loaded.info.details, **details})
    return loaded


def _wants_packed(gguf_weights: str, device: str, dtype: str) -> bool:
    """Whether weights stay packed.

    Raises:
        ConfigError: another value, or they cannot be on this device or in this precision.
    """
    if gguf_weights not in ("dequantized", "packed"):
        raise ConfigError(f"gguf_weights {gguf_weights!r} is not one of dequantized, packed")
    if gguf_weights == "packed" and device != "cpu":
        raise ConfigError(f"gguf_weights packed runs on the CPU, not on {device}; take gguf_weights dequantized")
    if gguf_weights == "packed" and dtype != "bfloat16":
        raise ConfigError(f"gguf_weights packed computes in bfloat16, not in {dtype}; take dtype bfloat16")
    return gguf_weights == "packed"


def prepare(network: Any, raw_tokenizer: Any, *, name: str, attention: Attention = "auto") -> LoadedModel:
    """Make a transformers causal model that is already in memory ready to be served.

    Args:
        network: a `PreTrainedModel` with a language-model head; the engine owns it from here on.
        raw_tokenizer: its transformers tokenizer.
        name: for records and messages.
        attention: see `selfcheck.choose_forward`.

    Raises:
        ConfigError: an architecture whose attention this engine cannot reproduce, or a tokenizer of another model.
    """
    from search.engines.local.packed import num_parameters as count_parameters
    from search.engines.local.selfcheck import choose_forward

    network.eval().requires_grad_(False)
    check_sizes(name, raw_tokenizer, int(network.get_input_embeddings().weight.shape[0]))
    parameter = next(network.parameters())
    context = context_tokens(network.config, raw_tokenizer)
    forward = choose_forward(network, parameter.device, parameter.dtype, context, name, attention)
    vocab = int(network.get_output_embeddings().weight.shape[0])
    vocab = min(vocab, int(network.get_input_embeddings().weight.shape[0]))
    table = TokenBytes(raw_tokenizer, vocab)
    eos_ids = _eos_ids(network, raw_tokenizer)
    num_parameters = count_parameters(network)
    info = EngineInfo(
        name="local",
        model=name,
        context_tokens=context,
        vocab_size=vocab,
        num_parameters=num_parameters,
        seeds="exact" if str(parameter.dtype) == "torch.float32" else "none",
        details={
            "architecture": type(network).__name__,
            "device": str(parameter.device),
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "attention": forward.name,
            "layers": str(forward.shape.num_layers),
        },
    )
    return LoadedModel(
        forward=forward,
        tokenizer=HFTokenizer(raw_tokenizer, table, eos_ids),
        table=table,
        eos_ids=eos_ids,
        info=info,
        device=parameter.device,
        dtype=parameter.dtype,
        num_threads=1 if is_small(network) else None,
    )


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
    found = next((int(v) for name in names if isinstance(v := getattr(text, name, None), int) and v > 0), None)
    if found is None:
        limit = int(raw_tokenizer.model_max_length)
        found = limit if limit < 10**7 else 4096
    if kind in ("dynamic", "longrope"):
        # Beyond the original length these stretch all positions by the sequence's length, which voids cached keys.
        original = rope.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        found = min(found, int(original)) if original else found
    return found


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
            raise ConfigError(f"model {model!r}: {file.name} is damaged or cut short: {line(error)}") from None
    return frozenset(names)


def _has_language_model(config: Any, names: frozenset[str]) -> bool:
    """Whether a checkpoint with a reward head can also write: its output embeddings are there, and it says it can."""
    there = config.tie_word_embeddings or bool({"lm_head.weight", "pretrained_model.lm_head.weight"} & names)
    return bool(there) and any("ForCausalLM" in name for name in config.architectures or ())


def read_config(model: str, folder: Path, trust_remote_code: bool, names: frozenset[str] = frozenset()) -> Any:
    """A checkpoint's configuration; with a reward head among its tensors (`names`), that of the decoder below it.

    Raises:
        ConfigError: it is of no causal decoder.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    from search.engines.local.heads import head_names

    if is_gguf(folder):
        config = gguf_config(model, folder)
    elif not (folder / "config.json").is_file():
        raise ConfigError(f"model {model!r} has no config.json in {folder}")
    else:
        try:
            with quiet():
                config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except Exception as error:  # what a broken file makes transformers raise is not to be listed
            raise ConfigError(f"model {model!r}: its config.json cannot be used: {line(error)}") from None
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
        raise ConfigError(f"model {model!r}: its tokenizer cannot be read: {line(error)}") from None


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
    network = (
        gguf_weights(model, folder, config, dtype, packed=packed)
        if is_gguf(folder)
        else _safetensors_weights(model, folder, config, dtype, trust_remote_code, names)
    )
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


def _safetensors_weights(
    model: str,
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    trust_remote_code: bool,
    names: frozenset[str] | None = None,
) -> Any:
    import copy

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
        raise ConfigError(f"model {model!r}: its weights cannot be loaded: {line(error)}") from None
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise ConfigError(f"model {model!r}: its weights lack {missing[0]} and {len(missing) - 1} others")
    return network


def _eos_ids(network: Any, raw_tokenizer: Any) -> frozenset[int]:
    """End tokens: the generation configuration's (one or several), and the tokenizer's."""
    found: set[int] = set()
    configs = (getattr(network, "generation_config", None), network.config)
    for value in [getattr(config, "eos_token_id", None) for config in configs] + [raw_tokenizer.eos_token_id]:
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(int(one) for one in value)
    return frozenset(found)
