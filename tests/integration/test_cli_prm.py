"""`ets prm train` and `ets prm eval` through the real command line, and every kind of bad reward model."""

import json
import random

import pytest
from prm_checkpoints import classifier, headed_model, label_model

from search.mini.checker import check_steps, split_steps
from search.mini.problems import problems
from search.mini.solutions import SlipRates, write_solution


def labelled_lines(split, count):
    """Solutions of the mini family with many slips, judged by its checker, in Math-Shepherd's layout."""
    rates = SlipRates(carry=0.5, borrow=0.5, table=0.5, noise=0.25)
    for number, problem in enumerate(problems(split, count)):
        steps = split_steps(write_solution(problem, random.Random(number), rates).text)
        labels = [step.fault is None for step in check_steps(problem, steps).steps]
        pairs = list(zip(steps, labels, strict=True))
        text = [f"Step {at}: {step.strip()} " for at, (step, _) in enumerate(pairs, 1)]
        row = {
            "input": f"{problem.text} " + "\n".join(one + "ки" for one in text),
            "label": f"{problem.text} " + "\n".join(
                one + "-+"[label] for one, (_, label) in zip(text, pairs, strict=True)
            ),
            "task": "mini",
        }  # fmt: skip
        yield json.dumps(row) + "\n"


@pytest.mark.nightly
def test_a_reward_model_is_trained_measured_and_used(ets, inside, tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(labelled_lines("train", 500)))
    (tmp_path / "dev.jsonl").write_text("".join(labelled_lines("dev", 60)))
    before = inside("prm", "eval", "mini:draft", "dev.jsonl", "--codec", "label-tokens", "--json")
    assert before.code == 0, before.err
    ran = ets(
        "prm", "train", "mini:draft", "train.jsonl", "--out", "trained", "--dev", "dev.jsonl", "--learning-rate", 3e-3,
        "--batch-size", 16, "--epochs", 3, "--reduce", "prod", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["loss_last"] < ran.json["loss_first"] and ran.json["num_solutions"] == 500
    after = inside("prm", "eval", "./trained", "dev.jsonl", "--json", "--rewards", "rewards.jsonl")
    assert after.code == 0, after.err
    assert after.json["codec"] == "label-tokens" and after.json["reason"] == "prm_config.json says so"
    figures = after.json["figures"]
    assert figures["step_auc"] == pytest.approx(ran.json["figures"]["step_auc"], abs=1e-4)
    assert figures["step_auc"] > before.json["figures"]["step_auc"] + 0.08
    assert 0 <= figures["calibration_error"] < 0.3 and figures["first_error_f1"] is not None
    assert len((tmp_path / "rewards.jsonl").read_text().splitlines()) == 60
    again = inside("prm", "train", "mini:draft", "train.jsonl", "--out", "trained")
    assert again.code == 2 and "trained holds a training already" in again.err
    shown = inside("prm", "eval", "./trained", "dev.jsonl", "--limit", 3)
    assert shown.code == 0 and "first error f1" in shown.out
    solved = inside("solve", "--mini", 0, "--width", 4, "--prm", "./trained", "--json")
    assert solved.code == 0, solved.err


def test_the_shipped_reward_model_is_read_as_in_search(inside, tmp_path):
    (tmp_path / "dev.jsonl").write_text("".join(labelled_lines("dev", 60)))
    ran = inside("prm", "eval", "mini:prm", "dev.jsonl", "--json")
    assert ran.code == 0 and ran.json["figures"]["step_auc"] > 0.85


def test_the_doctor_says_which_family_it_took_and_why(inside, tmp_path):
    (tmp_path / "made").mkdir()
    headed_model(tmp_path / "made", "qwen-math-prm")
    ran = inside("doctor", "--prm", "./made")
    assert ran.code == 0, ran.out + ran.err
    (line,) = [line for line in ran.out.splitlines() if "prm codec" in line]
    assert "qwen-math-prm: a Qwen2ForProcessRewardModel with a head of 2 outputs" in line


def not_a_prm(folder):
    label_model(folder, "rlhflow")


def truncated(folder):
    headed_model(folder, "skywork-o1")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def headless(folder):
    classifier(folder, "llama")
    other = folder / "other"
    other.mkdir()
    label_model(other, "rlhflow")
    (other / "model.safetensors").replace(folder / "model.safetensors")


def split_labels(folder):
    label_model(folder, "rlhflow")
    (folder / "prm_config.json").write_text('{"codec": "label-tokens", "good_token": "good", "bad_token": "bad"}')


def remote(folder):
    headed_model(folder, "skywork-o1")
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('remote code ran')")


BAD_MODELS = {
    "no reward model": (not_a_prm, [], "no reward model that can be recognised"),
    "truncated": (truncated, [], "model.safetensors is damaged or cut short"),
    "no head": (headless, [], "without its head: no score.* or v_head.* tensor"),
    "split labels": (split_labels, [], "label token 'good' is 4 tokens for this tokenizer; it must be exactly one"),
    "codec without its head": (not_a_prm, ["--codec", "skywork-o1"], "reads a reward head and './made' has none"),
    "unknown codec": (not_a_prm, ["--codec", "oracle"], "unknown reward model codec 'oracle'"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_reward_model_is_one_clear_line_and_exit_2(inside, tmp_path, case):
    build, options, message = BAD_MODELS[case]
    (tmp_path / "made").mkdir()
    build(tmp_path / "made")
    (tmp_path / "dev.jsonl").write_text("".join(labelled_lines("dev", 1)))
    as_search = ["--prm-codec" if option == "--codec" else option for option in options]
    for ran in (
        inside("prm", "eval", "./made", "dev.jsonl", *options),
        inside("solve", "--mini", 0, "--prm", "./made", *as_search),
    ):
        assert ran.code == 2 and ran.out == "", ran.err
        assert message in ran.err and len(ran.err.splitlines()) == 1, ran.err


def test_no_remote_code_runs_unasked(inside, tmp_path):
    (tmp_path / "made").mkdir()
    remote(tmp_path / "made")
    (tmp_path / "dev.jsonl").write_text("".join(labelled_lines("dev", 1)))
    ran = inside("prm", "eval", "./made", "dev.jsonl", "--json")
    assert ran.code == 0 and ran.json["codec"] == "skywork-o1", ran.err


def bad_line(**changes):
    row = json.loads(next(labelled_lines("dev", 1)))
    return json.dumps({**row, **changes}) + "\n"


BAD_DATA = {
    "wrong counts": (bad_line(label=["+"]), "line 2:", "steps and 1 labels; there must be one label a step"),
    "not JSON": ("{\n", "line 2:", "not valid JSON"),
    "another layout": ('{"text": "x"}\n', "line 2:", "of no known layout"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_step_labels_are_one_clear_line_and_exit_2(inside, tmp_path, case):
    line, *messages = BAD_DATA[case]
    (tmp_path / "bad.jsonl").write_text(next(labelled_lines("dev", 1)) + line)
    for ran in (
        inside("prm", "train", "mini:draft", "bad.jsonl", "--out", "trained"),
        inside("prm", "eval", "mini:prm", "bad.jsonl"),
    ):
        assert ran.code == 2 and ran.out == "" and len(ran.err.splitlines()) == 1, ran.err
        assert all(message in ran.err for message in ("bad.jsonl", *messages)), ran.err
    assert not (tmp_path / "trained").exists()


BAD_CALLS = {
    "no data": (["prm", "train", "mini:draft", "--out", "x"], "Missing argument"),
    "no such data": (["prm", "eval", "mini:prm", "none.jsonl"], "no such file"),
    "no such base": (["prm", "train", "./none", "dev.jsonl", "--out", "x"], "./none"),
    "split label": (["prm", "train", "mini:draft", "dev.jsonl", "--out", "x", "--good-token", "good"], "exactly one"),
    "split tag": (["prm", "train", "mini:draft", "dev.jsonl", "--out", "x", "--codec", "math-shepherd"], "step tag"),
    "head codec": (["prm", "train", "mini:draft", "dev.jsonl", "--out", "x", "--codec", "skywork-o1"], "--codec"),
    "no room": (["prm", "train", "mini:draft", "dev.jsonl", "--out", "x", "--max-tokens", 4], "--max-tokens"),
    "unwritable": (["prm", "train", "mini:draft", "dev.jsonl", "--out", "/proc/x"], "/proc/x"),
    "threshold": (["prm", "eval", "mini:prm", "dev.jsonl", "--threshold", 2], "--threshold"),
    "device": (["prm", "train", "mini:draft", "dev.jsonl", "--out", "x", "--device", "abacus"], "abacus"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_is_one_clear_line_and_exit_2(inside, tmp_path, case):
    args, message = BAD_CALLS[case]
    (tmp_path / "dev.jsonl").write_text("".join(labelled_lines("dev", 1)))
    ran = inside(*args)
    assert ran.code == 2 and ran.out == "" and len(ran.err.splitlines()) == 1, ran.err
    assert message in ran.err
