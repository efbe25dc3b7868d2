"""its_hub's own algorithms through `ets serve`, as they are: only the address is ours (`make test-its-hub`)."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from serve_client import PROBLEM, ets_serve

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-its-hub" / "bin" / "python"
BUDGET = 8


@pytest.fixture(scope="module")
def server():
    with ets_serve("--width", 1, "--method", "best-of-n", "--policy", "mini:draft") as running:
        yield running


def through(server, model):
    command = [str(PYTHON), str(HERE / "client.py"), f"{server.url}/v1", model, PROBLEM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("model", ["mini-draft", "mini-draft@ets-4"])
def test_self_consistency_and_best_of_n_over_plain_and_over_searched_answers(server, model):
    before = finished(server)
    got = through(server, model)
    assert finished(server) - before == 2 * BUDGET
    votes = got["votes"]
    assert len(votes) == BUDGET and all(re.fullmatch(r"\d+", vote) for vote in votes)
    winner = re.findall(r"boxed\{(.*?)\}", got["voted"])[-1]
    assert votes.count(winner) == max(votes.count(vote) for vote in votes)
    assert got["best"] == got["candidates"][got["scores"].index(max(got["scores"]))]
    prompt, completion = got["usage"]
    assert prompt % BUDGET == 0 and completion > BUDGET
    if model == "mini-draft":
        assert len(set(got["texts"])) > 1  # each request draws a seed of its own


def finished(server):
    return server.metrics().get('ets_searches_total{end="finished"}', 0)
