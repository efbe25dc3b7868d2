"""A checkpoint as a model that the engine can serve: read, checked against its own code, and ready to run."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.checkpoints.gguf import is_gguf, read_gguf
from search.checkpoints.hub import find_model
from search.engines.huggingface.checkpoint import (
    check_finite,
    check_sizes,
    context_tokens,
    read_config,
    read_tokenizer,
    read_weights,
    tensor_names,
)
from search.engines.huggingface.devices import import_torch, is_small, read_device
from search.engines.huggingface.gguf import gguf_details
from search.engines.huggingface.token_bytes import TokenBytes
from search.engines.huggingface.tokenizer import HFTokenizer, end_ids
from search.errors import ConfigError
from search.types import EngineInfo

if TYPE_CHECKING:
    from torch import nn

    from search.engines.local.forward import Forward
    from search.engines.local.scheduler import Scheduler
    from search.engines.local.selfcheck import Attention


_log = logging.getLogger(__name__)

_SOON_BYTES = 50_000_000
"""Weights below it are loaded before anybody asks what goes on."""

_LARGE = 100_000_000
"""Parameters from which it matters in what precision they are."""


@dataclass(slots=True)
class LoadedModel:
    """A model that passed its self-check.

    Attributes:
        forward: runs batches.
        tokenizer: its tokenizer, with the bytes of its tokens and those that end a text.
        info: what it is.
        num_threads: torch threads its forwards use; None leaves them alone.
        head: the checkpoint's reward head; None without one.
        has_language_model: whether its logits over the vocabulary mean anything.
    """

    forward: Forward
    tokenizer: HFTokenizer
    info: EngineInfo
    num_threads: int | None
    head: nn.Module | None = None
    has_language_model: bool = True

    def scheduler(self, max_kv_tokens: int | None, max_rows: int, max_batch_tokens: int) -> Scheduler:
        """A scheduler over this model."""
        from search.engines.local.scheduler import Scheduler

        return Scheduler(
            self.forward,
            context_tokens=self.info.context_tokens,
            vocab_size=self.info.vocab_size,
            table=self.tokenizer.table,
            eos_ids=self.tokenizer.eos_ids,
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


def load_model(
    model: str,
    *,
    device: str,
    dtype: str | None,
    trust_remote_code: bool,
    attention: Attention = "auto",
    gguf_weights: str = "dequantized",
    graphs: bool = True,
) -> LoadedModel:
    """Load and check a model; see `LocalEngine.load`."""
    torch = import_torch()
    from search.engines.huggingface.reward_head import head_names, read_head

    unsaid, dtype = dtype is None, dtype or "float32"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if (precision := dtypes.get(dtype)) is None:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(dtypes)}")
    place = read_device(device)
    packed = _wants_packed(gguf_weights, place.type, dtype)
    folder = find_model(model)
    if packed and not is_gguf(folder):
        raise ConfigError(f"model {model!r}: gguf_weights packed is for .gguf files, and this is none")
    with _announced(model, folder, f"{dtype} on {device}", unsaid=unsaid):
        names = tensor_names(model, folder)
        # A head is made here, over the decoder that transformers has: code that comes with it is not needed.
        trust = trust_remote_code and not head_names(names)
        config = read_config(model, folder, trust, names)
        raw_tokenizer = read_tokenizer(model, folder, trust_remote_code)
        network = read_weights(model, folder, config, precision, trust, names, packed=packed).to(place)
        loaded = prepare(network, raw_tokenizer, name=model, attention=attention, graphs=graphs)
        _give_back_free_memory()
        details: dict[str, str] = {}
        loaded.head = read_head(model, sorted(folder.glob("*.safetensors")))
        if loaded.head is not None:
            check_finite(model, loaded.head)
            loaded.head.to(device=place, dtype=precision).eval().requires_grad_(False)
            outputs = loaded.head(
                torch.zeros(1, config.get_text_config(decoder=True).hidden_size).to(network.lm_head.weight)
            )
            loaded.has_language_model = _has_language_model(config, names)
            details["head"] = f"{outputs.shape[-1]} outputs"
        if is_gguf(folder):
            details |= gguf_details(read_gguf(model, folder), network)
        loaded.info = replace(loaded.info, details={**loaded.info.details, **details})
    return loaded


@contextmanager
def _announced(model: str, folder: Path, how: str, *, unsaid: bool) -> Iterator[None]:
    """Say before what is loaded and how large its files are, and after it how long that took.

    Args:
        model: as given.
        folder: of its files, or its one file.
        how: precision and device.
        unsaid: whether nobody chose the precision, which then is float32.
    """
    files = [folder] if is_gguf(folder) else sorted(folder.glob("*.safetensors"))
    num_bytes, begun = sum(file.stat().st_size for file in files), time.monotonic()
    told = num_bytes >= _SOON_BYTES
    if told:
        # As safetensors files hold them: two bytes each, as a rule.
        num_parameters = read_gguf(model, folder).num_parameters if is_gguf(folder) else num_bytes // 2
        hint = " (--dtype bfloat16 halves its memory and is faster)" if num_parameters >= _LARGE and unsaid else ""
        _log.info("loading %s, %s MB, as %s%s ...", model, f"{num_bytes / 1e6:,.0f}", how, hint)
    yield
    if told:
        _log.info("loaded %s in %.0f s", model, time.monotonic() - begun)


def _give_back_free_memory() -> None:
    """Give the system what the allocator holds and nobody uses: of a .gguf of 1.1 GB that was 1 GB of 5.2."""
    if sys.platform == "linux":
        # Another C library than glibc has no such call, and keeps less.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


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


def prepare(
    network: Any, raw_tokenizer: Any, *, name: str, attention: Attention = "auto", graphs: bool = True
) -> LoadedModel:
    """Make a transformers causal model that is already in memory ready to be served.

    Args:
        network: a `PreTrainedModel` with a language-model head; the engine owns it from here on.
        raw_tokenizer: its transformers tokenizer.
        name: for records and messages.
        attention: see `selfcheck.choose_forward`.
        graphs: see `LocalEngine.load`.

    Raises:
        ConfigError: an architecture whose attention this engine cannot reproduce, or a tokenizer of another model.
    """
    from search.engines.huggingface.packed import num_parameters as count_parameters
    from search.engines.local.blocked import block_linears
    from search.engines.local.forward import PagedForward
    from search.engines.local.graphs import CudaRecorder, GraphedForward
    from search.engines.local.selfcheck import choose_forward

    network.eval().requires_grad_(False)
    check_sizes(name, raw_tokenizer, int(network.get_input_embeddings().weight.shape[0]))
    parameter = next(network.parameters())
    context = context_tokens(network.config, raw_tokenizer)
    forward = choose_forward(network, context, name, attention)
    vocab = int(network.get_output_embeddings().weight.shape[0])
    vocab = min(vocab, int(network.get_input_embeddings().weight.shape[0]))
    configs = (getattr(network, "generation_config", None), network.config, raw_tokenizer)
    eos_ids = end_ids(getattr(config, "eos_token_id", None) for config in configs)
    num_parameters = count_parameters(network)
    num_threads = 1 if is_small(network) else None
    details = {
        "architecture": type(network).__name__,
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "attention": forward.name,
        "layers": str(forward.shape.num_layers),
    }
    if graphs and parameter.device.type == "cuda" and isinstance(forward, PagedForward):
        forward = GraphedForward(forward, CudaRecorder)
        details["graphs"] = "yes"
    # Small weights stay in the processor's caches, in whatever order.
    if details["device"] == "cpu" and details["dtype"] == "bfloat16" and num_threads is None:
        details["blocked_layers"] = str(block_linears(network, network.get_output_embeddings()))
    info = EngineInfo(
        name="local",
        model=name,
        context_tokens=context,
        vocab_size=vocab,
        num_parameters=num_parameters,
        seeds="exact" if str(parameter.dtype) == "torch.float32" else "none",
        details=details,
    )
    return LoadedModel(
        forward=forward,
        tokenizer=HFTokenizer(raw_tokenizer, TokenBytes(raw_tokenizer, vocab), eos_ids),
        info=info,
        num_threads=num_threads,
    )


def _has_language_model(config: Any, names: frozenset[str]) -> bool:
    """Whether a checkpoint with a reward head can also write: its output embeddings are there, and it says it can."""
    there = config.tie_word_embeddings or bool({"lm_head.weight", "pretrained_model.lm_head.weight"} & names)
    return bool(there) and any("ForCausalLM" in name for name in config.architectures or ())
