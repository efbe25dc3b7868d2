"""Routers by their names: kind, threshold and folder, and what is refused."""

import pytest

from search.catalogue import ROUTERS
from search.errors import ConfigError
from search.setup.routing import parse_router


def test_names_are_read_back():
    for kind in ROUTERS:
        spec = parse_router(kind)
        assert spec == parse_router(spec.name)
        assert spec.threshold == ROUTERS[kind].default <= ROUTERS[kind].highest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rds:0.7", "unknown router 'rds:0.7'; known: never, always, random:P"),
        ("rsd:1.5", "threshold 1.5 is out of range; accepted: rsd:DELTA"),
        ("random:-0.1", "out of range"),
        ("arbitrage:nan", "out of range"),
        ("oracle:2", "out of range"),
        ("judge:10", r"accepted: judge:K \(least rating"),
        ("rsd:high", "must be a number"),
        ("always:1", "always takes no threshold"),
        ("probe:1.5", r"accepted: probe:TAU \(highest estimate"),
        ("probe:folder:nan", "out of range"),
    ],
)
def test_wrong_routers_are_refused_with_what_is_accepted(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_router(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("probe", ("probe", 0.15, "")),
        ("probe:0.3", ("probe", 0.3, "")),
        ("probe:runs/my-probe", ("probe", 0.15, "runs/my-probe")),
        ("probe:runs/my-probe:0.3", ("probe", 0.3, "runs/my-probe")),
        ("probe:mini:probe", ("probe", 0.15, "mini:probe")),
        ("probe:mini:probe:0.3", ("probe", 0.3, "mini:probe")),
    ],
)
def test_a_probe_is_named_by_its_folder_with_or_without_a_threshold(text, wanted):
    assert parse_router(text) == wanted
