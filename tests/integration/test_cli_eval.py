"""`ets eval`: records, resuming, interruption, failures."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest


def records(folder):
    return {file.name: json.loads(file.read_text()) for file in sorted((folder / "problems").glob("*.json"))}


def outcome(record):
    """What must be equal: every token and fate to the letter, rewards to float32's last digits."""
    return [
        (
            node["ids"],
            node["status"],
            node["reason"],
            None if node["reward"] is None else pytest.approx(node["reward"], abs=1e-5),
        )
        for node in record["tree"]["nodes"]
    ]


EVAL = ("eval", "--data", "mini:test", "--limit", 6, "--width", 4)


def test_a_run_its_records_and_its_resumption(inside, tmp_path):
    first = inside(*EVAL, "--out", "run", "--json")
    assert first.code == 0
    summary = first.json
    assert summary.keys() >= {
        "num_problems",
        "num_failed",
        "accuracy",
        "accuracy_ci95",
        "config_hash",
        "computed_tokens",
    }
    assert (summary["num_problems"], summary["num_failed"], summary["num_resumed"]) == (6, 0, 0)
    low, high = summary["accuracy_ci95"]
    assert 0 <= low <= summary["accuracy"] <= high <= 1
    kept = records(tmp_path / "run")
    assert len(kept) == 6 and {record["config_hash"] for record in kept.values()} == {summary["config_hash"]}
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["width"] == 4 and run["version"] and run["argv"]
    assert run["engines"]["policy"]["seeds"] == "exact" and run["engines"]["prm"]["num_parameters"] > 0

    (tmp_path / "run" / "problems" / sorted(kept)[3]).unlink()
    again = inside(*EVAL, "--out", "run", "--json").json
    assert again["num_resumed"] == 5 and again["accuracy"] == summary["accuracy"]
    assert {name: outcome(r) for name, r in records(tmp_path / "run").items()} == {
        name: outcome(r) for name, r in kept.items()
    }


def test_results_are_equal_at_any_concurrency(inside, tmp_path):
    seen = []
    for concurrency in (1, 3, 32):
        assert inside(*EVAL, "--out", f"run{concurrency}", "--concurrency", concurrency).code == 0
        seen.append({name: outcome(r) for name, r in records(tmp_path / f"run{concurrency}").items()})
    assert seen[0] == seen[1] == seen[2]


def test_other_settings_do_not_mix_with_a_run(inside):
    assert inside("eval", "--limit", 1, "--width", 1, "--out", "run").code == 0
    ran = inside("eval", "--limit", 1, "--width", 2, "--out", "run")
    assert ran.code == 2 and "width: 1 there, 2 now" in ran.err and len(ran.err.splitlines()) == 1


INTERRUPTED = ["eval", "--data", "mini:test", "--limit", "300", "--width", "4", "--concurrency", "4"]


def ended_by(number, folder, *args, begun, ignored=False):
    """The exit code and stderr of `ets eval` that gets a signal as soon as it has begun."""
    # A shell ignores SIGINT for what it runs with &.
    prepare = partial(signal.signal, signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    command, said = [sys.executable, "-m", "search.cli", *INTERRUPTED, *args], []
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, preexec_fn=prepare, **pipes) as process:
        reader = threading.Thread(target=lambda: said.extend(line.rstrip("\n") for line in process.stderr))
        reader.start()
        try:
            while process.poll() is None and not begun(said):
                time.sleep(0.05)
            process.send_signal(number)
            process.wait()
        finally:
            process.kill()
            reader.join()
    return process.returncode, said


@pytest.mark.parametrize(
    ("number", "code", "ignored"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True)],
)
def test_interrupted_it_leaves_whole_records_and_resumes(inside, tmp_path, number, code, ignored):
    problems = tmp_path / "run" / "problems"
    begun = lambda _: len(list(problems.glob("*.json"))) >= 5  # noqa: E731
    ended, said = ended_by(number, tmp_path, "--out", "run", begun=begun, ignored=ignored)
    done = records(tmp_path / "run")
    assert 5 <= len(done) < 300 and all(record["error"] is None for record in done.values())
    assert ended == code
    assert said[-1] == f"ets: interrupted; {len(done)} of 300 problems are kept in run: the same command goes on"
    assert not list(tmp_path.glob("run/**/*.part"))
    (session,) = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    assert session["num_problems"] == len(done) and session["seconds"] > 0
    args = [*INTERRUPTED, "--out", "run"]
    rest = inside(*args[:4], str(len(done) + 3), *args[5:], "--json").json
    assert rest["num_resumed"] > 0 and rest["num_failed"] == 0


