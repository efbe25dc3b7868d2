"""The files in `deploy/`, as far as they can be run where there is no container engine: every step of them is one."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import yaml
from documents import parse

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def steps():
    """The Dockerfile's instructions with their arguments."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.split(" ", 1) for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line]


def of(kind):
    return [rest for name, rest in steps() if name == kind]


def served(words):
    """Check what follows `ets serve` as the command would."""
    parse(["serve", *words])


def test_the_dockerfiles_instructions_are_dockers_and_its_entry_starts_a_server():
    assert {name for name, _ in steps()} <= {
        "FROM", "WORKDIR", "ARG", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"
    }  # fmt: skip
    assert of("FROM") == ["python:3.11-slim"] and steps()[0][0] == "FROM"
    (entry,), (command,) = map(json.loads, of("ENTRYPOINT")), map(json.loads, of("CMD"))
    assert entry[:2] == ["ets", "serve"]
    served([*entry[2:], *command])
    assert of("EXPOSE") == [entry[entry.index("--port") + 1]]
    (check,) = of("HEALTHCHECK")
    compile(json.loads(check[check.index("[") :])[2], "HEALTHCHECK", "exec")
    made = (ROOT / "Makefile").read_text()
    assert f"TORCH ?= {of('ARG')[0].partition('=')[2].strip(chr(34))}" in made, "the torch that is tested"


def test_what_the_dockerfile_copies_and_installs_is_a_server(tmp_path):
    """Its COPY and RUN lines, in an empty folder: what is installed of it says how it is used."""
    image, site = tmp_path / "app", tmp_path / "site"
    for copied in of("COPY"):
        *sources, target = copied.split()
        for source in sources:
            place = image / target / (source if target == "./" else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)
    installs = [shlex.split(line) for line in of("RUN") if "pip install" in line]
    torch, own = installs
    assert torch[-1] == "$TORCH" and own[-3:] == ["-c", "constraints.txt", ".[serve]"]
    assert (image / "constraints.txt").is_file()
    # Dependencies are here already; the project's own files are not.
    command = [sys.executable, *own[1:4], "--no-deps", "--no-build-isolation", "--quiet", "--target", str(site), "."]
    subprocess.run(command, cwd=image, check=True, timeout=300)
    names = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert all((site / name.replace(".", "/") / "__init__.py").is_file() for name in names)
    shown = subprocess.run(
        [sys.executable, "-m", "search.cli", "serve", "--help"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--deadline" in shown.stdout


def test_the_compose_file_starts_servers_that_know_each_other():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert services.keys() == {"policy", "prm", "ets", "prometheus"}
    ets = services["ets"]
    assert (DEPLOY / ets["build"]["context"] / ets["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    words = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", ets["command"]))
    served(words)
    asked = dict(pairwise(words))
    for role, flag in (("policy", "--engine"), ("prm", "--prm-engine")):
        launch = services[role]["command"].split()
        assert asked[flag] == f"sglang:http://{role}:{launch[launch.index('--port') + 1]}"
        assert services[role]["command"].partition("--model-path ")[2].split()[0] in ets["command"]
        assert role in ets["depends_on"]
    fractions = [
        float(re.search(r"mem-fraction-static (\S+)", services[role]["command"])[1]) for role in ("policy", "prm")
    ]
    assert sum(fractions) < 0.9, "on one GPU"
    scrape = yaml.safe_load(compose["configs"]["prometheus"]["content"])["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": ["ets:8000"]}] and ets["ports"] == ["8000:8000"]
    mounted = {volume.partition(":")[0] for one in services.values() for volume in one.get("volumes", [])}
    assert mounted == set(compose["volumes"])


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    text = (DEPLOY / "ets.service").read_text()
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read_string(text)
    program, command, *words = unit["Service"]["ExecStart"].split()
    assert (program, command) == ("/opt/ets/.venv/bin/ets", "serve")
    config = tmp_path / "serve.yaml"
    config.write_text("")
    served([str(config) if word.endswith("serve.yaml") else word for word in words])
    assert float(unit["Service"]["TimeoutStopSec"]) > 30 + 5, "longer than the server waits for what runs"
    if analyze := shutil.which("systemd-analyze"):
        there = tmp_path / "ets.service"
        there.write_text(
            text.replace(program, sys.executable).replace("file:///opt/ets/docs/serve.md", "https://x.org")
        )
        said = subprocess.run([analyze, "verify", str(there)], capture_output=True, text=True, check=False)
        ours = [line for line in (said.stdout + said.stderr).splitlines() if "ets.service" in line]
        assert not ours, ours
