"""A new router, and a new family of reward models, is one file and one line of the catalogue: the examples, by name."""

import re
import shutil
from pathlib import Path

import pytest

from search import ConfigError, Problem, Search
from search.catalogue import PRM_FAMILIES, ROUTERS, RouterKind
from search.mini import problem
from search.setup.registry import model_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ASKED = problem("test", 3)


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def entry(name):
    """The catalogue's line, as the example says it."""
    return re.search(r'^    "\w+": (.+),$', (EXAMPLES / name).read_text(), re.MULTILINE)[1]


def solve(**settings):
    with Search(method="rebase", width=3, max_depth=4, **settings) as search:
        return search.settings, search.solve(Problem(ASKED.id, ASKED.text, ASKED.answer)).tree


def test_a_new_router_is_known_by_its_name(monkeypatch):
    with pytest.raises(ConfigError, match="unknown router 'largest:30'"):
        solve(writer="arbitrage", router="largest:30")
    monkeypatch.setitem(ROUTERS, "largest", eval(entry("own_router.py"), {"RouterKind": RouterKind}))
    settings, tree = solve(writer="arbitrage", router="largest:30")
    assert settings.router == "largest:30" and settings.router_model == "auto"
    steps = [node for node in tree if node.id]
    drafted = [max(map(int, re.findall("[0-9]+", node.text)), default=0) for node in steps if node.writer == "draft"]
    assert drafted and max(drafted) <= 30 and {node.writer for node in steps} == {"draft", "target"}
    with pytest.raises(ConfigError, match=r"out of range; accepted: largest:N \(largest number of a .* 0 to 1000\)"):
        solve(writer="arbitrage", router="largest:2000")


def test_a_checkpoint_of_a_new_family_is_recognised_and_read(monkeypatch, tmp_path):
    shutil.copytree(model_path("mini:prm"), tmp_path / "calibrated-prm")
    (tmp_path / "calibrated-prm" / "prm_config.json").unlink()
    with pytest.raises(ConfigError, match="no reward model that can be recognised"):
        solve(prm=str(tmp_path / "calibrated-prm"))
    monkeypatch.setitem(PRM_FAMILIES, "calibrated", eval(entry("own_prm_family.py")))
    settings, tree = solve(prm=str(tmp_path / "calibrated-prm"))
    assert settings.prm_codec == "calibrated"
    first = [node for node in tree if node.depth == 1]
    _, plain = solve(prm="mini:prm")
    assert [node.ids for node in first] == [node.ids for node in plain if node.depth == 1]
    for node in first:
        odds = (plain[node.id].reward / (1 - plain[node.id].reward)) ** 0.5
        assert node.reward == pytest.approx(odds / (1 + odds), abs=1e-5)
