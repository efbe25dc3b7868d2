"""`ets router draft`: a low-bit copy of a checkpoint, the draft of a pair whose target is the checkpoint itself.

Arbitrage (arXiv 2512.05033) pairs a model with a 4-bit copy of itself. Here the weights of linear layers are rounded to
the nearest of 2^bits even steps between the least and the largest of their group, and written as numbers of the usual
precision: the copy errs as a low-bit model does and loads wherever its original does. It is no faster by itself; what
it would cost packed is `bytes_per_parameter`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.checkpoints.hub import find_model
from search.engines.huggingface import checkpoint
from search.engines.huggingface.devices import import_torch
from search.errors import ConfigError
from search.learning.trainable import read_tokenizer
from search.setup.registry import model_path, weights_of
from search.support.files import filled_folder
from search.support.quiet import quiet

if TYPE_CHECKING:
    import torch

RECORD_FILE = "low_bit.json"


@dataclass(frozen=True, slots=True)
class LowBit:
    """How weights are rounded.

    Attributes:
        bits: of a weight, 1 to 8.
        group: weights of one output that share their steps, neighbours along the input.
        dtype: float32 or bfloat16, that the copy is written in.
        trust_remote_code: run code that comes with the checkpoint.
    """

    bits: int
    group: int = 64
    dtype: str = "bfloat16"
    trust_remote_code: bool = False

    @property
    def bytes_per_parameter(self) -> float:
        """Of a rounded weight, had it been packed: its bits, and two 16-bit numbers a group."""
        return (self.bits + 32 / self.group) / 8


def packed_bytes(folder: str) -> float | None:
    """The bytes of a parameter that a low-bit copy would take, packed; None for what is no such copy."""
    file = Path(folder).expanduser() / RECORD_FILE
    return float(json.loads(file.read_text(encoding="utf-8"))["bytes_per_parameter"]) if file.is_file() else None


def round_weights(weight: torch.Tensor, bits: int, group: int) -> None:
    """Round a matrix (outputs, inputs) in place, by groups of `group` inputs; the last of a row may be smaller."""
    for first in range(0, weight.shape[1], group):
        part = weight[:, first : first + group]
        exact = part.float()
        least = exact.amin(dim=1, keepdim=True)
        step = (exact.amax(dim=1, keepdim=True) - least) / (2**bits - 1)
        step[step == 0] = 1.0  # all of the group are equal, and stay what they are
        part.copy_(((exact - least) / step).round() * step + least)


def make_draft(model: str, folder: Path, how: LowBit) -> dict[str, Any]:
    """Write a low-bit copy of a model as a Hugging Face folder; `low_bit.json` comes last, so what has it is whole.

    Embeddings, norms and the output layer stay as they are, as in the usual low-bit checkpoints.

    Args:
        model: a path (a folder or a .gguf file), a hub id, or `mini:ROLE`.
        folder: to be made.
        how: how its weights are rounded.

    Returns:
        What `low_bit.json` keeps: the model with the fingerprint of its weights, `bits`, `group`, `num_rounded` of
        `num_parameters`, `relative_error` (root of the squared error over that of the squared weights),
        `bytes_per_parameter` on average over all parameters.

    Raises:
        ConfigError: no such checkpoint, one without linear layers, or a folder that holds something or cannot be
            written to.
    """
    torch = import_torch()
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds something already; give another folder")
    place = find_model(model_path(model))
    names = checkpoint.tensor_names(model, place)
    config = checkpoint.read_config(model, place, how.trust_remote_code, names)
    raw_tokenizer, _ = read_tokenizer(model, trust=how.trust_remote_code)
    network = checkpoint.read_weights(model, place, config, getattr(torch, how.dtype), how.trust_remote_code, names)
    head = network.get_output_embeddings()
    linear = [one for one in network.modules() if isinstance(one, torch.nn.Linear) and one is not head]
    if not linear:
        raise ConfigError(f"{model}: no linear layer among its weights, so there is nothing to round")
    squares: list[tuple[float, float]] = []
    with torch.inference_mode():
        for layer in linear:
            exact = layer.weight.float().clone()
            round_weights(layer.weight, how.bits, how.group)
            squares.append((float((layer.weight.float() - exact).square().sum()), float(exact.square().sum())))
    squared_error, squared = map(math.fsum, zip(*squares, strict=True))
    num_rounded = sum(layer.weight.numel() for layer in linear)
    num_parameters = sum(one.numel() for one in network.parameters())
    record = {
        "model": model,
        "weights": weights_of(model),
        "bits": how.bits,
        "group": how.group,
        "num_rounded": num_rounded,
        "num_parameters": num_parameters,
        "relative_error": math.sqrt(squared_error / squared) if squared else 0.0,
        "bytes_per_parameter": (num_rounded * how.bytes_per_parameter + 2 * (num_parameters - num_rounded))
        / num_parameters,
    }
    with filled_folder(folder, RECORD_FILE) as partial, quiet():
        network.save_pretrained(partial)
        raw_tokenizer.save_pretrained(partial)
        (partial / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record
