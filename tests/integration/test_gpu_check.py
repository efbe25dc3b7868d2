"""The GPU script runs whole without a GPU, in small, and prints one JSON object; a GPU that is missing is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(*flags):
    return subprocess.run(
        [ROOT / "tests" / "gpu" / "check.sh", *flags],
        env=os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_every_part_runs_on_the_cpu_in_small():
    done = check("--device", "cpu", "--small", "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["triton"] != "none" and found["kernel"]["float32"] < 1e-5
    exact = found["exactness"]
    assert exact["same_nodes"] == exact["nodes"] > 20 and exact["same_answers"] == exact["problems"] == 2
    counts = found["ops_per_turn"].values()
    assert max(counts) <= 1.1 * min(counts)
    assert found["throughput"].keys() == {"graphs", "no_graphs"}
    figures = found["throughput"]["graphs"]
    assert figures["work_ratio"] <= 1.0 and figures["rate_flat_4_1"] > 0 and figures["rate_tree_ets_1"] > 0
    for method in ("rebase", "ets"):
        assert found["searches"][method]["tokens"] > 100 and not found["searches"][method]["failed"]
    assert found["memory"]["peak_resident_mb"] > 100


def test_a_device_that_is_not_there_is_said():
    done = check()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no CUDA device can be used here; --device cpu --small runs the same in small\n"
