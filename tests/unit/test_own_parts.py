"""A new method, router, engine or family of reward models is one file and one line of the catalogue: the examples."""

import re
import shutil
from pathlib import Path

import pytest

from search import ConfigError, Problem, Search
from search.catalogue import ENGINES, METHODS, PRM_FAMILIES, ROUTERS, Method, RouterKind
from search.mini import problem
from search.setup.registry import model_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ASKED = problem("test", 3)


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def entry(name):
    """The catalogue's line, as the example says it."""
    return re.search(r'^    "[\w-]+": (.+),$', (EXAMPLES / name).read_text(), re.MULTILINE)[1]


def solve(**settings):
    with Search(**{"method": "rebase", "width": 3, "max_depth": 4, **settings}) as search:
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


def test_a_new_level_wise_method_is_known_by_its_name_and_its_fields_are_its_options(monkeypatch):
    monkeypatch.setitem(METHODS, "half-as-good", eval(entry("own_policy.py"), {"Method": Method}))
    settings, strict = solve(method="half-as-good", width=6, options={"share": 1.0})
    assert settings.method_name == "half-as-good"
    _, easy = solve(method="half-as-good", width=6, options={"share": 0.0})
    num_pruned = [sum("against" in node.reason for node in tree) for tree in (strict, easy)]
    assert num_pruned[0] > num_pruned[1] == 0
    with pytest.raises(ConfigError, match=r"has no option 'shore'"):
        solve(method="half-as-good", options={"shore": 1.0})


def test_a_new_event_wise_method_prunes_what_was_below_the_median_when_it_came(monkeypatch):
    monkeypatch.setitem(METHODS, "above-median", eval(entry("own_event_policy.py"), {"Method": Method}))
    _, tree = solve(method="above-median", width=6)
    _, again = solve(method="above-median", width=6)
    assert [(node.ids, node.reason) for node in tree] == [(node.ids, node.reason) for node in again]
    reasons = [re.fullmatch(r"above-median: ([\d.]+) against ([\d.]+)", node.reason) for node in tree]
    below = [found for found in reasons if found]
    assert below and all(float(found[1]) <= float(found[2]) for found in below)
    assert max(len(tree.children(node.id)) for node in tree if node.id) > 1  # freed width went to the good ones


def test_a_new_engine_is_known_by_its_name_and_its_seeds_are_exact(monkeypatch, tmp_path):
    asked = {"engine": "ngram", "policy": str(tmp_path), "prm": "confidence:mean-logprob", "prompt": "plain"}
    with pytest.raises(ConfigError, match="unknown engine 'ngram'"):
        solve(**asked)
    monkeypatch.setitem(ENGINES, "ngram", eval(entry("own_engine.py")))
    with pytest.raises(ConfigError, match=r"holds no \.txt file"):
        solve(**asked)
    for number in range(4):
        lines = [f"{number} + {other} = {number + other}.\n\n" for other in range(9)]
        (tmp_path / f"{number}.txt").write_text(
            "Solution:\n\n" + "".join(lines) + f"The answer is \\boxed{{{number}}}."
        )
    settings, tree = solve(**asked)
    assert settings.engine == "ngram"
    _, again = solve(**asked)
    _, other = solve(**asked, seed=1)
    assert [node.ids for node in tree] == [node.ids for node in again] != [node.ids for node in other]
    steps = [node for node in tree if node.id]
    assert all(bytes(token for token in node.ids if token < 256).decode() == node.text for node in steps)
    assert all(0 < node.reward <= 1 for node in steps if node.reward is not None)
