"""Build the wheel, install it in a new environment outside the checkout, and use it there.

Run as `python tests/wheel.py`; pytest does not collect it, as it installs for a minute or two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_WHEEL_BYTES = 30_000_000
PACKAGES = {"search", "prm", "ets", "arbitrage"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="torch==2.13.0", help="what to install before all else")
    torch = parser.parse_args().torch
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        say("building")
        run([sys.executable, "-m", "build", "--wheel", "--outdir", str(work), str(ROOT)])
        (wheel,) = work.glob("*.whl")
        check_contents(wheel)
        say("installing into a new environment")
        run([sys.executable, "-m", "venv", str(work / "venv")])
        python = str(work / "venv" / "bin" / "python")
        pip = [
            python,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "install",
            "-c",
            str(ROOT / "constraints.txt"),
        ]
        run([*pip, torch])
        run([*pip, str(wheel)])
        say("using it")
        elsewhere = work / "elsewhere"
        elsewhere.mkdir()
        ets = str(work / "venv" / "bin" / "ets")
        solved = json.loads(run([ets, "solve", "--mini", "0", "--width", "4", "--json"], cwd=elsewhere))
        assert solved["trajectories"] and solved["stats"]["num_failed"] == 0, solved
        where = run([python, "-c", "import search, prm, ets, arbitrage; print(search.__file__)"], cwd=elsewhere)
        assert str(ROOT) not in where, f"imported from the checkout: {where}"
    say("the wheel works")


def check_contents(wheel: Path) -> None:
    """The four packages with their types and weights, nothing else, and not too large."""
    size = wheel.stat().st_size
    assert size <= MAX_WHEEL_BYTES, f"{size} bytes"
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == PACKAGES, tops
    viewer = (
        "search/view/page.html",
        "search/view/page.css",
        "search/view/script/state.js",
        "search/view/script/live.js",
    )
    weights = "search/mini/weights/target/model.safetensors"
    for needed in (*(f"{package}/py.typed" for package in PACKAGES), *viewer, weights):
        assert needed in names, f"{needed} is missing"
    say(f"{wheel.name}: {size / 1e6:.1f} MB, {len(names)} files")


def run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    sys.stderr.write(f"wheel: {text}\n")


if __name__ == "__main__":
    main()
