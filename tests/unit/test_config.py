"""Settings: one schema, its errors in one line, and hashes that tell runs apart."""

from pathlib import Path

import pytest

from search.config import GROUPS, EvalSettings, SearchSettings, build, load_yaml, ungrouped
from search.errors import ConfigError
from search.setup.registry import make_policy
from search.setup.resolve import record_of, resolve
from search.setup.run_key import config_hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "width = 0: must be at least 1"),
        ({"width": -1}, "width = -1"),
        ({"width": "many"}, "width = 'many': must be a valid integer"),
        ({"temperature": -0.1}, "temperature = -0.1: must be at least 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_p": 0}, "top_p = 0"),
        (
            {"vote": "loudest"},
            "vote = 'loudest': must be 'auto', 'majority', 'weighted', 'normalised' or 'best'",
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


def test_every_setting_is_in_one_group_and_no_group_has_a_settings_name():
    settings = [setting for group in GROUPS.values() for setting in group.model_fields]
    assert sorted(settings) == sorted(EvalSettings.model_fields), "none twice, none left out"
    assert not GROUPS.keys() & set(settings), "so the old form of a file cannot be read as the new one"


def test_settings_of_groups_are_those_by_their_names():
    grouped = {"search": {"width": 4, "options": {"num_keep": 2}}, "votes": None, "models": {}}
    assert ungrouped(SearchSettings, grouped) == {"width": 4, "options": {"num_keep": 2}}
    assert ungrouped(EvalSettings, {"problems": {"limit": 3}}) == {"limit": 3}


@pytest.mark.parametrize("setting", EvalSettings.model_fields)
def test_a_setting_of_the_old_form_is_refused_with_its_place(setting):
    (place,) = [name for name, group in GROUPS.items() if setting in group.model_fields]
    elsewhere = "votes" if place == "models" else "models"
    for grouped in ({setting: None}, {setting: {}}, {elsewhere: {setting: 1}}, {"nowhere": 1, setting: 1}):
        with pytest.raises(ConfigError, match=rf"^c\.yaml: {setting}: now {place}\.{setting}$"):
            ungrouped(EvalSettings, grouped, "c.yaml: ")


@pytest.mark.parametrize("grouped", [{1: 2}, {"search": {1: 2}}, {"search": [1]}, [1], "search", None, 4])
def test_what_is_no_group_of_settings_is_refused(grouped):
    with pytest.raises(ConfigError, match=r"unknown group 1|unknown setting 'search\.1'|must be a mapping of"):
        ungrouped(SearchSettings, grouped)


def test_the_hash_tells_settings_apart_and_ignores_how_many_problems_are_taken():
    plain = EvalSettings()
    assert config_hash(plain) == config_hash(EvalSettings(width=16)) == config_hash(EvalSettings(limit=3))
    changed = [EvalSettings(seed=1), EvalSettings(width=4), EvalSettings(options={"temperature": 0.1})]
    assert len({config_hash(plain), *map(config_hash, changed)}) == 4


KEPT = {
    "policy": "mini:target", "prm": "mini:prm", "lookahead": 0, "prm_codec": "label-tokens", "engine": "local",
    "prm_engine": "local", "method": "rebase", "writer": "model", "width": 16, "until": "decided",
    "frontier": "level", "seed": 0, "temperature": 1.0, "top_p": 1.0, "max_step_tokens": 256, "thinking": "auto",
    "min_step_tokens": 0, "max_tokens": 1024, "max_depth": 25, "vote": "weighted", "reduce": "prod",
    "search_reduce": "prod", "options": {"temperature": 0.2, "rounding": "ceil"}, "prompt": "auto",
    "chat_options": {}, "grader": "plain", "device": "cpu", "dtype": "float32", "trust_remote_code": False,
    "data": "mini:test", "reference": True, "limit": 3,
}  # fmt: skip
"""Settings of a run as it was recorded when they were in no groups."""


def test_a_run_that_was_recorded_before_settings_had_groups_is_the_same_run():
    groups = {"search": {"method": "rebase"}, "problems": {"limit": 3}}
    for settings in (build(EvalSettings, KEPT), build(EvalSettings, ungrouped(EvalSettings, groups))):
        kept = record_of(resolve(settings).settings)
        assert kept == KEPT and config_hash(kept) == "f2571cc89452"


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
