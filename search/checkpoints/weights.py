"""Which weights a checkpoint holds: a fingerprint of its files, so that a run never goes on with others unseen."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from search.errors import ConfigError

_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.json", "*.txt", "*.model", "*.jinja", "*.py")
_WHOLE_BYTES = 256 << 20
_BLOCK_BYTES, _NUM_BLOCKS = 1 << 20, 64


def fingerprint(path: Path) -> str:
    """16 hexadecimal digits of what decides a model's output: weights, configuration, tokenizer, templates, own code.

    A file of more than 256 MiB counts by its size, its first MiB (where the names and shapes of the weights stand) and
    64 blocks of 1 MiB spread evenly up to its end: training changes weights everywhere, and a model of any size is
    read in a moment. The names of the files count and their times do not, so that a copy is the same.

    Args:
        path: a checkpoint's folder, or its single file.

    Raises:
        ConfigError: a file cannot be read.
    """
    files = [path]
    if path.is_dir():
        files = sorted({file for pattern in _PATTERNS for file in path.glob(pattern) if file.is_file()})
    digest = hashlib.sha256()
    try:
        for file in files:
            status = file.stat()
            content = _content(file.resolve(), status.st_size, status.st_mtime_ns)
            digest.update(f"{file.name if path.is_dir() else ''}\0{status.st_size}\0{content}\n".encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1024)
def _content(file: Path, num_bytes: int, changed_ns: int) -> str:
    """A file's digest; read once while its size and time stay as they are."""
    del changed_ns
    with file.open("rb") as held:
        if num_bytes <= _WHOLE_BYTES:
            return hashlib.file_digest(held, "sha256").hexdigest()
        digest = hashlib.sha256(held.read(_BLOCK_BYTES))
        for number in range(_NUM_BLOCKS):
            held.seek((num_bytes - _BLOCK_BYTES) * number // (_NUM_BLOCKS - 1))
            digest.update(held.read(_BLOCK_BYTES))
    return digest.hexdigest()
