"""Build the wheel, install it in a new environment outside the checkout, and use it there.

Run as `python tests/try_wheel.py`; pytest does not collect it, as it installs for a minute or two.
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
TORCH = "torch==2.13.0"
MAX_WHEEL_BYTES = 30_000_000
PACKAGES = {"search", "prm", "ets", "arbitrage"}


def main() -> None:
    """Build, check, install, use."""
    torch = torch_asked(__doc__)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        say("building")
        check(build(work, "--wheel"), work, torch)


def torch_asked(about: str | None) -> str:
    """What to install before all else, as the command line says it."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--torch", default=TORCH, help="what to install before all else")
    return str(parser.parse_args().torch)


def build(folder: Path, *options: str) -> Path:
    """Build into a folder; the wheel, which without options is built from the sdist."""
    run([sys.executable, "-m", "build", *options, "--outdir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def check(wheel: Path, work: Path, torch: str) -> None:
    """Hold a wheel to what it must have in it, and use it in an environment below `work`."""
    check_contents(wheel)
    say("installing into a new environment")
    python = environment(work / "venv", torch, wheel)
    say("using it")
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    solve = [str(python.parent / "ets"), "solve", "--mini", "0", "--width", "4", "--json"]
    solved = json.loads(run(solve, cwd=elsewhere))
    assert solved["trajectories"] and solved["stats"]["num_failed"] == 0, solved
    where = run([str(python), "-c", "import search, prm, ets, arbitrage; print(search.__file__)"], cwd=elsewhere)
    assert str(ROOT) not in where, f"imported from the checkout: {where}"
    say("the wheel works")


def environment(folder: Path, *requirements: str | Path) -> Path:
    """A new environment's Python, with these installed one after the other."""
    run([sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    for one in requirements:
        run([*pip(python), "install", "-c", str(ROOT / "constraints.txt"), str(one)])
    return python


def pip(python: Path) -> list[str]:
    """The beginning of a command line."""
    return [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]


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
    """A command's standard output; ends this program where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    """Progress goes to stderr."""
    sys.stderr.write(f"{Path(sys.argv[0]).stem}: {text}\n")


if __name__ == "__main__":
    main()
