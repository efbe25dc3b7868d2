"""What a run keeps, and what it refuses to go on with: changed weights, other precision, nothing silent."""

import asyncio
import csv
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from search.config import EvalSettings, build
from search.runs.evaluation import Evaluation
from search.setup.registry import model_path

LITTLE = ("--data", "mini:test", "--limit", 2, "--width", 2)


def copy_of(role, folder):
    shutil.copytree(model_path(f"mini:{role}"), folder)
    return folder


def change(folder):
    """Train it a little, so to say: one weight of one tensor is another."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] += 0.5
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def policy(tmp_path):
    return copy_of("draft", tmp_path / "policy")


def run_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_an_own_policy_is_scored_by_nothing_unless_told_so(inside, tmp_path, policy):
    ran = inside("eval", *LITTLE, "--policy", "./policy", "--out", "run", "--json")
    assert ran.code == 0 and ran.json["num_prm_calls"] == 0 and ran.json["settings"]["prm"] == "none"
    assert "ets: prm none: no reward model was named, and mini:prm is not put beside './policy'" in ran.err
    assert "ets: no reward model: ets takes every leaf for as good as any other" in ran.err
    assert len(run_of(tmp_path / "run")["notes"]) == 2
    named = inside("eval", *LITTLE, "--policy", "./policy", "--prm", "mini:prm", "--method", "rebase", "--json")
    assert named.json["num_prm_calls"] > 0 and "ets: " not in named.err


def test_changed_weights_are_not_gone_on_with(inside, tmp_path, policy):
    args = ("eval", *LITTLE, "--method", "self-consistency", "--out", "run")
    assert inside(*args, "--policy", "./policy").code == 0
    again = inside(*args, "--policy", "policy", "--json")
    assert again.code == 0 and again.json["num_resumed"] == 2, "another spelling is the same run"
    before = (tmp_path / "run" / "run.json").read_bytes()
    change(policy)
    for limit in (2, 3):  # with nothing left to do, too: these are not this model's results
        ran = inside(*args, "--policy", "policy", "--limit", limit)
        assert ran.code == 2 and len(ran.err.splitlines()) == 1
        assert "the files of policy have changed since" in ran.err
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_run_keeps_what_ran_and_is_gone_on_with_at_one_precision(inside, tmp_path):
    assert inside("eval", *LITTLE, "--method", "rebase", "--out", "run").code == 0
    kept = run_of(tmp_path / "run")
    assert "auto" not in json.dumps(kept["settings"]) and None not in kept["settings"].values()
    assert kept["settings"]["prompt"] == "chat" and kept["settings"]["prm_codec"] == "label-tokens"
    assert not {"router", "draft", "solver", "embedder"} & kept["settings"].keys()
    assert kept["weights"].keys() == {"policy", "prm"}
    (session,) = kept["sessions"]
    assert session["engines"] == kept["engines"] and session["engines"]["policy"]["details"]["dtype"] == "float32"
    kept["engines"]["prm"]["details"]["dtype"] = "bfloat16"  # as of a server that was started anew, in another way
    (tmp_path / "run" / "run.json").write_text(json.dumps(kept))
    assert inside("eval", *LITTLE, "--method", "rebase", "--out", "run").code == 0, "nothing is left to be solved"
    ran = inside("eval", *LITTLE, "--limit", 3, "--method", "rebase", "--out", "run")
    assert ran.code == 2 and "prm computed in bfloat16, and this one computes in float32" in ran.err


def test_wall_means_one_thing(inside, tmp_path):
    args = ("eval", *LITTLE, "--method", "rebase", "--out", "run", "--json")
    first = inside(*args).json
    assert 0 < first["seconds_wall"] < first["seconds"] + 1 and first["seconds_loading"] > 0
    again, (report,) = inside(*args).json, [inside("report", "run", "--json").json]
    assert again["num_resumed"] == 2
    for name in ("seconds_wall", "seconds_loading", "num_timed"):
        assert first[name] == again[name] == report[name], name
    kept = run_of(tmp_path / "run")
    kept["sessions"] = []  # as a run has them that was killed when sessions were kept at their end
    (tmp_path / "run" / "run.json").write_text(json.dumps(kept))
    assert "unknown wall, " in inside("report", "run").out


def test_seconds_are_kept_as_problems_end(inside, tmp_path):
    """A run killed after 16 minutes was shown with the 88 seconds of its second call, and 0 problems an hour."""
    settings, seen = {"data": "mini:test", "limit": 3, "width": 2, "method": "rebase"}, []
    for number, name in enumerate(("run", "other")):
        evaluation = Evaluation(build(EvalSettings, {**settings, "seed": number}), tmp_path / name)
        note = lambda done, _, name=name: seen.append(run_of(tmp_path / name).get("sessions", []))  # noqa: E731
        asyncio.run(evaluation.run(1, note))
    each = [sessions[-1] for sessions in seen[:3]]
    assert [one["num_problems"] for one in each] == [1, 2, 3] and 0 < each[0]["seconds"] < each[1]["seconds"]
    kept = run_of(tmp_path / "run")
    calls = [{**kept["sessions"][0], "seconds": 100.0, "num_problems": count} for count in (2, 0)]
    for sessions, wall, rate in ((calls, 200.0, 36.0), (calls[1:], None, None)):
        (tmp_path / "run" / "run.json").write_text(json.dumps({**kept, "sessions": sessions}))
        (tmp_path / "run" / "problems" / "mini-test-2.json").unlink(missing_ok=True)
        row = inside("compare", "run", "other", "--json").json["runs"][0]
        assert (row["seconds_wall"], row["problems_per_hour"]) == (wall, rate)
        (cells, _) = csv.DictReader(inside("compare", "run", "other", "--format", "csv").out.splitlines())
        assert cells["wall s"] == ("" if wall is None else "200.0")
        assert inside("report", "run", "--json").json["problems_per_second"] == (None if rate is None else 0.01)


def test_one_set_of_flags_for_every_method(inside):
    flags = (*LITTLE, "--prm", "mini:prm", "--temperature", 0.8, "--node-cost", "tokens", "--vote", "weighted")
    for method in ("greedy", "self-consistency", "beam", "ets"):
        ran = inside("eval", *flags, "--limit", 1, "--method", method)
        assert ran.code == 0
        said = [line for line in ran.err.splitlines() if "does not use" in line]
        assert len(said) == (method != "ets") and all(f"method {method}" in line for line in said)


def test_a_server_that_is_gone_and_what_to_do(inside):
    args = ("eval", *LITTLE, "--prm", "none", "--engine", "sglang:http://127.0.0.1:9")
    ran = inside(*args, "--out", "run")
    assert ran.code == 2 and ran.err.rstrip().endswith("; once it is there, the same command goes on with run")
    assert "the same command" not in inside(*args).err


def test_contexts_that_cannot_meet_are_said_at_the_start(inside, tmp_path):
    prm = copy_of("prm", tmp_path / "short")
    config = json.loads((prm / "config.json").read_text())
    (prm / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    ran = inside("eval", *LITTLE, "--prm", "./short", "--method", "rebase")
    assert "the reward model reads 64 tokens, prompt included, and a solution may have 512" in ran.err


def test_ets_that_keeps_everything_says_why(inside):
    args = ("eval", *LITTLE, "--limit", 4, "--width", 8)
    apart = inside(*args, "--cluster-distance", 0, "--json").json["notes"]
    (note,) = [text for text in apart if "every leaf is a cluster of its own" in text]
    assert apart[note] > 0
    assert not inside(*args, "--cluster-distance", 2, "--json").json["notes"], "all leaves are alike"
    shown = inside(*args, "--cluster-distance", 0).out
    assert f"selections {note}" in shown


def test_the_same_note_of_many_searches_is_one_line(inside):
    """Which selection it was, and how the vote stood there, made every one a line of its own."""
    ran = inside("eval", "--limit", 6, "--method", "rebase", "--width", 8, "--json")
    assert list(ran.json["notes"]) == ["the vote is decided"] and 1 < ran.json["notes"]["the vote is decided"] <= 6
    certain = inside("eval", "--limit", 6, "--method", "rebase", "--width", 8, "--confidence", 0.7, "--json")
    assert "the vote is certain" in certain.json["notes"]


def test_kv_figures_can_be_compared(inside):
    args = ("solve", "--mini", 0, "--method", "best-of-n", "--width", 1)
    shown = inside(*args).out
    rows = {line[:13].strip(): line.split() for line in shown.splitlines()}
    kept = int(rows["KV kept"][rows["KV kept"].index("average,") + 1])
    assert int(rows["KV unshared"][2]) >= kept > 0, "both have the prompt: a single chain shares nothing"


def test_a_solution_without_an_answer_is_shown_all_the_same(inside):
    shown = inside("solve", "--mini", 0, "--max-tokens", 3, "--method", "rebase", "--width", 2).out
    assert "Best solution" not in shown and "No solution has an answer; the highest reward of 2" in shown
    assert shown.split("reward of 2\n")[1].split("\nAnswer: none")[0].strip()


def test_plots_are_checked_before_the_work_and_tables_come_without_them(inside, tmp_path, monkeypatch):
    assert inside("eval", *LITTLE, "--method", "rebase", "--out", "run").code == 0
    monkeypatch.setattr("search.support.plots.find_spec", lambda name: None)
    ran = inside("report", "run", "--plot", "plots")
    assert ran.code == 2 and ran.out == "" and "plots need matplotlib: " in ran.err
    (tmp_path / "recipe.yaml").write_text(
        "kind: ets\ntitle: Little\nsettings: {problems: {data: 'mini:test'}}\nmethods: {rebase: {}, ets: {}}\n"
        "widths: {2: {limit: 2}}\n"
    )
    ran = inside("repro", "ets", "--recipe", "recipe.yaml", "--out", "tables")
    assert ran.code == 0 and ran.err.startswith("ets: the tables are written without figures: plots need matplotlib")
    assert {file.name for file in (tmp_path / "tables").iterdir()} >= {"ets.md", "ets.json", "ets-searches.csv"}
