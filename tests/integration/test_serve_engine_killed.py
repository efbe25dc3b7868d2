"""`ets serve` whose SGLang server is killed under load: every request ends, clearly, and the next ones are answered."""

import asyncio
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import contract_model
import httpx
import pytest
from serve_client import chat, ets_serve

FAKE = Path(__file__).resolve().parents[1] / "fake_server.py"
NUM_REQUESTS = 24
SECONDS = 60.0
"""No request may take longer, whatever happens to the engine."""


@contextmanager
def sglang(port=0):
    """A fake SGLang server in a process of its own, slow enough to be killed at work."""
    command = [sys.executable, str(FAKE), str(port), str(contract_model.SGLANG_POSITIONS), "0.1"]
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    contract_model.build(folder, contract_model.SGLANG_POSITIONS)
    return folder


async def ask(client, name, number):
    """Status, body and seconds of one request."""
    start = time.monotonic()
    answer = await client.post("/v1/chat/completions", json=chat(f"How many w{number}", name, seed=number))
    return answer.status_code, answer.json(), time.monotonic() - start


def test_a_killed_engine_costs_its_own_requests_and_no_restart(policy):
    settings = ("--prm", "none", "--method", "rebase", "--width", 4, "--prompt", "plain", "--max-tokens", 40)
    patience = ("--request-attempts", 2, "--request-timeout", 5, "--max-concurrent", 8, "--max-queue", 64)

    async def under_load(process, url, name):
        async with httpx.AsyncClient(base_url=url, timeout=SECONDS) as client:
            asked = [asyncio.create_task(ask(client, name, number)) for number in range(NUM_REQUESTS)]
            whole, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            process.kill()
            # Later answers may stand on what was left of a search: a lost branch does not lose its request.
            return await asyncio.gather(*asked), [number for number, task in enumerate(asked) if task in whole]

    with (
        sglang() as (process, engine),
        ets_serve("--policy", policy, "--engine", f"sglang:{engine}", *settings, *patience) as server,
    ):
        name = httpx.get(f"{server.url}/v1/models", timeout=SECONDS).json()["data"][0]["id"]
        answers, whole = asyncio.run(under_load(process, server.url, name))
        lost = [body["error"] for status, body, _ in answers if status == 502]
        assert len(lost) + sum(status == 200 for status, _, _ in answers) == NUM_REQUESTS
        assert 0 < len(lost) < NUM_REQUESTS, "some were answered before"
        assert all(engine in error["message"] and "Traceback" not in error["message"] for error in lost)
        assert max(seconds for *_, seconds in answers) < SECONDS
        assert httpx.get(f"{server.url}/health", timeout=SECONDS).status_code == 200
        with sglang(int(re.search(r":(\d+)$", engine)[1])) as (_, again):
            assert again == engine
            status, before, _ = answers[whole[0]]
            assert status == 200, before
            question = chat(f"How many w{whole[0]}", name, seed=whole[0])
            after = httpx.post(f"{server.url}/v1/chat/completions", json=question, timeout=SECONDS)
            assert after.status_code == 200, after.text
            assert after.json()["choices"] == before["choices"], "what the engine that died had answered"
        assert not [line for line in server.said if "Traceback" in line]
        assert server.end() == 0
