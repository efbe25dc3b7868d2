"""The changelog's heading as the release script writes it, what it refuses, and what a wheel and the layers hold."""

import tomllib
from pathlib import Path

import pytest
from release import ReleaseError, dated

ROOT = Path(__file__).parents[2]

CHANGELOG = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- A thing.\n\n## 0.1.0 (2026-01-02)\n\n- The first.\n"


def test_the_heading_of_what_is_not_released_gets_version_and_day():
    assert dated(CHANGELOG, "0.2.1", "2026-11-26") == CHANGELOG.replace("0.2.0 (unreleased)", "0.2.1 (2026-11-26)")
    alone = "# Changelog\n\n## 0.1.0 (unreleased)\n\n- A thing.\n"
    assert dated(alone, "0.1.0", "2026-11-26").count("## 0.1.0 (2026-11-26)") == 1


@pytest.mark.parametrize(
    ("changelog", "version", "said"),
    [
        (CHANGELOG, "next", "'next' is no version"),
        (CHANGELOG, "0.1.0", "0.1.0 is not after 0.1.0"),
        (CHANGELOG, "0.0.9", "0.0.9 is not after 0.1.0"),
        (CHANGELOG.replace("unreleased", "2026-02-03"), "0.3.0", "does not begin with a heading"),
        (CHANGELOG.replace("- A thing.\n", ""), "0.2.0", "nothing below its first heading"),
    ],
)
def test_what_cannot_be_released_is_said(changelog, version, said):
    with pytest.raises(ReleaseError, match=said):
        dated(changelog, version, "2026-11-26")


def test_every_package_is_in_the_wheel_and_every_module_has_its_layer():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    roots = [ROOT / name for name in project["importlinter"]["root_packages"]]
    packages = {file.parent for root in roots for file in root.rglob("__init__.py")}
    assert {str(package.relative_to(ROOT)).replace("/", ".") for package in packages} == set(
        project["setuptools"]["packages"]
    )
    layers = " | ".join(project["importlinter"]["contracts"][0]["layers"]).split(" | ")
    modules = {
        f"search.{item.stem}" for item in (ROOT / "search").iterdir() if item in packages or item.suffix == ".py"
    }
    assert (modules - {"search.__init__"}) | {"prm", "ets", "arbitrage"} == set(layers)
