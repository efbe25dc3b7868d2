"""A checkpoint in memory as training wants it: its network in float32 on its device, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.checkpoints.hub import find_model
from search.engines.huggingface import checkpoint
from search.engines.huggingface.devices import import_torch, is_small, read_device
from search.engines.huggingface.token_bytes import TokenBytes
from search.engines.huggingface.tokenizer import HFTokenizer
from search.setup.registry import model_path

if TYPE_CHECKING:
    from search.protocols import Tokenizer


@dataclass(frozen=True, slots=True)
class Trainable:
    """A causal decoder to be trained.

    Attributes:
        folder: of its files.
        network: the transformers model.
        raw_tokenizer: of transformers, as it is saved again.
        tokenizer: the same, as codecs read it.
        context_tokens: that it reads at most.
    """

    folder: Path
    network: Any
    raw_tokenizer: Any
    tokenizer: Tokenizer
    context_tokens: int


def load_trainable(name: str, device: str, *, trust: bool = False, headed: bool = False) -> Trainable:
    """Load a checkpoint; a small one is then computed on one thread, as in the local engine.

    Args:
        name: a path, a hub id, or `mini:ROLE`.
        device: cpu, cuda, cuda:N.
        trust: run code that comes with it.
        headed: take one with a reward head too: the decoder below it.

    Raises:
        ConfigError: no such device, or a checkpoint that cannot be used.
    """
    torch = import_torch()
    place = read_device(device)
    folder = find_model(model_path(name))
    names = checkpoint.tensor_names(name, folder)
    config = checkpoint.read_config(name, folder, trust, names if headed else frozenset())
    raw, tokenizer = read_tokenizer(name, trust=trust)
    network = checkpoint.read_weights(name, folder, config, torch.float32, trust, names).to(place)
    if is_small(network):
        torch.set_num_threads(1)
    return Trainable(folder, network, raw, tokenizer, checkpoint.context_tokens(config, raw))


def read_tokenizer(name: str, *, trust: bool = False) -> tuple[Any, Tokenizer]:
    """A checkpoint's tokenizer: transformers' own, and as codecs read it.

    Raises:
        ConfigError: it has none that can be used.
    """
    raw = checkpoint.read_tokenizer(name, find_model(model_path(name)), trust)
    return raw, HFTokenizer(raw, TokenBytes(raw, len(raw)), frozenset())
