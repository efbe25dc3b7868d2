"""A server that dies under a run, and servers behind a router."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import launch
import pytest
from cli import ets, say
from test_search import metrics, solved

from search.api import Search
from search.problems.data import load_problems


def records(folder):
    return {file.name: json.loads(file.read_text()) for file in (folder / "problems").glob("*.json")}


def test_a_server_killed_in_the_middle_of_a_run(servers, tmp_path):
    url = servers.url("target-2")
    args = ["eval", "--data", "mini:test", "--limit", "20", "--method", "rebase", "--width", "8", "--out", "run"]
    args += ["--engine", f"sglang:{url}", "--request-attempts", "3", "--concurrency", "4", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "search.cli", *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and len(list(tmp_path.glob("run/problems/*.json"))) < 4:
        time.sleep(0.05)
    os.kill(servers.server("target-2").process.pid, signal.SIGKILL)
    servers.server("target-2").kill()  # and the processes it had started
    servers.restart("target-2")
    out, err = process.communicate(timeout=300)
    first = records(tmp_path / "run")
    broken = {name for name, record in first.items() if record["error"] is not None}
    summary = json.loads(out)
    say(f"killed: {len(first) - len(broken)} solved, {len(broken)} failed, exit {process.returncode}")
    assert len(first) == summary["num_problems"] == 20, "none is lost"
    assert summary["num_failed"] == len(broken) and process.returncode == (3 if broken else 0), err
    assert broken, "it was killed in the middle"
    assert all("cannot be reached" in first[name]["error"] or "broke" in first[name]["error"] for name in broken), [
        first[name]["error"] for name in broken
    ]

    servers.url("target-2")
    again = ets(*args, cwd=tmp_path)
    rest = again.json
    assert rest["num_resumed"] == 20 - len(broken) and rest["num_failed"] == 0
    second = records(tmp_path / "run")
    assert {name: second[name] for name in first.keys() - broken} == {
        name: first[name] for name in first.keys() - broken
    }, "none is done twice"


@pytest.mark.parametrize("front", ["router", "urls"])
def test_one_searchs_tree_stays_on_one_worker(servers, front):
    servers.start("target", "target-2")
    workers = [servers.url("target"), servers.url("target-2")]
    router = None
    address = ",".join(workers)
    if front == "router":
        router = launch.Router(workers, "--policy", "manual")
        router.wait()
        address = router.url
    try:
        homes = Counter()
        for problem in load_problems("mini:test", 6):
            search = Search(method="rebase", width=8, prm=None, engine=f"sglang:{address}")
            assert search.driver is not None
            before = [metrics(url)["sglang:prompt_tokens_total"] for url in workers]
            (result,) = asyncio.run(solved(search, [problem]))
            moved = [metrics(url)["sglang:prompt_tokens_total"] - old for url, old in zip(workers, before, strict=True)]
            assert sum(one > 0 for one in moved) == 1, moved
            homes[moved.index(max(moved))] += 1
            assert result.stats.num_failed == 0
            assert result.stats.computed_tokens <= 1.1 * result.stats.unique_tokens
        say(f"{front}: searches by worker {dict(homes)}")

        before = [metrics(url)["sglang:prompt_tokens_total"] for url in workers]
        search = Search(method="rebase", width=8, prm=None, engine=f"sglang:{address}")
        asyncio.run(solved(search, load_problems("mini:test", 12)))
        after = [metrics(url)["sglang:prompt_tokens_total"] for url in workers]
        assert all(new > old for new, old in zip(after, before, strict=True)), "many searches use both"
    finally:
        if router is not None:
            router.stop()
