"""Searches of the mini family on real servers: the same as in this process, and as cheap as they can be."""

import asyncio
import json
import resource
import urllib.request
from pathlib import Path

import pytest
from cli import ets, say

from search.api import Failure, Search
from search.problems.data import load_problems
from search.support.statistics import wilson_interval

NUM_PROBLEMS = 20


async def solved(search, problems, concurrency=8):
    async with search:
        found = {}
        async for item in search.asolve_many(problems, concurrency):
            assert not isinstance(item, Failure), item.error
            found[item.problem.id] = item
    return [found[problem.id] for problem in problems]


def solve(problems, concurrency=8, **settings):
    return asyncio.run(solved(Search(**settings), problems, concurrency))


@pytest.fixture(scope="module")
def problems():
    return load_problems("mini:test", NUM_PROBLEMS)


@pytest.fixture(scope="module")
def urls(servers):
    servers.start("target", "prm")
    return {"engine": f"sglang:{servers.url('target')}", "prm_engine": f"sglang:{servers.url('prm')}"}


def metrics(url):
    """A server's own counters, summed over their labels."""
    found = {}
    for line in urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def test_greedy_search_writes_what_the_local_engine_writes(problems, urls):
    here = solve(problems, method="greedy", prm=None)
    there = solve(problems, method="greedy", prm=None, engine=urls["engine"])
    for one, other in zip(here, there, strict=True):
        assert [node.ids for node in one.tree] == [node.ids for node in other.tree]
        assert [node.text for node in one.tree] == [node.text for node in other.tree]
        assert one.answer == other.answer


def test_ets_is_as_right_as_on_the_local_engine(problems, urls):
    here = solve(problems, method="ets", width=16)
    there = solve(problems, method="ets", width=16, **urls)
    low, high = wilson_interval(sum(result.correct is True for result in here), NUM_PROBLEMS)
    accuracy = sum(result.correct is True for result in there) / NUM_PROBLEMS
    say(f"ETS at width 16: {accuracy:.2f} on SGLang; the local engine's interval is {low:.2f} to {high:.2f}")
    assert low <= accuracy <= high
    assert all(result.stats.kv_tokens_engine_peak for result in there), "asked of the server while it worked"


def test_each_token_is_computed_about_once_and_rewards_are_the_local_engines(urls):
    servers = ("--engine", urls["engine"], "--prm-engine", urls["prm_engine"])
    report = ets("bench", "sglang", "--limit", 20, "--repeats", 5, *servers, "--json")
    figures = report.json["figures"]
    say(json.dumps(figures, indent=1))
    assert figures["policy_work_ratio"] <= 1.10 and figures["prm_work_ratio"] <= 1.15
    assert figures["reward_max_abs_diff"] <= 1e-4
    # By processor time, as other work on the machine would decide otherwise.
    assert figures["client_steps_per_cpu_second"] >= 2000


def test_our_count_of_the_work_is_the_servers_own(servers, urls, problems):
    url = servers.url("target")
    search = Search(method="ets", width=16, engine=urls["engine"], prm_engine=urls["prm_engine"])
    assert search.driver is not None  # connected: what it asked of the server for that is counted before
    before = metrics(url)
    results = asyncio.run(solved(search, problems[:8]))
    after = metrics(url)
    names = ("prompt_tokens_total", "cached_tokens_total", "generation_tokens_total")
    prompt, cached, generated = (after[f"sglang:{n}"] - before.get(f"sglang:{n}", 0.0) for n in names)
    samples = sum(result.stats.num_nodes - 1 for result in results)
    ours = sum(result.stats.computed_tokens for result in results)
    theirs = prompt - cached + generated - samples
    say(f"positions computed: {ours} by our books, {theirs:.0f} by the server's")
    assert ours == pytest.approx(theirs, rel=0.02)


def test_200_problems_at_once(servers, urls):
    """No error, a bounded client, and no more connections than requests are allowed."""
    most, limit = 0, 64
    port = f":{servers.server('target').port:04X}"

    def connections():
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(line.split()[2].endswith(port) and line.split()[3] == "01" for line in lines)

    async def watched():
        nonlocal most
        search = Search(method="rebase", width=8, prm=None, engine=urls["engine"], max_requests=limit)
        task = asyncio.create_task(solved(search, load_problems("mini:test", 200), concurrency=200))
        while not task.done():
            most = max(most, connections())
            await asyncio.sleep(0.05)
        return await task

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = asyncio.run(watched())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = (peak - before) / 1024
    say(f"200 problems: peak memory {peak / 1024:.0f} MiB, {grown:.0f} of them new; {most} connections at most")
    assert len(results) == 200 and not any(result.error or result.stats.num_failed for result in results)
    assert 1 < most <= limit + 2, "two more may ask for the load"
    assert peak - before < 400 * 1024


def test_a_cancelled_search_leaves_the_server_idle(servers, urls):
    url = servers.url("target")

    def running():
        loads = json.load(urllib.request.urlopen(f"{url}/v1/loads", timeout=10))["loads"]
        return sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)

    async def body():
        search = Search(method="best-of-n", width=32, prm=None, engine=urls["engine"])
        async with search:
            tasks = [asyncio.create_task(search.asolve(problem)) for problem in load_problems("mini:test", 8)]
            for _ in range(200):
                await asyncio.sleep(0.05)
                if await asyncio.to_thread(running):
                    break
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(100):
                if not await asyncio.to_thread(running):
                    return True
                await asyncio.sleep(0.05)
        return False

    assert asyncio.run(body())


def test_doctor_says_what_a_server_is(servers, urls):
    ran = ets("doctor", "--engine", urls["engine"], "--prm-engine", urls["prm_engine"])
    assert ran.code == 0, ran.out
    for words in (
        "SGLang 0.5.23",
        "token capacity 65536",
        "radix cache on",
        "context 505",
        "seeds none",
        "weights/target",
    ):
        assert words in ran.out
    wrong = ets("eval", "--limit", 2, "--engine", "sglang:http://127.0.0.1:9", "--out", "run")
    assert wrong.code == 2 and len(wrong.err.splitlines()) == 1 and "cannot be reached" in wrong.err


def test_a_full_context_is_a_finished_trajectory(servers, urls):
    """The server's context is what ends it: no crash, no failure, and its reason stands in the tree."""
    question = "He buys 3 more. " * 78 + "How many coins are left in the end?"
    search = Search(method="best-of-n", width=4, prm=None, engine=urls["engine"], max_step_tokens=256)

    async def body():
        async with search:
            return await search.asolve(question)

    result = asyncio.run(body())
    reasons = {one.reason for one in result.trajectories}
    assert result.stats.num_failed == 0 and "context full" in reasons, reasons
