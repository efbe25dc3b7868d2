import io

import pytest

from search.errors import ConfigError
from search.mini.assets import checkpoint_path
from search.mini.evaluate import auc, up_to_first_error
from search.mini.fit import TrainEvent
from search.mini.gate import judge
from search.mini.progress import ProgressReport


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
    assert [(one.line.figure, one.passed) for one in results] == [("target_pass1", False), ("prm_auc", True)]


def test_unknown_checkpoints_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown mini model"):
        checkpoint_path("router9")


def test_progress_off_a_terminal_is_plain_lines() -> None:
    stream = io.StringIO()
    with ProgressReport(stream, every=2) as report:
        for step in range(1, 5):
            report(TrainEvent("draft", step, 4, 1.5, 100, 2.0, {"pass1": 0.25} if step == 3 else {}))
    lines = stream.getvalue().splitlines()
    assert lines == [
        "draft 2/4 loss 1.5000 2 s",
        "draft 3/4 loss 1.5000 2 s pass1 0.250",
        "draft 4/4 loss 1.5000 2 s",
    ]


def test_progress_on_a_terminal_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with ProgressReport(stream) as report:
        report(TrainEvent("draft", 1, 4, 1.5, 100, 2.0, {}))
    assert "draft 1/4" in stream.getvalue()
