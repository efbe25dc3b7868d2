"""SGLang in the client's own process: the same contract, run in the server's environment, as both need SGLang there."""

import subprocess

import launch
from cli import say


def test_the_contract_over_sglang_in_this_process():
    paths = [launch.ROOT, launch.ROOT / "tests", launch.ROOT / "tests" / "unit", launch.HERE]
    command = [str(launch.VENV / "bin" / "python"), "-m", "pytest", str(launch.HERE / "inprocess_contract.py")]
    command += ["--noconftest", "-p", "no:cacheprovider", "-W", "ignore", "--timeout", "300", "-x"]
    env = {**launch.environment(paths), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=launch.ROOT, env=env, capture_output=True, text=True, timeout=800, check=False)
    say(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
