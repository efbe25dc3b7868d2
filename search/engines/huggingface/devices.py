"""Torch as engines and training set it up: how it is imported, on which device, and whether threads pay."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from search.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

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
    from search.engines.huggingface.packed import num_parameters

    on_cpu = next(network.parameters()).device.type == "cpu"
    return on_cpu and num_parameters(network) < _SMALL_PARAMETERS
