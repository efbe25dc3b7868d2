"""`ets solve` on the shipped models, and every kind of bad input."""

import json
import re
import subprocess
import sys

import pytest

from search.cli.bench import figure_lines

STATS = {
    "policy_tokens", "computed_tokens", "unique_tokens", "prm_tokens", "kv_tokens_mean", "kv_tokens_peak",
    "kv_tokens_code", "kv_tokens_engine_peak", "num_nodes", "num_pruned", "num_failed", "depth", "seconds",
    "seconds_policy", "seconds_prm", "seconds_select",
}  # fmt: skip


def test_one_object_with_everything_in_it(ets, tmp_path):
    ran = ets("solve", "--mini", 0, "--json", "--tree", tmp_path / "tree.json")
    assert (ran.code, ran.err) == (0, "")
    result = ran.json
    assert result.keys() >= {"answer", "correct", "method", "width", "seed", "text", "trajectories", "stats"}
    assert result["stats"].keys() >= STATS
    assert (result["method"], result["width"], result["seed"]) == ("ets", 16, 0)
    assert result["answer"] in {one["answer"] for one in result["trajectories"]}
    assert result["text"] in {one["text"] for one in result["trajectories"]}
    stats = result["stats"]
    assert stats["computed_tokens"] <= 1.02 * stats["unique_tokens"]
    assert stats["prm_tokens"] <= 1.02 * stats["prm_unique_tokens"]
    assert stats["kv_tokens_engine_peak"] == stats["kv_tokens_ledger_peak"]
    tree = json.loads((tmp_path / "tree.json").read_text())
    assert len(tree["tree"]["nodes"]) == stats["num_nodes"] and tree["answer"] == result["answer"]


def test_the_same_seed_gives_the_same_search_in_every_process(ets, inside):
    def trajectories(command, seed):
        return command("solve", "--mini", 1, "--width", 4, "--seed", seed, "--json").json["trajectories"]

    first, second, other = trajectories(ets, 3), trajectories(inside, 3), trajectories(inside, 4)
    assert texts(first) == texts(second) != texts(other)
    for one, same in zip(first, second, strict=True):
        assert one["rewards"] == pytest.approx(same["rewards"], abs=1e-5)


def texts(trajectories):
    """What a seed decides to the letter; rewards agree to float32's last digits, as batches differ."""
    return [(one["node"], one["answer"], one["text"], one["num_tokens"], one["reason"]) for one in trajectories]


def test_a_person_reads_it_in_80_columns_without_colour(inside):
    ran = inside("solve", "--mini", 2, "--width", 8, env={"COLUMNS": "80"})
    assert ran.code == 0 and "\x1b" not in ran.out
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    for word in ("Problem", "Best solution", "Answer:", "Vote", "Tree", "Cost"):
        assert word in ran.out


def test_a_problem_from_standard_input_and_from_the_argument(inside):
    text = "Ben has 13 coins. He gives 4 away. He loses 3. He sells 4. How many coins are left in the end?"
    from_argument = inside("solve", text, "--width", 4, "--json").json
    from_stdin = inside("solve", "-", "--width", 4, "--json", stdin=text).json
    assert texts(from_argument["trajectories"]) == texts(from_stdin["trajectories"])
    assert from_argument["correct"] is None


def test_settings_from_flag_environment_and_yaml_in_this_order(inside, tmp_path):
    (tmp_path / "c.yaml").write_text("search: {width: 2, seed: 5, method: beam}\nsampling:\n")
    ran = inside(
        "solve", "--mini", 0, "--config", "c.yaml", "--seed", 7, "--json", env={"ETS_WIDTH": "3", "ETS_SEED": "6"}
    )
    assert (ran.json["width"], ran.json["seed"], ran.json["method"]) == (3, 7, "beam")