def test_interrupted_without_a_folder_it_says_that_nothing_is_kept(tmp_path):
    ended, said = ended_by(signal.SIGINT, tmp_path, begun=lambda said: any("/300 " in line for line in said))
    assert (ended, said[-1]) == (130, "ets: interrupted; nothing is kept: --out DIR keeps a run")


def test_an_interruption_while_models_load_does_not_wait_for_them(inside, monkeypatch):
    from search.engines.local import LocalEngine

    def interrupted(*args, **kwargs):
        assert threading.current_thread() is threading.main_thread(), "where a signal comes"
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(LocalEngine, "load", interrupted)
    since = time.monotonic()
    ran = inside("eval", "--limit", 3, "--out", "run")
    assert ran.code == 143 and "0 of 3 problems are kept in run: the same" in ran.err
    assert inside("solve", "--mini", 0).code == 143
    assert time.monotonic() - since < 50


def test_problems_that_fail_are_counted_kept_and_tried_again(inside, tmp_path):
    lines = [{"problem": "Ben has 13 coins. He gives 4 away. How many coins are left in the end?", "answer": "9"}]
    lines.append({"problem": "He buys 3 more. " * 2000, "answer": "1"})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ran = inside("eval", "--data", "data.jsonl", "--width", 2, "--out", "run", "--json")
    assert ran.code == 3 and ran.json["num_failed"] == 1
    assert "problem 1 failed" in ran.err and "context holds" in ran.err
    assert inside("eval", "--data", "data.jsonl", "--width", 2, "--out", "run", "--json").json["num_resumed"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "none.jsonl"], "no such file; accepted: mini:train"),
        (["--data", "mini:tset"], "unknown mini split 'tset'"),
        (["--limit", 0], "limit = 0"),
        (["--concurrency", 0], "--concurrency"),
        (["--limit", 1, "--out", "/proc/nowhere"], "cannot write /proc/nowhere"),
    ],
)
def test_bad_input(inside, args, message):
    ran = inside("eval", *args)
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1


def test_broken_data_names_its_line(inside, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"problem": "x", "answer": "1"}\n{"problem": \n')
    ran = inside("eval", "--data", "data.jsonl")
    assert ran.code == 2 and "data.jsonl, line 2: not valid JSON" in ran.err


STORY = {"Body": "Ben has 13 coins. He gives 4 away.", "Question": "How many coins are left in the end?", "Answer": 9.0}


def test_any_layout_is_read_said_and_recorded_and_changed_data_are_refused(inside, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([STORY]))
    args = ("eval", "--data", "data.json", "--width", 2, "--out", "run")
    ran = inside(*args)
    said = "read as asdiv: problem = Body + Question, reference = Answer"
    assert ran.code == 0 and f"data data.json: {said}\n" in ran.err and said not in ran.out
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert kept["layout"] == said and kept["num_problems"] == 1 and len(kept["sha256"]) == 64
    (record,) = records(tmp_path / "run").values()
    assert record["problem"] == f"{STORY['Body']} {STORY['Question']}" and record["reference"] == "9"
    (tmp_path / "data.json").write_text(json.dumps([{**STORY, "Answer": 8}]))
    ran = inside(*args)
    assert ran.code == 2 and "run holds a run of other data: problem 0 has another reference now" in ran.err


def test_named_fields_and_no_references(inside, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"story": STORY["Body"], "ask": STORY["Question"], "gold": "9"}))
    ran = inside("eval", "--data", "data.jsonl", "--width", 2, "--json", "--field", "problem={story} {ask},answer=gold")
    assert ran.code == 0 and ran.json["accuracy"] is not None and ran.json["settings"]["reference"] is True
    ran = inside("eval", "--data", "data.jsonl", "--width", 2, "--field", "problem={story} {ask}", "--no-reference")
    assert ran.code == 0 and "accuracy          unknown (no reference answers)" in ran.out
    assert "no references" in ran.err
    ran = inside("eval", "--data", "data.jsonl", "--field", "problem={sotry},answer=gold")
    assert ran.code == 2 and "no row of data.jsonl has 'sotry'; there are 'story', 'ask', 'gold'" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_closed_pipe_is_no_traceback(tmp_path):
    """More is written than a pipe holds, to a reader that has left."""
    row = json.dumps({"answer": "1", "reference": "2", "verdict": True}) + "\n"
    (tmp_path / "answers.jsonl").write_text(row * 5000)
    command = [sys.executable, "-m", "search.cli", "grade", "answers.jsonl", "--grader", "plain"]
    env = {**os.environ, "PYTHONUNBUFFERED": ""}  # else Python tells nobody that it wrote a part only
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")
