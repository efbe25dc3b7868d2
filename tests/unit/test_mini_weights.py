"""The shipped files: whole, small, the same in transformers, and what their cards say."""

import asyncio
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from search.engines.local import LocalEngine
from search.mini.assets import NAMES, checkpoint_path, weights_folder
from search.mini.checkpoint import load_model
from search.mini.corpus import checked_document
from search.mini.evaluate import attempts
from search.mini.problems import MiniProblem, Operation, format_prompt, problem, problems
from search.mini.recipes import recipe_for
from search.mini.sample import step_rewards
from search.mini.tokenizer import encode
from search.mini.train import PRM_CONFIG, PRM_CONFIG_FILE
from search.mini.wording import WORDING_OF_VERB
from search.types import Prefix, Segment

SOLUTION = """She buys 19 more, now 35 + 19 = {sum}.

She drops 12, so {sum} {sign} 12 = {end}.

The answer is \\boxed{{{end}}}."""


def rewards(total: int, sign: str, end: int) -> list[float]:
    operations = tuple(Operation(WORDING_OF_VERB[verb], number) for verb, number in (("buys", 19), ("drops", 12)))
    text = "Ann has 35 books. She buys 19 more. She drops 12. How many books are there now?"
    found = MiniProblem("x", text, "42", "dev", 0, "Ann", 35, operations)
    solution = SOLUTION.format(sum=total, sign=sign, end=end)
    document = checked_document(found, encode(solution), solution)
    assert document is not None
    return step_rewards(load_model(checkpoint_path("prm")), [document])[0]


@pytest.mark.parametrize("name", NAMES)
def test_transformers_gives_the_same_logits(name: str) -> None:
    folder = checkpoint_path(name)
    text = format_prompt(problem("dev", 0).text)
    ids = torch.tensor([encode(text)])
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == ids[0].tolist()
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        assert float((theirs(ids).logits - load_model(folder)(ids)).abs().max()) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_gives_the_same_probabilities_as_transformers(name: str) -> None:
    folder = checkpoint_path(name)
    ids = tuple(encode(format_prompt(problem("test", 5).text)))

    async def ours() -> tuple[float, ...]:
        engine = LocalEngine.load(str(folder))
        prefix = Prefix("t", (Segment(0, ids[:20]), Segment(1, ids[20:])))
        try:
            return await engine.label_logprobs(prefix, range(engine.info.vocab_size))
        finally:
            await engine.aclose()

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        theirs = reference(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    assert torch.allclose(torch.tensor(asyncio.run(ours())), theirs, atol=1e-4)


def test_all_files_together_fit_in_a_wheel() -> None:
    files = [path for path in weights_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    assert json.loads((checkpoint_path("prm") / PRM_CONFIG_FILE).read_text()) == PRM_CONFIG


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_are_of_the_recipe(name: str) -> None:
    record = json.loads((checkpoint_path(name) / "training.json").read_text())
    recipe = recipe_for(name)
    assert (record["seed"], record["recipe"]["num_steps"]) == (0, recipe.num_steps)
    assert record["curve"][-1]["step"] == recipe.num_steps


def test_the_prm_tells_a_carry_slip_and_a_misread_trap() -> None:
    assert min(rewards(54, "-", 42)) > 0.5
    carry, after, _ = rewards(44, "-", 32)
    assert carry < 0.3
    assert after > 0.5
    right, trap, _ = rewards(54, "+", 66)
    assert right > 0.5
    assert trap < 0.3


def test_the_target_beats_the_draft() -> None:
    found = list(problems("dev", 60))
    target, draft = (attempts(load_model(Path(checkpoint_path(name))), found, 0) for name in ("target", "draft"))
    assert sum(tries[0].correct for tries in target) > sum(tries[0].correct for tries in draft) + 3
