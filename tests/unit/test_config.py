"""Settings: one schema, its errors in one line, and hashes that tell runs apart."""

from pathlib import Path

import pytest

from search.config import EvalSettings, SearchSettings, build, load_yaml
from search.errors import ConfigError
from search.setup.registry import make_policy
from search.setup.run_key import config_hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "width = 0: input should be greater than or equal to 1"),
        ({"width": -1}, "width = -1"),
        ({"width": "many"}, "width = 'many': input should be a valid integer"),
        ({"temperature": -0.1}, "temperature = -0.1: input should be greater than or equal to 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_p": 0}, "top_p = 0"),
        (
            {"vote": "loudest"},
            "vote = 'loudest': input should be 'auto', 'majority', 'weighted', 'normalised' or 'best'",
        ),
        ({"widht": 3}, "unknown setting 'widht'; known: .*cluster_distance, .*coverage_weight"),
    ],
)
def test_wrong_settings_say_what_was_wrong_and_what_is_accepted(values, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        build(SearchSettings, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: [1", "line 1: not valid YAML"),
        ("- width", "must be a mapping"),
        ("1: 2", "must be a mapping"),
        ("a: b: c", "line 1: not valid YAML"),
        ("seed: 2024-13-45", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_broken_yaml_names_its_line(tmp_path: Path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(file)


def test_yaml_that_is_missing_empty_or_no_text(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00w")
    with pytest.raises(ConfigError):
        load_yaml(tmp_path / "bytes.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_yaml(tmp_path / "empty.yaml") == {}


def test_the_hash_tells_settings_apart_and_ignores_how_many_problems_are_taken():
    plain = EvalSettings()
    assert config_hash(plain) == config_hash(EvalSettings(width=16)) == config_hash(EvalSettings(limit=3))
    changed = [EvalSettings(seed=1), EvalSettings(width=4), EvalSettings(options={"temperature": 0.1})]
    assert len({config_hash(plain), *map(config_hash, changed)}) == 4


def test_runs_of_before_a_setting_was_there_are_gone_on_with():
    """The hash of a record that has no such setting is that of settings which leave it at what was always done."""
    now = SearchSettings().model_dump(mode="json")
    before = {name: value for name, value in now.items() if name not in ("lookahead", "frontier", "begin")}
    assert config_hash(now) == config_hash(before)
    for name, value in (("lookahead", 2), ("frontier", "rolling"), ("begin", "needed")):
        assert config_hash({**now, name: value}) != config_hash(before)


def test_the_hash_takes_a_path_for_the_place_it_leads_to(tmp_path: Path, monkeypatch):
    (tmp_path / "policy").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ("policy", "./policy", str(tmp_path / "policy"))
    assert len({config_hash(SearchSettings(policy=name)) for name in names}) == 1
    probes = ["probe:policy", "probe:./policy", f"probe:{tmp_path}/policy"]
    assert len({config_hash(SearchSettings(prm=name)) for name in probes}) == 1
    assert config_hash(SearchSettings(policy="./other")) != config_hash(SearchSettings(policy="./policy"))


def test_a_whole_number_is_taken_for_a_float_option():
    assert make_policy(SearchSettings(options={"temperature": 1}), "last").temperature == 1.0
