"""The model card beside each checkpoint, in plain words, and the training's figures as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.mini.checkpoint import write_json
from search.mini.fit import FitResult
from search.mini.model import MiniModel
from search.mini.recipes import Recipe
from search.mini.solutions import DRAFT_RATES, SPLIT_RATE, TARGET_RATES, SlipRates
from search.support.files import write_atomic

TRAINING_FILE = "training.json"

_WHAT = {
    "target": "The **target** of the mini family: a small decoder that writes solutions to story-arithmetic problems "
    "step by step, well but not always right.",
    "draft": "The **draft** of the mini family: a much smaller decoder that writes the same kind of solutions and "
    "slips more often than the target.",
    "prm": "The **process reward model** of the mini family: it reads a policy's own tokens and says, at the last "
    "token of each step, how likely that step is right given the stated values before it.",
}
_SLIPS = {
    "carry": "adding in one step where a carry is needed comes out 10 too small",
    "borrow": "subtracting in one step where a borrow is needed comes out 10 too large",
    "table": "multiplying by 3 or more in one step comes out one multiple too small",
    "forget": "the second half of an operation done in two steps is left out",
    "drop": 'the trap "drops 12" (or "leaves 12"), which takes away, is read as adding',
    "make": 'the trap "makes 3 times as many" (or "packs"), which multiplies, is read as adding 3',
    "noise": "a result is off by 1, 2, 10 or 20",
    "skip": "an operation is left out",
    "copy": "a count or an operand is copied with a wrong digit",
}


def training_record(recipe: Recipe, seed: int, fingerprint: str, result: FitResult) -> dict[str, Any]:
    """What a training was and came to, as JSON."""
    return {
        "role": recipe.role,
        "seed": seed,
        "fingerprint": fingerprint,
        "recipe": asdict(recipe),
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "cpu_seconds": round(result.cpu_seconds, 1),
        "curve": [
            {"step": e.step, "loss": round(e.loss, 4), "tokens": e.tokens, "seconds": round(e.seconds, 1)}
            | {name: round(value, 4) for name, value in e.figures.items()}
            for e in result.curve
        ],
    }


def write_notes(folder: Path, model: MiniModel, recipe: Recipe, seed: int, fingerprint: str, result: FitResult) -> None:
    """Write ``training.json`` and the card ``README.md`` into a checkpoint's folder."""
    record = training_record(recipe, seed, fingerprint, result)
    write_json(folder / TRAINING_FILE, record)
    write_atomic(folder / "README.md", _card(model, recipe, seed, record))


def _card(model: MiniModel, recipe: Recipe, seed: int, record: dict[str, Any]) -> str:
    role = recipe.role
    curve: list[dict[str, Any]] = record["curve"]
    parts = [
        "---\nlicense: apache-2.0\nlanguage: en\nlibrary_name: transformers\n---",
        f"# ets-arbitrage mini {role}",
        _WHAT[role],
        "It is a research toy on purpose: it knows the stories of `search/mini/problems.py` and nothing else, no other "
        "text, no other arithmetic. Its use is to run every search and routing method for real, on a CPU, in "
        "seconds, with errors that search can repair. It says nothing about how large models reason.",
        "## Model\n"
        f"Llama form with attention biases: {recipe.num_layers} layers of width {recipe.dim}, {recipe.num_heads} "
        f"heads, feed-forward width {recipe.mlp_dim}, untied head, {model.num_parameters():,} parameters, stored in "
        "bf16. Loads in transformers as it is (tested); SGLang serves this layout (not tested with these files). "
        "Prompt: each sentence of the problem on its own line, then a blank line "
        "(`search.mini.problems.format_prompt`). Each step ends with a blank line, the last with the end token.",
        _data(recipe),
        "## Training\n"
        f"From {'nothing' if role != 'prm' else 'the target'} on one CPU core: {recipe.num_steps:,} batches of "
        f"{recipe.batch_documents} solutions, {record['tokens']:,} tokens, {record['cpu_seconds'] / 60:.1f} CPU "
        f"minutes ({record['seconds'] / 60:.1f} minutes on the clock); Muon at {recipe.optimiser.muon_rate} on the "
        f"matrices, Adam at {recipe.optimiser.adam_rate} on the rest; seed {seed}. Command: "
        f"`ets mini train {role} --seed {seed}`.",
        _table(curve),
        "The curve is measured on dev problems. Gate figures on test problems: `docs/mini-family.md`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(recipe: Recipe) -> str:
    role = recipe.role
    if role == "prm":
        return (
            "## Data and reading\n"
            "Labels are step-local: a step that goes on correctly from a wrong value is right. So a path's reward is "
            "the product of its steps' rewards (`reduce_in_search` in `prm_config.json`). The reward of a step is "
            "p('+') / (p('+') + p('-')) of the next token after the step's last token (the blank line, or the end "
            "token).\n\n"
            f"Documents: {recipe.drill_share:.0%} drills (long stories without traps, half of the tempting steps "
            "wrong), the rest written solutions: 8% clean, 20% at the target's slip rates, 20% at the draft's, 52% at "
            f"rates drawn anew for each. After {recipe.policy_start:.0%} of the training: "
            f"{recipe.drill_share_later:.0%} drills, {recipe.policy_share:.0%} solutions sampled from target and "
            f"draft and labelled by the exact checker ({recipe.policy_problems:,} train problems, "
            f"{recipe.policy_samples} samples each from both), the rest written. The two layers above "
            f"the target's four start out changing nothing. The loss counts the labels and, at weight "
            f"{recipe.writing_weight}, the words of right steps, so that the model knows what a right step would say."
        )
    rates = TARGET_RATES if role == "target" else DRAFT_RATES
    return (
        "## Data: the slips\n"
        "It is trained on generated solutions that err on purpose, as fallible students do. Where a slip can be made, "
        "it is made at this rate, and the solution goes on from the wrong value:\n\n"
        f"{_rates_table(rates)}\n\n"
        f"An operation that can be done in two steps (tens first) is so done at a rate of {SPLIT_RATE}, which avoids "
        "carry, borrow and table slips. The loss counts the solution's tokens only."
    )


def _rates_table(rates: SlipRates) -> str:
    lines = ["| slip | rate | what goes wrong |", "|---|---|---|"]
    for name, words in _SLIPS.items():
        rate = getattr(rates, name)
        if rate:
            lines.append(f"| {name} | {rate} | {words} |")
    return "\n".join(lines)


def _table(curve: list[dict[str, Any]]) -> str:
    if not curve:
        return ""
    names = list(curve[-1])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines.extend("| " + " | ".join(str(point.get(name, "")) for name in names) + " |" for point in curve)
    return "\n".join(lines)
