"""Which engine `auto` stands for: SGLang where it has a GPU to itself, else the local one; and why."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from search.support.extras import install


class EngineChoice(NamedTuple):
    """What `auto` stands for, with the reason in words that go after "on DEVICE"."""

    engine: str
    device: str
    reason: str


def choose_engine(model: str, others: Sequence[str], device: str | None) -> EngineChoice:
    """Choose an engine and its device for the model that writes.

    SGLang takes nearly all of a GPU's memory when it starts, so it is chosen only where no second model needs some.

    Args:
        model: a path, a hub id, or `mini:ROLE`.
        others: the other models that the search loads in this process.
        device: the device that was asked for; None where none was.
    """
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() and not model.startswith("mini:") else "cpu"
    if not device.startswith("cuda"):
        reason = (
            "there is no CUDA device" if not torch.cuda.is_available() else "SGLang is chosen on CUDA devices alone"
        )
        return EngineChoice("local", device, reason)
    if model.lower().endswith(".gguf"):
        return EngineChoice("local", device, "it takes a .gguf file as it is")
    if others:
        named = " and ".join(others)
        return EngineChoice("local", device, f"SGLang would leave {named} no memory there; servers share it as you say")
    try:
        return EngineChoice("sglang", device, f"SGLang {version('sglang')} is installed")
    except PackageNotFoundError:
        return EngineChoice("local", device, f"SGLang is not installed: {install('sglang')}")
