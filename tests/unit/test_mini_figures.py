import pytest

from search.errors import ConfigError
from search.mini.assets import checkpoint_path
from search.mini.evaluate import auc, up_to_first_error
from search.mini.gate import judge


def test_auc_by_hand() -> None:
    assert auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert auc([0.5, 0.5], [True, False]) == 0.5
    assert auc([0.5], [True]) == 0.5


def test_solutions_are_cut_after_their_first_error() -> None:
    scores, labels = up_to_first_error([[0.9, 0.2, 0.7], [0.8]], [[True, False, True], [True]])
    assert scores == [0.9, 0.2, 0.8]
    assert labels == [True, False, True]


def test_the_gate_judges_what_was_measured() -> None:
    results = judge({"target_pass1": 0.7, "prm_auc": 0.95, "unknown": 1.0})
    assert [(one.figure, one.passed) for one in results] == [("target_pass1", False), ("prm_auc", True)]


def test_unknown_checkpoints_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown mini model"):
        checkpoint_path("router9")
