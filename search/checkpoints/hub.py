"""Where a model's files lie: a folder, the hub's cache, or a download from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.errors import ConfigError, first_line

CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py")
"""What a checkpoint may need; weights in unsafe formats are never fetched."""


def find_model(model: str, patterns: Sequence[str] = CHECKPOINT_FILES) -> Path:
    """The folder of a model, or its .gguf file: itself, or where the hub's cache has it, or where it was downloaded to.

    Args:
        model: a path, or a hub id (owner/name).
        patterns: files to take.

    Returns:
        A folder; or a file, where one was named, or where a folder holds one .gguf file and no other weights.

    Raises:
        ConfigError: there is no such folder or file, and neither the hub nor its cache has it; several .gguf files.
    """
    if not model.strip():
        raise ConfigError(f"model {model!r}: no name; accepted: a folder, a .gguf file, or a hub id (owner/name)")
    path = Path(model).expanduser()
    if path.is_dir():
        return _only_gguf(model, path)
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ConfigError(f"model {model!r}: no such file")
        return path
    if path.is_file():
        raise ConfigError(f"model {model!r} is a file; accepted: a folder, a .gguf file, or a hub id (owner/name)")
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ConfigError(f"model {model!r}: no such folder or .gguf file, and not a hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    chosen = list(patterns)
    try:
        if (cached := cached_model(model, chosen)) is not None:
            return cached
    except HFValidationError as error:
        raise ConfigError(f"model {model!r} is neither a folder nor a hub id: {first_line(error)}") from None
    try:
        return Path(snapshot_download(model, allow_patterns=chosen))
    except (LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
            raise ConfigError(f"model {model!r}: the hub refused it: {first_line(error)}") from None
        raise ConfigError(f"model {model!r} is not in the hub's cache, and the hub cannot be reached") from None


def _only_gguf(model: str, folder: Path) -> Path:
    """A folder, or the one .gguf file of a folder without other weights."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() == ".gguf")
    if not files or any(folder.glob("*.safetensors")):
        return folder
    if len(files) > 1:
        raise ConfigError(f"model {model!r} holds several .gguf files; name one: {', '.join(f.name for f in files)}")
    return files[0]


def holds_gguf(model: str) -> bool:
    """Whether a model's path is that of a .gguf file, or of a folder of one; hub ids have none.

    Raises:
        ConfigError: a folder of several.
    """
    path = Path(model).expanduser()
    return (_only_gguf(model, path) if path.is_dir() else path).suffix.lower() == ".gguf"


def cached_model(model: str, patterns: Sequence[str] = CHECKPOINT_FILES) -> Path | None:
    """Where the hub's cache has a model; None where it has not. Nothing is reached.

    Raises:
        HFValidationError: this is no hub id.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(model, local_files_only=True, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError:
        return None
    return cached if any(cached.glob("*.safetensors" if "*.safetensors" in patterns else "config.json")) else None
