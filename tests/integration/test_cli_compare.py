"""`ets compare` and `ets sweep` on the mini family: what the figures are, what is refused, what is gone on with."""

import csv
import json
import shutil

import pytest
import yaml

from search.engines.local import LocalEngine
from search.support.statistics import wilson_interval

BASE = ("eval", "--data", "mini:test", "--width", 4)


def records(folder):
    return {file.stem: json.loads(file.read_text()) for file in sorted((folder / "problems").glob("*.json"))}


@pytest.fixture(scope="module")
def made_runs(made_once):
    folder, run = made_once
    run(*BASE, "--limit", 6, "--method", "rebase", "--out", "rebase")
    run(*BASE, "--limit", 4, "--method", "self-consistency", "--temperature", 0.8, "--out", "sc")
    run("eval", "--data", "mini:dev", "--limit", 1, "--width", 1, "--prm", "none", "--out", "other")
    return folder


@pytest.fixture
def runs(made_runs, tmp_path):
    """Runs of the same problems, and one of others, in the folder of the test."""
    shutil.copytree(made_runs, tmp_path, dirs_exist_ok=True)


def test_figures_are_of_the_problems_that_all_have(inside, tmp_path, runs):
    ran = inside("compare", "rebase", "sc", "--json")
    assert ran.code == 0 and ran.json["num_problems"] == 4
    kept = {name: records(tmp_path / name) for name in ("rebase", "sc")}
    shared = sorted(kept["sc"])
    for row in ran.json["runs"]:
        own = [kept[row["run"]][name] for name in shared]
        right = sum(one["correct"] for one in own)
        assert row["accuracy"] == right / 4
        assert (row["accuracy_lo"], row["accuracy_hi"]) == pytest.approx(tuple(wilson_interval(right, 4)))
        for figure, key in (("kv_tokens_mean", "kv_tokens_mean"), ("policy_tokens", "policy_tokens")):
            assert row[figure] == pytest.approx(sum(one["stats"][key] for one in own) / 4)
        assert row["target_tokens"] == row["policy_tokens"], "a single model is its own target"
        (session,) = json.loads((tmp_path / row["run"] / "run.json").read_text())["sessions"]
        assert row["seconds_wall"] == session["seconds"]
        assert row["problems_per_hour"] == pytest.approx(3600 * session["num_problems"] / session["seconds"])
    first, second = ran.json["runs"]
    assert first["accuracy_diff"] is None
    differences = [kept["sc"][name]["correct"] - kept["rebase"][name]["correct"] for name in shared]
    assert second["accuracy_diff"] == sum(differences) / 4
    assert second["accuracy_diff_lo"] <= second["accuracy_diff"] <= second["accuracy_diff_hi"]
    assert (first["varies"]["temperature"], second["varies"]["temperature"]) == (1.0, 0.8)
    assert any("On the 4 problems that all runs have; each has: rebase 6, sc 4" in note for note in ran.json["notes"])
    assert any(note.startswith("Votes: rebase weighted, self-consistency majority") for note in ran.json["notes"])


def test_three_layouts_hold_the_same_figures_and_a_plot(inside, tmp_path, runs):
    rows = inside("compare", "rebase", "sc", "--json").json["runs"]
    table = list(csv.DictReader(inside("compare", "rebase", "sc", "--format", "csv").out.splitlines()))
    assert [row["run"] for row in table] == ["rebase", "sc"]
    assert [float(row["temperature"]) for row in table] == [1.0, 0.8]
    assert [int(row["KV tokens"]) for row in table] == [round(row["kv_tokens_mean"]) for row in rows]
    marked = inside("compare", "rebase", "sc", "--format", "md").out
    assert marked.startswith("### 2 runs on the same 4 problems") and "| rebase | rebase | 4 |" in marked
    shown = inside("compare", "rebase", "sc", "--plot", "figure.png")
    assert shown.out.startswith("2 runs on the same 4 problems\n") and "less the first (95%)" in shown.out
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_draft_and_target_are_told_apart(inside):
    routed = ("--method", "chain", "--writer", "arbitrage", "--router", "random:0.5")
    assert inside("eval", "--limit", 4, *routed, "--out", "routed").code == 0
    assert inside("eval", "--limit", 4, "--method", "chain", "--out", "alone").code == 0
    alone, both = inside("compare", "alone", "routed", "--json").json["runs"]
    assert alone["target_tokens"] == alone["policy_tokens"]
    assert 0 < both["target_tokens"] < both["policy_tokens"] and both["method"] == "chain, random:0.5"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rebase"], "give two runs or more"),
        (["rebase", "other"], "no problem in common; their data: mini:test, mini:dev"),
        (["rebase", "nowhere"], "nowhere: holds no run"),
        ([], "RUN"),
    ],
)
def test_what_cannot_be_compared(inside, runs, args, message):
    ran = inside("compare", *args)
    assert ran.code == 2 and message in ran.err and ran.out == "" and len(ran.err.splitlines()) == 1


# Sweeps


def write(tmp_path, **values):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values))


SETTINGS = {"problems": {"data": "mini:test", "limit": 2}}


