"""`ets eval` killed at random moments: what is on disk is whole, and the run goes on from there."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.results.record import RunDirectory, read_record
from search.support.files import sweep_parts

ARGS = ["eval", "--data", "mini:test", "--limit", "60", "--width", "4", "--out", "run", "--concurrency", "8"]


def start(folder):
    command = [sys.executable, "-m", "search.cli", *ARGS, "--json"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ten_kills_lose_nothing_and_double_nothing(tmp_path):
    rng = random.Random(5)
    problems = tmp_path / "run" / "problems"
    done = 0
    for kill in range(10):
        process = start(tmp_path)
        # Every second kill falls among the writing of records, the others anywhere in the start.
        if kill % 2:
            deadline = time.monotonic() + 120
            while process.poll() is None and len(list(problems.glob("*.json"))) <= done + 2:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))
        else:
            time.sleep(rng.uniform(0, 6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = [read_record(file) for file in problems.glob("*.json")]
        assert len({one.problem_id for one in kept}) == len(kept) >= done, "a kill cost a record, or doubled one"
        done = len(kept)
    assert 0 < done < 60, "the kills fell while the run was going on"
    (tmp_path / "run" / "problems" / f".x.json.{2**22 + 1}.abc.part").write_text("{")
    process = start(tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["num_problems"] == 60 and summary["num_resumed"] == done and summary["num_failed"] == 0
    files = sorted(problems.iterdir())
    assert len(files) == 60 and all(file.suffix == ".json" for file in files), "no litter"
    records = [read_record(file) for file in files]
    assert len({one.problem_id for one in records}) == 60
    assert {one.config_hash for one in records} == {summary["config_hash"]}
    assert not list(Path(tmp_path / "run").glob(".*.part"))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["grader"] == "plain" and run["sessions"][-1]["num_problems"] == 60 - done


def test_parts_of_living_processes_are_left_alone(tmp_path):
    import os

    mine = tmp_path / f".a.json.{os.getpid()}.xyz.part"
    gone = tmp_path / ".a.json.4194305.xyz.part"
    old = tmp_path / ".a.json.xyz.part"
    for file in (mine, gone, old):
        file.write_text("{")
    assert sweep_parts(tmp_path) == 2
    assert [file.name for file in tmp_path.iterdir()] == [mine.name]
    RunDirectory(tmp_path).open({"config_hash": "a"})
    assert mine.exists()
