"""Step-labelled data in the layouts of Math-Shepherd, PRM800K and ProcessBench, and the figures made from them."""

import json
import random

import pytest

from prm.labels import LabelledSolution, load_labelled
from prm.metrics import figures, first_below
from search.errors import ConfigError, DataError
from search.support.statistics import auc, calibration_error

QUESTION = "What is 2 + 2 - 1?"
TAGGED = f"{QUESTION} Step 1: 2 + 2 = 4. ки\nStep 2: 4 - 1 = 3. ки\nStep 3: The answer is: 3 ки"
STEPS = ("2 + 2 = 4.", "4 - 1 = 3.", "The answer is: 3")


def shepherd(marks, **changes):
    label = TAGGED
    for mark in marks:
        label = label.replace("ки", mark, 1)
    return {"input": TAGGED, "label": label, "task": "GSM8K", **changes}


def load(tmp_path, *rows):
    file = tmp_path / "steps.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return load_labelled(file)


def test_math_shepherds_layout(tmp_path):
    found = load(tmp_path, shepherd("++-"), shepherd("", label=["+", "-", "-"]))
    assert found[0] == LabelledSolution(QUESTION, STEPS, (True, True, False))
    assert found[0].first_error == 2 and found[1].labels == (True, False, False)


def test_prm800ks_layout_gives_the_chosen_path_and_each_other_completion(tmp_path):
    def step(*completions, chosen=None, human=None):
        made = [{"text": text, "rating": rating, "flagged": None} for text, rating in completions]
        return {"completions": made, "chosen_completion": chosen, "human_completion": human}

    steps = [
        step(("a", 1), ("b", -1), chosen=0),
        step(("c", -1), human={"text": "d", "rating": None}),
        step(("e", 0), chosen=0),
        step(("f", -1)),
    ]
    row = {"question": {"problem": QUESTION}, "label": {"steps": steps, "finish_reason": "found_error"}}
    found = load(tmp_path, row)
    assert [(one.steps, one.labels) for one in found] == [
        (("a", "d", "e"), (True, True, True)),
        (("b",), (False,)),
        (("a", "c"), (None, False)),
        (("a", "d", "e", "f"), (None, None, None, False)),
    ]
    assert [one.first_error for one in found] == [-1, 0, None, None]
    assert not any(one.complete for one in found)


def test_process_benchs_layout(tmp_path):
    rows = [{"problem": QUESTION, "steps": list(STEPS), "label": label} for label in (-1, 1)]
    assert [one.labels for one in load(tmp_path, *rows)] == [(True,) * 3, (True, False, None)]
    assert [one.first_error for one in load(tmp_path, *rows)] == [-1, 1]


BAD = {
    "fewer labels": (shepherd("++-", label=["+", "-"]), "3 steps and 2 labels; there must be one label a step"),
    "a step less in the label": (
        shepherd("++-", label=f"{QUESTION} Step 1: 2 + 2 = 4. +\nStep 3: The answer is: 3 -"),
        "3 steps and 2 labels",
    ),
    "another text in the label": (
        shepherd("++-", label=shepherd("++-")["label"].replace("4 - 1 = 3", "4 - 1 = 2")),
        "'label' does not follow 'input' at step 2",
    ),
    "no mark": (shepherd("+x-"), "the label of step 2 is neither '+' nor '-'"),
    "no label": ({"input": TAGGED}, "needs a text or a list under 'label'"),
    "no tag": ({"input": QUESTION, "label": ""}, "must end with the tag 'ки'"),
    "text after the last tag": (shepherd("++-", input=TAGGED + " more"), "must end with the tag"),
    "no step 1": ({"input": "Two. ки", "label": "Two. +"}, "has no 'Step 1:'"),
    "no question": ({"input": "Step 1: a ки", "label": "Step 1: a +"}, "no question before 'Step 1:'"),
    "not JSON": ("{", "not valid JSON"),
    "another layout": ({"text": "x"}, "of no known layout; accepted: Math-Shepherd's"),
    "no such step": ({"problem": "x", "steps": ["a"], "label": 3}, "label 3 is no step: 1 steps, so -1 to 0"),
    "list of labels": ({"problem": "x", "steps": ["a", "b"], "label": [1]}, "2 steps and 1 labels"),
    "a choice beyond": (
        {"question": {"problem": "x"}, "label": {"steps": [{"completions": [], "chosen_completion": 0}]}},
        "step 1 chose completion 0 of 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_line_is_named(tmp_path, case):
    row, message = BAD[case]
    with pytest.raises(DataError) as error:
        load(tmp_path, shepherd("+++"), row)
    assert "line 2" in str(error.value) and message in str(error.value)


def test_no_file_and_an_empty_one(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_labelled(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no step-labelled solutions"):
        load(tmp_path)


def test_auc_is_the_share_of_pairs_in_order():
    rng = random.Random(0)
    rewards = [rng.randrange(6) / 5 for _ in range(60)]
    labels = [rng.random() < 0.6 for _ in rewards]
    right = [r for r, label in zip(rewards, labels, strict=True) if label]
    wrong = [r for r, label in zip(rewards, labels, strict=True) if not label]
    pairs = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    assert auc(rewards, labels) == pytest.approx(sum(pairs) / len(pairs))
    assert auc([0.1, 0.9], [True, True]) is None


def test_calibration_error_of_known_bins():
    assert calibration_error([0.95, 0.95, 0.05, 1.0], [True, True, False, True]) == pytest.approx(
        (abs(0.95 * 2 + 1 - 3) + 0.05) / 4
    )
    assert calibration_error([0.75] * 4, [True, True, True, False]) == 0.0


def test_first_error_f1_is_process_benchs():
    def one(labels, complete=True):
        return LabelledSolution("q", ("s",) * len(labels), labels, complete)

    solutions = [
        one((True, False, None)), one((False, None)), one((True, False)), one((True, True)), one((True, True)),
        one((None, False), False), one((True,), False),
    ]  # fmt: skip
    rewards = [(0.9, 0.1, 0.9), (0.9, 0.1), (0.2, 0.1), (0.9, 0.8), (0.9, 0.4), (0.9, 0.1), (0.1,)]
    found = figures(solutions, rewards)
    assert found["error_accuracy"] == pytest.approx(1 / 3) and found["correct_accuracy"] == 0.5
    assert found["first_error_f1"] == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert (found["num_steps"], found["num_error_solutions"], found["num_correct_solutions"]) == (11, 3, 2)
    assert figures(solutions, rewards, threshold=0.0)["first_error_f1"] == 0.0
    assert figures(solutions[3:5], rewards[3:5])["first_error_f1"] is None
    assert first_below((0.5, 0.4), 0.5) == 1