BAD = {
    "no problem": ([], "give one problem"),
    "two problems": (["x", "--mini", 0], "give one problem"),
    "empty problem": (["  "], "the problem is empty"),
    "negative index": (["--mini", -1], "--mini -1: must be 0 or more"),
    "unknown method": (["x", "--method", "rebas"], "unknown method 'rebas' (did you mean rebase?)"),
    "policy of no name": (["x", "--policy", " "], "model ' ': no name; accepted: a folder, a .gguf file, or a hub id"),
    "reward model that is to write": (
        ["x", "--policy", "mini:prm"],
        "'mini:prm' is a reward model (it has a prm_config",
    ),
    "reward model as a draft": (
        ["x", "--writer", "arbitrage", "--draft", "mini:prm"],
        "is a reward model (it has a prm",
    ),
    "unknown mini model": (["x", "--policy", "mini:giant"], "unknown mini model 'giant'; known: target, draft, prm"),
    "no such checkpoint": (["x", "--policy", "./nowhere"], "nowhere"),
    "hub model not cached": (["x", "--policy", "someone/not-cached"], "someone/not-cached"),
    "unknown engine": (["x", "--engine", "abacus"], "unknown engine 'abacus'"),
    "flag with a slip": (["x", "--metod", "ets"], "No such option '--metod'. Did you mean '--method'?"),
    "kind of scorer alone": (["x", "--prm", "confidence"], "known: the policy's own probabilities: confidence:mean-"),
    "width 0": (["x", "--width", 0], "width = 0: must be at least 1"),
    "width -1": (["x", "--width", -1], "width = -1"),
    "width as text": (["x", "--width", "many"], "--width"),
    "negative temperature": (["x", "--temperature", -1], "temperature = -1.0"),
    "unknown flag": (["x", "--widht", 3], "--widht"),
    "unknown option": (["x", "--set", "heat=1"], "method ets has no option 'heat'"),
    "broken pair": (["x", "--set", "heat"], "must be KEY=VALUE"),
    "vote without rewards": (["x", "--prm", "none", "--vote", "best"], "vote best needs a reward model"),
    "no configuration": (["x", "--config", "none.yaml"], "No such file"),
    "unwritable tree": (["--mini", 0, "--tree", "/proc/nowhere/tree.json"], "cannot write /proc/nowhere/tree.json"),
    "tree is a folder": (["--mini", 0, "--tree", "."], "is a directory"),
    "no such device": (["--mini", 0, "--device", "abacus"], "abacus"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_exit_2(inside, case):
    args, message = BAD[case]
    ran = inside("solve", *args)
    assert ran.code == 2, ran.err
    assert ran.out == "" and len(ran.err.splitlines()) == 1
    assert message in ran.err


def test_a_process_that_was_given_bad_input_ends_with_code_2_and_one_line(ets):
    ran = ets("solve", "x", "--widht", 3)
    assert (ran.code, ran.out) == (2, "") and len(ran.err.splitlines()) == 1 and "--widht" in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {width: [1", "c.yaml, line 1: not valid YAML"),
        ("search: {widht: 4}", "c.yaml: unknown setting 'search.widht'; known: method, frontier"),
        ("search: {width: 0}", "width = 0"),
        ("search: 4", "search = 4: must be a mapping of settings to values"),
        ("serch: {width: 4}", "unknown group 'serch'; known: models, servers, rewards, routing, search"),
        ("problems: {limit: 4}", "unknown group 'problems'"),
        ("models: {width: 4}", "width: now search.width"),
        (
            "width: 4\nmethod: beam\nprm: none",
            "width: now search.width; method: now search.method; prm: now rewards.prm",
        ),
    ],
)
def test_a_bad_configuration_file(inside, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    ran = inside("solve", "--mini", 0, "--config", "c.yaml")
    assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1


def test_a_prompt_longer_than_the_context(inside):
    ran = inside("solve", "-", stdin="He buys 3 more. " * (1 << 16))
    assert ran.code == 2 and "tokens, the model's context holds" in ran.err and len(ran.err.splitlines()) == 1


def test_standard_input_that_is_no_text():
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", "solve", "-"], input=b"\xff\xfe", capture_output=True, check=False
    )
    assert done.returncode == 2 and b"not UTF-8" in done.stderr


def test_help_version_and_no_arguments(ets, inside):
    helped = ets("--help")
    assert (helped.code, helped.err) == (0, "") and "solve" in helped.out
    assert inside("--version").out.startswith("ets")
    assert inside().code == 2
    assert inside("frobnicate").code == 2
    wrong = inside("sovle", "2 + 2?")
    assert wrong.code == 2 and wrong.err.startswith(
        "ets: unknown command 'sovle' (did you mean solve?); known: solve, "
    )


def test_a_figure_stands_beside_its_interval():
    figures = {"a": 0.51239, "a_lo": 0.25, "a_hi": 1.0, "b_lo_4": 1, "b_4": 3, "b_hi_4": 4, "x_lo": 7, "y": "none"}
    told = [" ".join(line.split()) for line in figure_lines(figures)]
    assert told == ["a 0.5124 (0.25 to 1)", "b_4 3 (1 to 4)", "x_lo 7", "y none"], "bounds beside what they are of"


def test_unknown_benches_and_options(inside):
    assert "unknown bench 'nothing'; known: " in inside("bench", "nothing").err
    assert inside("bench", "widths", "--repeats", 3).err == "ets: bench widths takes no --repeats\n"


def test_the_doctor_finds_a_healthy_machine_and_a_missing_model(inside):
    well = inside("doctor", "--json")
    assert well.code == 0 and well.json["ok"]
    (ran,) = (check["text"] for check in well.json["checks"] if check["name"] == "policy runs")
    one, many = (float(told) for told in re.findall(r"(\d+) \(\d+\)", ran.partition("tokens a second (rows): ")[2]))
    assert many > one > 0
    ill = inside("doctor", "--policy", "./nowhere")
    assert ill.code == 1 and "BAD  policy" in ill.out
