"""The command in a message must be one that works: by the packages' own names, with this interpreter."""

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from search.support import extras


def words(command):
    found = shlex.split(command)
    assert Path(found[0]).resolve() == Path(sys.executable).resolve() and found[1:4] == ["-m", "pip", "install"]
    return found[4:]


def test_inside_the_checkout_the_command_is_that_of_its_documents(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert words(extras.install("gguf")) == ["-e", ".[gguf]"]
    monkeypatch.setattr(extras, "_from_checkout", lambda extra: [])
    assert "-e" not in words(extras.install("gguf")), "a wheel may be used there"


def test_beside_a_checkout_what_its_project_file_names_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert words(extras.install("plots")) == ["matplotlib>=3.8"]
    assert words(extras.install("lora")) == ["peft>=0.15"]


@pytest.mark.parametrize("extra", ["plots", "pulp", "serve"])
def test_a_wheel_names_the_same_packages(extra, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    named = {one.split(">")[0].split("<")[0] for one in words(extras.install(extra))}
    monkeypatch.setattr(extras, "_from_checkout", lambda extra: [])
    assert {one.split(">")[0].split("<")[0] for one in words(extras.install(extra))} == named


def test_without_any_metadata_the_checkouts_extra_is_named(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "_from_checkout", lambda extra: [])
    monkeypatch.setattr(extras, "requires", missing)
    assert words(extras.install("plots")) == ["/path/to/checkout[plots]"], "the project itself is on no index"


def test_nothing_says_to_install_the_project_from_an_index():
    """It is on none; `pip install ets-arbitrage` would fail, or fetch what somebody else put there."""
    root = Path(__file__).resolve().parents[2]
    files = [
        root / "README.md",
        *root.glob("docs/*.md"),
        *(root / "deploy").iterdir(),
        *(root / "examples").rglob("*.*"),
    ]
    files += [file for package in ("search", "prm", "ets", "arbitrage") for file in (root / package).rglob("*.py")]
    told = re.compile(r"pip install\b[^\n`]*\bets-arbitrage\b")
    assert not [str(file) for file in files if file.is_file() and told.search(file.read_text(encoding="utf-8"))]


def test_the_interpreter_is_named_as_it_can_be_typed_here(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert extras.install_packages("peft").startswith(".venv/bin/python -m pip install peft")
