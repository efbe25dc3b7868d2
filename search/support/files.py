"""Files that are whole or not there at all, whatever breaks while they are written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.errors import ConfigError


def write_atomic(file: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the whole new one.

    Raises:
        ConfigError: the place cannot be written to.
    """
    try:
        file = file.resolve()  # a link is followed, not replaced
        if file.exists() and not file.is_file():
            raise ConfigError(f"cannot write {file}: it is no ordinary file")
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.{os.getpid()}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content.encode() if isinstance(content, str) else content)
                out.flush()
                os.fsync(out.fileno())
            Path(name).chmod(file.stat().st_mode if file.exists() else 0o666 & ~_umask())
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or error}") from None


@contextmanager
def filled_folder(folder: Path, last: str) -> Iterator[Path]:
    """A folder to write files into, which then take their places in another; a file of these names is replaced.

    Args:
        folder: where they go; made where it is not there.
        last: the file that comes last, so that a folder that has it is whole.

    Raises:
        ConfigError: the place cannot be written to.
    """
    partial = folder / ".partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        (folder / last).unlink(missing_ok=True)
        for file in sorted(partial.iterdir(), key=lambda file: file.name == last):
            file.replace(folder / file.name)
        partial.rmdir()
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror or error}") from None


def sweep_parts(folder: Path) -> int:
    """Remove what processes that are gone left half written in a folder; how many files that were."""
    swept = 0
    for file in folder.glob(".*.part"):
        owner = file.name.removesuffix(".part").rpartition(".")[0].rpartition(".")[2]
        if not (owner.isdecimal() and _is_running(int(owner))):
            file.unlink(missing_ok=True)
            swept += 1
    return swept


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, but is not ours
        return True
    return True


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
