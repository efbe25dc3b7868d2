"""`ets bench engine`: both sides do the same schedule, and every case's ratio is there."""

import pytest
from local_models import byte_tokenizer, network

from search.errors import ConfigError
from search.studies import model_engine
from search.studies.engine import run, run_engine_bench


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    network("llama-gqa").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_measured_flat_and_in_trees(checkpoint, dtype, monkeypatch):
    monkeypatch.setattr(model_engine, "_STEP_TOKENS", (2, 4))
    monkeypatch.setattr(model_engine, "_NUM_LEVELS", 2)
    monkeypatch.setattr(model_engine, "_PROBLEMS", (2,))
    report = run(repeats=1, policy=checkpoint, dtype=dtype, rows=(3,))
    figures = report["figures"]
    cases = ["flat_3_2", "tree_rebase_2", "tree_ets_2"]
    assert set(figures) == {"work_ratio"} | {
        name for case in cases for name in (case, f"{case}_min", f"{case}_max", f"rate_{case}")
    }
    assert report["dtype"] == dtype and figures["work_ratio"] <= 1.0, "nothing is computed twice"
    assert all(figures[f"{case}_min"] <= figures[case] <= figures[f"{case}_max"] for case in cases)


def test_the_mini_target_is_measured_by_default():
    figures = run_engine_bench(repeats=1, num_leaves=4, num_levels=2, num_problems=2, width=4)["figures"]
    assert figures["work_ratio"] <= 1.0 and figures["speedup_many_problems"] > 0


def test_a_model_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        run(policy=str(tmp_path / "nowhere"))
