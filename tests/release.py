"""Make a release: date the changelog's heading, build sdist and wheel into dist/, and check both.

    python tests/release.py 0.2.0

Uploads nothing, commits nothing: it ends with what is left to be typed. What it changed is put back where it fails.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from packaging.version import InvalidVersion, Version
from try_wheel import ROOT, TORCH, build, check, run, say

PROJECT, CHANGELOG = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
HEADING = re.compile(r"^## (\S+)(?: \((.+)\))?$", re.MULTILINE)
VERSION = re.compile(r'^version = "(.+)"$', re.MULTILINE)


class ReleaseError(Exception):
    """One line on what stands in the way."""


def main() -> int:
    """Write, build, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="of the release, e.g. 0.2.0")
    parser.add_argument("--torch", default=TORCH, help="what to install before all else, to try the wheel")
    wanted = parser.parse_args()
    before = {file: file.read_text(encoding="utf-8") for file in (PROJECT, CHANGELOG)}
    done = False
    try:
        if changed := run(["git", "-C", str(ROOT), "status", "--porcelain"]):
            raise ReleaseError(f"the checkout has changes that are not committed:\n{changed.rstrip()}")
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        CHANGELOG.write_text(dated(before[CHANGELOG], wanted.version, today), encoding="utf-8")
        PROJECT.write_text(VERSION.sub(f'version = "{wanted.version}"', before[PROJECT], count=1), encoding="utf-8")
        built = release(wanted.version, wanted.torch)
        done = True
    except ReleaseError as error:
        say(str(error))
        return 2
    finally:
        if not done:
            for file, text in before.items():
                file.write_text(text, encoding="utf-8")
    say("ready; what is left:")
    sys.stdout.write(f"git commit -am 'Release {wanted.version}' && git tag v{wanted.version}\n")
    sys.stdout.write("".join(f"{file.relative_to(ROOT)}\n" for file in built))
    return 0


def dated(changelog: str, version: str, today: str) -> str:
    """The changelog with the version and the day in the heading of what is not released yet.

    Raises:
        ReleaseError: it is no version, there is nothing to release, or the last release is not older.
    """
    try:
        new = Version(version)
    except InvalidVersion:
        raise ReleaseError(f"{version!r} is no version; accepted: as 0.2.0 or 0.2.0rc1") from None
    headings = list(HEADING.finditer(changelog))
    if not headings or headings[0][2] != "unreleased":
        raise ReleaseError("CHANGELOG.md does not begin with a heading such as '## 0.2.0 (unreleased)'")
    first, end = headings[0], headings[1].start() if len(headings) > 1 else len(changelog)
    if not changelog[first.end() : end].strip():
        raise ReleaseError("CHANGELOG.md has nothing below its first heading")
    if len(headings) > 1 and new <= Version(headings[1][1]):
        raise ReleaseError(f"version {version} is not after {headings[1][1]}, the last one released")
    return f"{changelog[: first.start()]}## {new} ({today}){changelog[first.end() :]}"


def release(version: str, torch: str) -> list[Path]:
    """The files in dist/: an sdist, and the wheel that was built from it and works."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        say("building the sdist, and the wheel from it")
        wheel = build(work)
        (sdist,) = work.glob("*.tar.gz")
        check_sdist(sdist, version)
        assert f"-{version}-" in wheel.name, wheel.name
        check(wheel, work, torch)
        (ROOT / "dist").mkdir(exist_ok=True)
        return [Path(shutil.copy(file, ROOT / "dist")) for file in (sdist, wheel)]


def check_sdist(sdist: Path, version: str) -> None:
    """It holds what the wheel is built from, with the licence, and no weights, data or runs that lay about."""
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert sdist.name.endswith(f"-{version}.tar.gz"), sdist.name
    for needed in ("LICENSE", "README.md", "pyproject.toml", "search/mini/weights/target/model.safetensors"):
        assert needed in names, f"{sdist.name}: {needed} is missing"
    strangers = [name for name in names if name.partition("/")[0] in {"runs", "real", "shared", "build", "dist"}]
    assert not strangers, f"{sdist.name} holds {strangers[:3]}"
    say(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB, {len(names)} files")


if __name__ == "__main__":
    sys.exit(main())
