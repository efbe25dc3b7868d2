"""`ets probe` on the shipped models: from nothing to a probe that a search uses, and every wrong input."""

import json

import pytest
from markov import story_model
from story_checkpoints import build_writer

SAMPLED = ("eval", "--policy", "mini:draft", "--prm", "none", "--method", "self-consistency", "--width", "8",
           "--until", "spent", "--data", "mini:train", "--limit", "40", "--out", "run")  # fmt: skip
COLLECTED = ("probe", "collect", "--policy", "mini:draft", "--run", "run", "--out", "features")
TRAINED = ("probe", "train", "features", "--out", "probe", "--learning-rate", "0.003")

OTHER = ("probe", "collect", "--out", "other")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run of the mini family's draft, its features, and a probe trained on them."""
    from search.cli.main import main

    folder = tmp_path_factory.mktemp("probe")
    with pytest.MonkeyPatch.context() as process:
        process.chdir(folder)
        for args in (SAMPLED, COLLECTED, TRAINED):
            with pytest.raises(SystemExit) as ended:
                main(list(args))
            assert ended.value.code == 0, args
    return folder


def test_from_nothing_to_a_search_by_a_probe(made, inside):
    record = json.loads((made / "probe" / "probe.json").read_text())["record"]
    assert record["num_problems"] == 40 and record["num_solutions"] > 250
    assert set(record["concordance_by_layer"]) == {"1", "2"}

    measured = inside("probe", "eval", made / "probe", made / "features", "--json").json["figures"]
    assert measured["num_held_out_problems"] == 40, "its own problems are told by networks that did not see them"
    assert 0 < measured["share_right"] < 1
    assert measured["auc_steps_within"] == pytest.approx(max(record["concordance_by_layer"].values()), abs=0.02)
    assert measured["calibration_error"] < 0.1

    name = f"probe:{made / 'probe'}"
    search = (
        "solve",
        "--policy",
        "mini:draft",
        "--mini",
        3,
        "--prm",
        name,
        "--method",
        "rebase",
        "--width",
        8,
        "--json",
    )
    ran = inside(*search)
    assert ran.code == 0, ran.err
    stats = ran.json["stats"]
    assert stats["prm_tokens"] == stats["kv_tokens_prm_peak"] == 0 and set(ran.json["models"]) == {"policy"}
    assert stats["computed_tokens"] <= stats["unique_tokens"]
    rewards = [step["reward"] for one in ran.json["trajectories"] for step in one["steps"]]
    assert all(0 < reward < 1 for reward in rewards) and len(set(rewards)) > 3
    ahead = inside(*search, "--speculate", 1).json
    assert [one["text"] for one in ahead["trajectories"]] == [one["text"] for one in ran.json["trajectories"]]
    # The last digits of a state move with what else is in its batch.
    told = [step["reward"] for one in ahead["trajectories"] for step in one["steps"]]
    assert told == pytest.approx(rewards, abs=1e-4)


def test_a_run_of_equal_token_ids_is_read_by_another_model_and_that_is_said(made, inside):
    ran = inside("probe", "collect", "--out", "read", "--run", made / "run", "--limit", 2, "--json")
    assert ran.code == 0 and ran.json["figures"]["num_problems"] == 2
    assert "run was written by mini:draft; its steps are read by mini:target" in ran.err


def test_what_is_wrong_is_one_line(made, inside, tmp_path):
    other = tmp_path / "model"
    other.mkdir()
    build_writer(other, story_model(), 0)
    probe, features = made / "probe", made / "features"
    again = (*COLLECTED[:4], "--run", made / "run")
    for args, said in (
        (("solve", "1 + 1?", "--prm", f"probe:{probe}"), "was trained for mini:draft, which has"),
        (("solve", "1 + 1?", "--prm", "probe:nowhere"), "no probe.json there; ets probe train makes a probe"),
        (("probe", "train", features, "--out", probe), "holds a probe already"),
        (("probe", "train", "nowhere", "--out", "other"), "holds no features"),
        (("probe", "train", features, "--out", "other", "--layers", 99), "layer 99 was not collected; there are"),
        (("probe", "train", features, "--out", "other", "--layers", "a"), "must be numbers with commas between them"),
        (("probe", "eval", "nowhere", features), "no probe.json there"),
        (("probe", "eval", probe, features, "--reduce", "sum"), "reduce must be one of last, min, mean, prod"),
        (("probe", "collect", "--out", "other"), "give recorded solutions (--solutions FILE) or kept runs (--run DIR)"),
        ((*OTHER, "--run", made / "run", "--policy", other), "run was written by mini:draft, whose token ids are not"),
        ((*again, "--out", features, "--layers", 1), "holds features of other settings (sources, layers differ)"),
        ((*again, "--out", "other", "--layers", 99), "layer 99: mini:draft has"),
    ):
        ran = inside(*args)
        assert ran.code == 2 and said in ran.err, (args, ran)
        assert "Traceback" not in ran.err and ran.out == ""


def test_recorded_solutions_are_cut_where_their_engine_cut_them(made, inside, tmp_path):
    records = [json.loads(file.read_text()) for file in sorted((made / "run" / "problems").glob("*.json"))[:3]]
    rows, num_steps = [], 0
    for record in records:
        nodes = record["tree"]["nodes"]
        for node in nodes:
            if node["status"] == "finished":
                text, at = "", node
                while at["parent"] is not None:
                    text, at, num_steps = at["text"] + text, nodes[at["parent"]], num_steps + 1
                rows.append({"problem": record["problem"], "text": text, "answer": None, "correct": False})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collect = ("probe", "collect", "--policy", "mini:draft")
    ran = inside(*collect, "--solutions", "rows.jsonl", "--out", "rows", "--json")
    assert ran.code == 0, ran.err
    figures = ran.json["figures"]
    assert (figures["num_solutions"], figures["num_problems"]) == (len(rows), 3)
    # A step of the end token alone has no text to be told by.
    assert num_steps - len(rows) <= figures["num_steps"] <= num_steps
    (tmp_path / "wrong.jsonl").write_text('{"problem": "x", "text": "y"}\n')
    ran = inside(*collect, "--solutions", "wrong.jsonl", "--out", "none")
    assert ran.code == 2 and "line 1: without a reference answer (--data) `correct` must be true or false" in ran.err
    ran = inside(*collect, "--solutions", "rows.jsonl", "--data", "mini:train", "--out", "none")
    assert ran.code == 2 and "is not in mini:train" in ran.err
