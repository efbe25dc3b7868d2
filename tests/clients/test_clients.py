"""Clients as they are installed, through `ets serve`: an answer, a stream and an error each (`make test-clients`).

The `openai` package itself is asked in `tests/integration/test_serve.py`, its_hub in `tests/its_hub`.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from serve_client import PROBLEM, ets_serve

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-clients" / "bin" / "python"
MODEL = "mini-target@ets-4"


@pytest.fixture(scope="module")
def server():
    with ets_serve("--width", 4) as running:
        yield running


@pytest.fixture(scope="module", params=["litellm", "langchain"])
def got(request, server):
    """What a client's program prints."""
    program = HERE / f"use_{request.param}.py"
    command = [str(PYTHON), str(program), f"{server.url}/v1", MODEL, PROBLEM]
    # litellm would fetch its list of prices first.
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_answer(got):
    assert "\\boxed{" in got["answer"] and got["finish"] == "stop" and got["tokens"] > 0


def test_a_stream(got):
    assert "\\boxed{" in got["streamed"]


def test_an_error(got):
    assert "there is no model 'nobody' here; this server has 'mini-target'" in got["raised"]
