"""Every extra in an environment of its own: what is said to install it does, and then what needed it works.

Run as `python tests/try_extras.py`; pytest does not collect it: it installs for some minutes. The environments begin
with the wheel and torch; what is heavy, or is for the checkout alone, is resolved and not installed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import threading
import tomllib
from pathlib import Path

import gguf_files
import pyarrow
from pyarrow import parquet
from try_wheel import ROOT, build, environment, pip, run, say, torch_asked

RESOLVED = frozenset({"browser", "docs", "lint", "sglang", "test"})
"""Not installed here: tools of the checkout, and gigabytes."""

LITTLE = ("--width", "4", "--json")
LORA = """
from types import SimpleNamespace
from transformers import AutoModelForCausalLM
from search.learning.router import add_lora
from search.setup.registry import model_path
network = AutoModelForCausalLM.from_pretrained(model_path("mini:draft"))
add_lora(SimpleNamespace(model=SimpleNamespace(decoder=network)), 4)
"""
USES = {
    "bench": ("ets", "eval", "--data", "problems.parquet", "--limit", "1", *LITTLE),
    "embed": ("ets", "solve", "--mini", "0", "--embedder", "minilm", *LITTLE),
    "gguf": ("ets", "solve", "2 + 2?", "--policy", "model.gguf", "--method", "greedy", "--max-tokens", "8"),
    "lora": ("python", "-c", LORA),
    "plots": ("ets", "report", "run", "--plot", "plots"),
    "pulp": ("ets", "solve", "--mini", "0", "--method", "ets-paper", "--solver", "pulp", *LITTLE),
    "serve": ("ets", "serve", "--port", "0"),
}
"""What works with an extra, and without it says how to get it."""

READY = "ets: serving"
SERVER_SECONDS = 120.0


def main() -> None:
    """Take the extras one by one."""
    torch = torch_asked(__doc__)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras) == RESOLVED | set(USES), "an extra is neither tried nor resolved here"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        say("building the wheel, and an environment with it and torch")
        wheel = build(work, "--wheel")
        base = environment(work / "base", torch, wheel)
        material(base, work)
        for extra in sorted(extras):
            if extra in RESOLVED:
                run([*pip(base), "install", "--dry-run", f"{wheel}[{extra}]"])
                say(f"{extra}: can be resolved")
            else:
                try_extra(extra, base, work)


def material(base: Path, folder: Path) -> None:
    """A run, a .gguf file and a table, for the commands to have."""
    run([str(base.parent / "ets"), "eval", "--limit", "1", "--width", "2", "--out", "run"], cwd=folder)
    gguf_files.write_gguf(folder / "model.gguf", gguf_files.network("llama"))
    parquet.write_table(pyarrow.table({"problem": ["What is 2 + 2?"], "answer": ["4"]}), folder / "problems.parquet")


def try_extra(extra: str, base: Path, folder: Path) -> None:
    """Use, be told what is missing, do exactly that, and use again."""
    python = environment(folder / f"{extra}-environment")  # not a folder that `import` would take for a package
    (paths,) = base.parents[1].glob("lib/python*/site-packages")
    (own,) = python.parents[1].glob("lib/python*/site-packages")
    (own / "base.pth").write_text(f"{paths}\n", encoding="utf-8")
    code, said = use(extra, python, folder)
    told = asked_for(said)
    assert code and told, f"{extra}: without it: exit code {code}\n{said}"
    say(f"{extra}: {told}")
    run(["env", f"PIP_CONSTRAINT={ROOT / 'constraints.txt'}", "PIP_QUIET=1", *shlex.split(told)], cwd=folder)
    code, said = use(extra, python, folder)
    assert not code, f"{extra}: with it: exit code {code}\n{said}"
    say(f"{extra}: works")


def use(extra: str, python: Path, folder: Path) -> tuple[int, str]:
    """Exit code and all output of what needs an extra; a server that is ready is ended, and has worked."""
    program, *arguments = USES[extra]
    command = [str(python), *(["-m", "search.cli"] if program == "ets" else []), *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(SERVER_SECONDS, process.kill) if extra == "serve" else None
    if watchdog:
        watchdog.start()
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if line.startswith(READY):
            process.terminate()
    if watchdog:
        watchdog.cancel()
    return process.wait(), said


def asked_for(said: str) -> str:
    """The command that a message names; empty if it names none."""
    found = re.search(r"(\S+ -m pip install) (.*)", said)
    if not found:
        return ""
    packages: list[str] = []
    for word in re.findall(r"'[^']+'|[^\s']+", found[2]):
        packages.append(word.rstrip(";,)"))
        if word != packages[-1]:
            break
    return " ".join([found[1], *packages])


if __name__ == "__main__":
    main()
