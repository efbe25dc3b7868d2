"""`ets plan`: shapes read from files, work measured and put between widths, and what an engine then really held."""

import asyncio
import json
import math
import re
from dataclasses import replace
from statistics import fmean, stdev

import gguf_files
import pytest
from fake_engine import FakeEngine
from local_models import byte_tokenizer, network
from markov import story_model
from ran import Ran

from search import Search
from search.config import SearchSettings
from search.engines.local import LocalEngine
from search.errors import ConfigError
from search.loop.outcome import SearchOutcome
from search.mini.problems import problem
from search.planning.model_shape import ModelShape, read_shape
from search.planning.plan import DEVICES, GIB, Device, Plan, read_device
from search.planning.work_ratios import Lengths, WorkRatios, at_width, carried, measured
from search.results.record import read_record
from search.setup.registry import model_path
from search.support.statistics import half_width
from search.types import Problem

PROBLEMS = [Problem(str(number), f"What is {number} + 2?") for number in range(24)]
LIMITS = {"max_tokens": 48, "max_step_tokens": 8, "prompt": "plain", "system_prompt": "", "grader": "plain"}
RATIOS = WorkRatios(kv=0.5, prm_kv=0.25, written=0.75, read=0.5, token_steps=2.0, steps=5.0)


def saved(folder, kind):
    model = network(kind)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model


def outcomes(engine, method, width, problems):
    """Searches by an engine that is loaded."""
    search = Search(
        settings=SearchSettings(policy="own", prm="none", method=method, width=width, until="spent", **LIMITS)
    )
    search.use(engine, None)

    async def all_of_them():
        return await asyncio.gather(*map(search.asolve, problems))

    return [SearchOutcome(one.problem, one.tree, one.stats) for one in asyncio.run(all_of_them())]


@pytest.mark.parametrize("kind", ["llama-gqa", "mistral", "neox"])
def test_kv_tokens_and_bytes_are_what_the_engine_then_holds(tmp_path, kind):
    """Planned from 12 problems at width 8, held by 12 others at 16; bytes as the engine's own forward shows them."""
    saved(tmp_path, kind)
    shape = read_shape(str(tmp_path))
    engine = LocalEngine.load(str(tmp_path), dtype="float32")
    seen = engine._model.forward.shape
    for method in ("best-of-n", "rebase", "beam", "ets"):
        ratios, lengths, num_problems, spread = WorkRatios.measure(outcomes(engine, method, 8, PROBLEMS[:12]), 8)
        assert num_problems == 12 and 0 < spread < 0.2
        plan = Plan(shape, None, "float32", method, 16, lengths, carried(ratios, method, 8, 16))
        held = [one.stats.kv_tokens_engine_peak for one in outcomes(engine, method, 16, PROBLEMS[12:])]
        tokens = sum(held) / len(held)
        num_bytes = tokens * 2 * seen.num_layers * seen.num_kv_heads * seen.head_dim * 4
        assert plan.kv_tokens == pytest.approx(tokens, rel=0.2), method
        assert plan.kv_bytes == pytest.approx(num_bytes, rel=0.2), method
    asyncio.run(engine.aclose())


@pytest.mark.parametrize("method", ["best-of-n", "rebase", "ets"])
def test_the_mini_familys_ratios_hold_for_its_other_problems(method):
    width, texts = 8, [problem("test", index).text for index in range(100, 106)]
    with Search(method=method, width=width, until="spent", seed=1) as search:
        results = [search.solve(text) for text in texts]
        bits = search.driver.writer.engines["policy"]._model.forward.shape
    found = WorkRatios.measure([SearchOutcome(one.problem, one.tree, one.stats) for one in results], width)
    plan = Plan(
        read_shape("mini:target"), read_shape("mini:prm"), "float32", method, width, found.lengths,
        at_width(measured(method), width),
    )  # fmt: skip
    held = [one.stats.kv_tokens_engine_peak for one in results]
    assert plan.kv_tokens == pytest.approx(sum(held) / len(held), rel=0.2)
    assert plan.policy.kv_bytes("float32") == 2 * bits.num_layers * bits.num_kv_heads * bits.head_dim * 4
    written = [one.stats.policy_tokens for one in results]
    assert plan.written_tokens == pytest.approx(sum(written) / len(written), rel=0.2)


