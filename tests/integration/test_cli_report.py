"""`ets eval` on local files and `ets report`: formats end to end, votes without a model, plots."""

import json
import shutil

import pytest

GSM8K = [
    {"question": "Ben has 13 coins. He gives 4 away. How many coins are left in the end?", "answer": "13-4\n#### 9"},
    {"question": "Tom has 5 pens. He buys 6 more. How many pens has he in the end?", "answer": "5+6=11\n#### 11"},
]
MATH500 = [
    {"problem": "What is $\\frac{1}{2} + \\frac{1}{2}$?", "solution": "One.", "answer": "1", "unique_id": "a/1.json"},
    {"problem": "Ben has 13 coins. He gives 4 away. How many are left?", "answer": "\\frac{18}{2}", "unique_id": "a/2"},
]


def write(folder, rows):
    (folder / "data.jsonl").write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


@pytest.mark.parametrize("rows", [GSM8K, MATH500], ids=["gsm8k", "math500"])
def test_a_local_file_is_evaluated_end_to_end(inside, tmp_path, rows):
    write(tmp_path, rows)
    ran = inside("eval", "--data", "data.jsonl", "--width", 4, "--out", "run", "--json")
    assert ran.code == 0 and ran.json["num_problems"] == 2 and ran.json["accuracy"] is not None
    assert ran.json["settings"]["grader"] == "math", "which grader ran is recorded"
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["grader"] == "math" and run["sessions"][0]["num_problems"] == 2
    kept = [json.loads(file.read_text()) for file in (tmp_path / "run" / "problems").iterdir()]
    assert all(one["tree"] is not None and one["correct"] is not None for one in kept)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"problem": "x"}], "data.jsonl: no column for the reference answer; there are 'problem'"),
        ([{"answer": "1"}], "data.jsonl: no column for the problem's text; there are 'answer'"),
        ([*MATH500, MATH500[0]], "data.jsonl, line 3: id 'a/1.json' stands at line 1 already"),
        ([GSM8K[0], '{"question": '], "data.jsonl, line 2: not valid JSON"),
        ([], "data.jsonl: holds no problems"),
        (["", "  "], "data.jsonl: holds no problems"),
        ([GSM8K[0], {"problem": "x" * 10_000_000, "answer": "1"}], "data.jsonl, line 2: longer than"),
    ],
    ids=["no answer", "no problem", "twice", "broken", "empty", "blank", "10 MB"],
)
def test_a_broken_file_is_one_line_and_code_2(inside, tmp_path, rows, message):
    write(tmp_path, rows)
    ran = inside("eval", "--data", "data.jsonl", "--out", "run")
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def runs(made_once):
    """Two small runs of the mini family."""
    folder, run = made_once
    for method in ("rebase", "ets"):
        run("eval", "--method", method, "--width", 4, "--limit", 8, "--out", method)
    return folder


def test_a_report_is_the_runs_own_summary(inside, runs):
    kept = json.loads((runs / "rebase" / "summary.json").read_text())
    shown = inside("report", runs / "rebase", "--json").json
    for name in ("accuracy", "accuracy_ci95", "num_problems", "computed_tokens", "kv_tokens_mean", "config_hash"):
        assert shown[name] == kept[name], name
    assert shown["problems_per_second"] > 0 and shown["problems_per_cpu_second"] > 0


def test_a_run_that_is_not_finished_says_so(inside, runs, tmp_path):
    assert "problems          8, 0 failed\n" in inside("report", runs / "rebase").out
    shutil.copytree(runs / "rebase", tmp_path / "part")
    for file in sorted((tmp_path / "part" / "problems").iterdir())[:3]:
        file.unlink()
    assert "problems          5 of at most 8, 0 failed\n" in inside("report", tmp_path / "part").out


def test_voting_again_is_what_the_run_would_have_said(inside, runs, tmp_path):
    again = inside(
        "eval", "--method", "rebase", "--width", 4, "--limit", 8, "--vote", "majority", "--out", "m", "--json"
    ).json
    voted = inside("report", runs / "rebase", "--vote", "majority", "--json").json
    assert voted["accuracy"] == again["accuracy"] and voted["settings"]["vote"] == "majority"
    others = {
        (rule, reduce): inside("report", runs / "rebase", "--vote", rule, "--reduce", reduce, "--json").json["accuracy"]
        for rule in ("majority", "weighted", "best")
        for reduce in ("last", "min", "mean", "prod")
    }
    assert len({others["majority", reduce] for reduce in ("last", "min", "mean", "prod")}) == 1
    assert others["weighted", "last"] == inside("report", runs / "rebase", "--json").json["accuracy"]
    assert (
        inside("report", runs / "rebase", "--grader", "math", "--json").json["accuracy"] == others["weighted", "last"]
    )


def test_plots_are_written(inside, runs, tmp_path):
    ran = inside("report", runs / "rebase", runs / "ets", "--plot", "plots")
    assert ran.code == 0 and ran.out.count("95% interval") == 2 and "grader plain" in ran.out
    for name in ("accuracy-kv.png", "accuracy-latency.png", "kv-depth.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "plots" / "plots.json").read_text())) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [(["nowhere"], "holds no run"), ([], "Missing argument"), (["x", "--vote", "most"], "'most' is not one of")],
)
def test_bad_input(inside, args, message):
    ran = inside("report", *args)
    assert ran.code == 2 and message in ran.err


def test_a_broken_record_is_named(inside, runs, tmp_path):
    import shutil

    shutil.copytree(runs / "ets", tmp_path / "copy")
    broken = sorted((tmp_path / "copy" / "problems").iterdir())[0]
    broken.write_text('{"version": 1,')
    ran = inside("report", "copy")
    assert ran.code == 2 and broken.name in ran.err and "not a problem's record" in ran.err
