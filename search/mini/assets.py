"""Where the shipped checkpoints lie."""

from __future__ import annotations

from pathlib import Path

from search.errors import ConfigError

NAMES: tuple[str, ...] = ("target", "draft", "prm")
ROUTER = "router"
PROBE = "probe"


def weights_folder() -> Path:
    """The folder of all shipped checkpoints."""
    return Path(__file__).parent / "weights"


def checkpoint_path(name: str) -> Path:
    """The folder of a shipped checkpoint, in Hugging Face layout.

    Raises:
        ConfigError: if the name is unknown, or the files are not there.
    """
    if name not in (known := (*NAMES, ROUTER, PROBE)):
        raise ConfigError(f"unknown mini model {name!r}; known: {', '.join(known)}")
    folder = weights_folder() / name
    if not (folder / ("probe.safetensors" if name == PROBE else "model.safetensors")).is_file():
        raise ConfigError(f"mini model {name!r} is not there: {folder} has no weights; run `ets mini train {name}`")
    return folder


def place(model: str, family: Path | None) -> str:
    """Where a model lies; `mini:ROLE` is looked for in another family's folder, if one is given."""
    return str(family / model.removeprefix("mini:")) if family and model.startswith("mini:") else model