@pytest.mark.parametrize("kind", ["llama", "llama-gqa", "qwen2", "mistral", "neox", "opt"])
def test_a_shape_is_that_of_the_model_itself(tmp_path, kind):
    model = saved(tmp_path, kind)
    shape = read_shape(str(tmp_path))
    kv_heads = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
    assert (shape.num_layers, shape.num_kv_heads, shape.head_dim) == (2, kv_heads, 8)
    assert shape.num_parameters == model.num_parameters()
    assert shape.weight_bytes("bfloat16") == 2 * model.num_parameters()
    assert shape.kv_bytes("float32") == 2 * 2 * kv_heads * 8 * 4


def test_a_shape_of_a_gguf_file_is_that_of_its_folder(tmp_path):
    model = gguf_files.network("qwen2")
    file = gguf_files.write_gguf(tmp_path / "model.gguf", model)
    of_file, of_folder = read_shape(str(file)), read_shape(str(gguf_files.write_folder(tmp_path / "folder", model)))
    assert (of_file.num_layers, of_file.num_kv_heads, of_file.head_dim) == (2, 2, 8)
    assert of_file.num_parameters == of_folder.num_parameters


def test_a_shape_that_files_do_not_tell_is_named(tmp_path):
    saved(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    for change, said in (
        ({"num_hidden_layers": None}, "does not say its number of layers"),
        ({"kv_lora_rank": 512}, "keeps compressed keys and values"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ConfigError, match=said):
            read_shape(str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        read_shape(str(tmp_path / "none"))


def test_ratios_lie_between_those_of_the_widths_that_were_measured():
    by_width = {4: WorkRatios(1, 0, 1, 0, 2, 5), 16: WorkRatios(0.5, 0, 1, 0, 4, 3)}
    assert at_width(by_width, 8) == WorkRatios(0.75, 0, 1, 0, 3, 4)
    assert at_width(by_width, 2) == by_width[4] and at_width(by_width, 99) == by_width[16] == at_width(by_width, 16)
    with pytest.raises(ConfigError, match="method mine: its work was not measured; measured: best-of-n"):
        measured("mine")


def test_solutions_of_fewer_steps_hold_more_of_themselves():
    """SmolLM2's solutions of two steps held 0.72 of all tokens under REBASE where mini:target's of five hold 0.56."""
    assert RATIOS.at_steps(5.0) == RATIOS
    assert RATIOS.at_steps(2.0).kv == pytest.approx((1 + 0.375) / 2), (
        "0.375 of each level is kept, and the newest whole"
    )
    assert RATIOS.at_steps(1.0).kv == 1.0
    alone = WorkRatios(1.0, 0, 1, 0, 1, 1.0)
    assert alone.at_steps(3.0).kv == 1.0 and RATIOS.at_steps(2.0).at_steps(5.0).kv == pytest.approx(RATIOS.kv)
    assert replace(RATIOS, prm_kv=0.0).at_steps(2.0).prm_kv == 0.0, "no reward model"


def test_solutions_of_unequal_lengths_are_not_all_held_at_once():
    """Qwen's best-of-n and REBASE were planned 22% over what they held: the mini family's lengths differ less."""
    even, uneven = (measured("best-of-n", scored=False)[16].at_spread(spread, 16) for spread in (0.0, 0.5))
    assert uneven.kv < 0.65 < 0.95 < even.kv < 1.1 and even.written == uneven.written
    alone = RATIOS.at_spread(2.0, 1)
    assert alone == RATIOS, "one lineage is held to its end, however long"
    pruned, kept = (replace(RATIOS, kv=kv).at_spread(0.5, 16).kv / kv for kv in (0.3, 0.9))
    assert kept < pruned < 1, "few lineages differ less than many"
    assert replace(RATIOS, prm_kv=0.0).at_spread(0.5, 16).prm_kv == 0.0, "no reward model"


def test_a_flat_search_holds_what_the_spread_of_its_lengths_tells():
    """Chains of the fake engine, whose steps are few or many: from the mini family's work, their lengths known."""
    width, engine = 8, FakeEngine(story_model(answer=0.3))
    search = Search(settings=SearchSettings(policy="own", prm="none", method="best-of-n", width=width, until="spent"))
    search.use(engine, None)

    async def every():
        return [await search.asolve(Problem(str(number), "Add 3."), seed=number) for number in range(40)]

    results = asyncio.run(every())
    found = WorkRatios.measure([SearchOutcome(one.problem, one.tree, one.stats) for one in results], width)
    spreads = []
    for one in results:
        lengths = [trajectory.num_tokens for trajectory in one.trajectories]
        spreads.append(stdev(lengths) / fmean(lengths))
    known = at_width(measured("best-of-n", scored=False), width).at_steps(found.ratios.steps)
    planned, held = known.at_spread(fmean(spreads), width).kv, found.ratios.kv
    assert planned == pytest.approx(held, rel=0.2) and known.kv > 1.5 * held, "as it was planned before"


@pytest.mark.parametrize("scored", [True, False])
def test_ratios_are_carried_to_another_width_as_those_of_the_mini_family_change(scored):
    known = measured("beam", scored)
    found = carried(replace(known[4], prm_kv=0, token_steps=2), "beam", 4, 16, scored)
    assert found.kv == pytest.approx(known[16].at_steps(known[4].steps).kv) and found.prm_kv == 0
    assert found.token_steps == pytest.approx(2 * known[16].token_steps / known[4].token_steps)
    assert carried(RATIOS, "beam", 8, 8, scored) == RATIOS == carried(RATIOS, "mine", 4, 8, scored)


def test_a_share_that_is_carried_stays_one():
    """SmolLM2 under REBASE held 0.87 of all tokens at width 4 as at 8, and 1.02 of them were planned."""
    for share in (0.001, 0.5, 0.87, 0.999):
        for scored in (True, False):
            assert 0 < carried(WorkRatios(share, share, 1, 1, 2, 2), "rebase", 4, 64, scored).kv < 1
    assert carried(WorkRatios(1.01, 0, 1, 0, 2, 2), "rebase", 4, 64).kv == 1.01, "all that there is, and more"


def test_a_plan_adds_up():
    policy, prm = ModelShape("p", 1_000, 2, 3, 4), ModelShape("r", 100, 1, 1, 8)
    plan = Plan(policy, prm, "bfloat16", "ets", 10, Lengths(50, 100), RATIOS)
    assert (plan.kv_tokens, plan.prm_kv_tokens, plan.written_tokens, plan.read_tokens) == (550, 300, 750, 550)
    assert plan.weight_bytes == 2_200 and plan.kv_bytes == 550 * 2 * 24 * 2 + 300 * 2 * 8 * 2
    assert plan.fitting is None and plan.seconds is None
    assert replace(plan, prm=policy).weight_bytes == 2_000, "its own critic"
    room = (plan.weight_bytes + 3.5 * plan.kv_bytes) / 0.9 / GIB
    tight = Plan(policy, prm, "bfloat16", "ets", 10, Lengths(50, 100), RATIOS, Device("d", room, 1, 1), 12, 8)
    assert tight.fitting == 3
    # 200 token steps for four batches of three: weights and half of three caches are read, in 1e9 bytes a second.
    step = (2_000 + 3 * 550 * 96 / 2) / 1e9 / 0.6
    judged = 2 * 100 * 550 * 3 / (1e12 * 0.6)
    assert tight.seconds == pytest.approx(4 * (200 * step + judged))
    assert "3 problems side by side" in tight.table("here").text()
    assert plan.kv_tokens_interval is None and "550 (" not in plan.table("here").text()
    unsure = replace(plan, spread=0.2)
    assert unsure.kv_tokens_interval == (440, 660) and "550 (440 to 660)" in unsure.table("here").text()
    assert replace(plan, spread=3.0).kv_tokens_interval == (0, 2200)


def test_devices_by_name_and_by_memory():
    assert read_device("H100").bandwidth == 3350 and read_device("80GB").bandwidth == 2039
    assert read_device("13") == Device("13", 13.0)
    for wrong in ("big", "0", "-1GB", "nan", "1e300"):
        with pytest.raises(ConfigError, match=r"accepted: its memory, e\.g\. 80GB, or one of t4"):
            read_device(wrong)


def test_a_speed_that_is_taken_from_a_card_names_it(inside):
    words = ("plan", "--policy", "mini:target", "--problems", 60)
    for gpu in DEVICES:
        assert gpu in inside("plan", "--help").out
    assert "if it is as fast as l4: about " in inside(*words, "--gpu", "24GB").out
    assert "as fast as" not in inside(*words, "--gpu", "l4").out
    speed = ("--bandwidth", 60, "--tflops", 0.5)
    assert "as fast as" not in inside(*words, "--gpu", "24GB", *speed).out
    shown = inside(*words, *speed).out
    assert "time of 60 problems" in shown and "60 GB/s and 0.5 TFLOPS" in shown and "fit into" not in shown
    alone = inside(*words).out
    assert "time of" not in alone and "a run of your own tells it" in alone
    assert "its default, float32, is twice" in alone and "twice" not in inside(*words, "--dtype", "float32").out


def test_the_command_plans_from_shapes_and_from_a_run(inside, tmp_path):
    shown = inside(
        "plan", "--policy", "mini:target", "--prm", "mini:prm", "--width", 16, "--gpu", "80GB", "--problems", 1000
    )
    assert shown.code == 0 and "KV tokens of a problem, at its peak" in shown.out and "about" in shown.out
    run = tmp_path / "run"
    for prm, said in (
        ("none", "scored by confidence"),
        ("confidence:tail", "scored by confidence"),
        ("probe:anywhere", "scored by its reward model"),
    ):
        alone = json.loads(inside("plan", "--policy", "mini:target", "--prm", prm, "--json").out)
        assert alone["prm"] is None and said in alone["source"], prm
        assert alone["source"].endswith("; lengths spread by 0.3 of their mean")
    assert inside("eval", "--limit", 2, "--method", "rebase", "--width", 4, "--out", run).code == 0
    shown = inside("plan", "--policy", "mini:target", "--width", 4, "--from", run, "--json")
    found = shown.json
    assert found["method"] == "rebase" and found["source"] == f"{run}, rebase at width 4, 2 problems"
    assert shown.err.startswith(f"ets: {run}: 2 problems tell KV tokens within ") and "--limit 16" in shown.err
    outcomes = [read_record(file).outcome() for file in sorted((run / "problems").glob("*.json"))]
    held = [one.stats.kv_tokens_engine_peak for one in outcomes]
    assert found["kv_tokens"] == pytest.approx(sum(held) / len(held), abs=1)
    (session,) = json.loads((run / "run.json").read_text())["sessions"]
    assert found["tokens_per_second"] == pytest.approx(session["policy_tokens"] / session["seconds"])
    assert found["seconds_as_run"] == pytest.approx(found["written_tokens"] / found["tokens_per_second"])
    told = inside("plan", "--policy", "mini:target", "--width", 4, "--from", run, "--problems", 60).out
    assert re.search(r"time of 60 problems, where it ran +about .+ at your run's [\d.e+]+ tokens/s", told)
    for args, said in (
        (["--policy", "none/here/at/all"], "no such folder"),
        (["--policy", "mini:target", "--gpu", "big"], "gpu 'big': accepted"),
        (["--policy", "mini:target", "--tflops", "3"], "go together, or with a --gpu"),
        (["--policy", "mini:target", "--solution-spread", "nan"], "'nan' is not a finite number"),
        (["--policy", "mini:target", "--solution-tokens", "inf"], "inf is not in the range"),
        (["--policy", "mini:target", "--solution-spread", "1e300"], "1e+300 is not in the range"),
        (["--policy", "mini:target", "--from", tmp_path], "holds no run"),
        (["--policy", "mini:target", "--from", run, "--solution-spread", 0.3], "has that of its own solutions in it"),
    ):
        wrong: Ran = inside("plan", *args)
        assert (wrong.code, wrong.out) == (2, "") and said in wrong.err and len(wrong.err.splitlines()) == 1


def test_a_run_of_the_model_itself_is_found_and_said(inside, tmp_path):
    """By its weights, its method and its kind of scorer; of several that of the nearest width."""

    def planned(*words, policy="mini:draft"):
        ran = inside("plan", "--policy", policy, "--method", "rebase", "--width", 8, "--json", *words)
        return ran.json["source"], ran.err

    (tmp_path / "draft").symlink_to(model_path("mini:draft"))
    models = ("--policy", "./draft", "--prm", "mini:prm")
    for method, width, name in (("rebase", 4, "near"), ("rebase", 2, "far"), ("beam", 4, "other")):
        words = ("--limit", 3, "--method", method, "--width", width, "--max-tokens", 32, "--out", f"runs/{name}")
        assert inside("eval", *models, *words).code == 0
    for name, content in (("broken", "{"), ("older", '{"settings": {"width": "?"}}'), ("list", "[]")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(content)
    source, said = planned("--prm", "mini:prm")
    assert source == "runs/near, rebase at width 4, 3 problems, carried to 8 as the mini family's change"
    assert "no run of" not in said
    for words, policy in ((("--prm", "mini:prm"), "mini:target"), ((), "mini:draft")):
        source, said = planned(*words, policy=policy)
        assert source.startswith("rebase, measured on the mini family")
        assert said.startswith(f"ets: no run of {policy} by rebase is in runs/") and len(said.splitlines()) == 1
    assert "near" not in inside("plan", "--policy", "mini:draft", "--method", "dvts", "--prm", "mini:prm").out


def test_how_far_a_few_problems_tell_a_mean():
    assert half_width([3.0]) == math.inf and half_width([2.0, 2.0, 2.0]) == 0
    assert half_width([1.0, 3.0]) == pytest.approx(12.706, abs=1e-3), "Student's t with one degree of freedom"