@pytest.fixture
def loads(monkeypatch):
    """Names of the checkpoints that were loaded in this process."""
    loaded, load = [], LocalEngine.load.__func__

    def noted(cls, path, **options):
        loaded.append(str(path).rpartition("/")[2])
        return load(cls, path, **options)

    monkeypatch.setattr(LocalEngine, "load", classmethod(noted))
    return loaded


def test_a_grid_is_run_with_models_loaded_once_and_gone_on_with(inside, tmp_path, loads):
    grid = [{"search": {"method": methods, "width": [2, 4]}} for methods in (["greedy"], ["rebase", "ets"])]
    write(tmp_path, settings=SETTINGS, grid=grid, concurrency=4)
    ran = inside("sweep", "grid.yaml", "--out", "runs", "--json")
    assert ran.code == 0 and sorted(loads) == ["prm", "target"]
    names = ["greedy_width-2", "rebase_width-2", "rebase_width-4", "ets_width-2", "ets_width-4"]
    assert [row["run"] for row in ran.json["runs"]] == [f"runs/{name}" for name in names]
    assert "ets: greedy_width-4 is the same run as greedy_width-2 and is left out" in ran.err
    assert ran.json == json.loads((tmp_path / "runs" / "compare.json").read_text())
    alone = inside("eval", "--data", "mini:test", "--limit", 2, "--method", "ets", "--width", 4, "--out", "alone")
    assert alone.code == 0
    same = [{name: one["answer"] for name, one in records(tmp_path / f).items()} for f in ("alone", "runs/ets_width-4")]
    assert same[0] == same[1], "a cell is an ordinary run"
    loads.clear()
    again = inside("sweep", "grid.yaml", "--out", "runs", "--json")
    assert not loads and again.json == ran.json
    (next((tmp_path / "runs" / "ets_width-4" / "problems").iterdir())).unlink()
    assert inside("sweep", "grid.yaml", "--out", "runs", "--format", "csv").code == 0 and sorted(loads) == [
        "prm",
        "target",
    ]


def test_a_cell_that_fails_does_not_lose_the_others(inside, tmp_path, loads):
    prms = ["mini:prm", "./nowhere", "none"]
    settings = {**SETTINGS, "search": {"method": "rebase"}}
    write(tmp_path, settings=settings, grid={"rewards": {"prm": prms}, "search": {"width": 2}})
    ran = inside("sweep", "grid.yaml", "--out", "runs", "--json")
    assert ran.code == 3 and loads == ["prm", "target"]
    assert [row["run"] for row in ran.json["runs"]] == ["runs/prm-mini-prm_width-2", "runs/prm-none_width-2"]
    assert "ets: failed: prm-.-nowhere_width-2: model './nowhere'" in ran.err
    assert "1 failures, the first: prm-.-nowhere_width-2" in ran.err and "the same command goes on" in ran.err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"grid": {"search": {"method": ["ets"]}}, "setings": {}},
            "unknown key 'setings'; known: settings, grid, concurrency",
        ),
        ({"settings": {}}, "grid must be a mapping"),
        ({"grid": []}, "grid must be a mapping"),
        ({"grid": {"search": {"width": []}}}, "grid width is an empty list"),
        ({"grid": {"search": {"width": [0]}}}, "width-0: width = 0"),
        ({"grid": {"search": {"method": ["rebas"]}}}, "rebas: unknown method 'rebas' (did you mean rebase?)"),
        ({"grid": {"search": {"widht": [2]}}}, "grid: unknown setting 'search.widht'"),
        ({"grid": {"width": [2]}}, "grid: width: now search.width"),
        ({"grid": {"search": {"width": [2]}}, "settings": {"data": "mini:test"}}, "settings: data: now problems.data"),
        ({"grid": {"search": {"width": [2]}}, "settings": [1]}, "settings: must be a mapping of groups"),
        ({"grid": {"search": {"width": [2]}}, "concurrency": 0}, "concurrency = 0"),
    ],
)
def test_a_wrong_sweep_is_said_before_the_work(inside, tmp_path, values, message):
    write(tmp_path, **values)
    ran = inside("sweep", "grid.yaml", "--out", "runs")
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_sweep_or_reproduction_says_what_is_kept(inside, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("search.runs.sweep.run_sweep", interrupted)
    monkeypatch.setattr("search.studies.reproduce_ets.reproduce", interrupted)
    write(tmp_path, grid={"search": {"width": [1, 2]}})
    for args, folder in ((("sweep", "grid.yaml"), "runs/grid"), (("repro", "ets"), "runs/ets-mini")):
        ran = inside(*args)
        assert ran.code == 130
        said = f"ets: interrupted; what is done is kept in {folder}: the same command goes on"
        assert ran.err.splitlines()[-1] == said


def test_a_sweep_of_which_nothing_works_fails(inside, tmp_path):
    write(tmp_path, settings={**SETTINGS, "models": {"policy": "./nowhere"}}, grid={"search": {"width": [1, 2]}})
    ran = inside("sweep", "grid.yaml")
    assert ran.code == 1 and "every run failed; the first: width-1: model './nowhere'" in ran.err
