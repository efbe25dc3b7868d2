"""A trained reward model on disk: safetensors, tokenizer, `prm_config.json`, and a card in plain words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prm.checkpoint import CONFIG_FILE, PrmConfig
from prm.train import TrainResult, TrainSettings
from search.support.files import filled_folder
from search.support.quiet import without_progress_bars


def save_prm(
    network: Any, raw_tokenizer: Any, folder: Path, config: PrmConfig, text: str, *, bfloat16: bool = False
) -> None:
    """Write everything into a folder; `prm_config.json` comes last, so what has it is whole.

    Args:
        network: a transformers causal model.
        raw_tokenizer: its own.
        folder: made where it is not there.
        config: how it is read.
        text: its card.
        bfloat16: the precision of the weights on disk, and from here on in memory.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    import torch

    with filled_folder(folder, CONFIG_FILE) as partial, without_progress_bars():
        network.to(torch.bfloat16 if bfloat16 else torch.float32).save_pretrained(partial)
        raw_tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(text, encoding="utf-8")
        (partial / CONFIG_FILE).write_text(json.dumps(config.to_file(), indent=2) + "\n", encoding="utf-8")


def card(
    config: PrmConfig,
    base: str,
    data: Sequence[str],
    settings: TrainSettings,
    result: TrainResult,
    figures: Mapping[str, object] | None = None,
) -> str:
    """A trained reward model in plain words: what it reads, what it was trained on, and how well that went."""
    lines = [
        "---\nlibrary_name: transformers\ntags: [process-reward-model]\n---",
        f"# A process reward model from {base}",
        f"It reads a question and steps by the codec `{config.codec}` of ets-arbitrage and says "
        f"{config.good_token!r} or {config.bad_token!r} after each step; a step's reward is the first one's share of "
        f"both probabilities. A path's reward in a search is the {config.reduce} of its steps' rewards.",
        f"Data: {', '.join(data)}; {result.num_solutions} solutions ({result.num_left_out} longer than "
        f"{settings.max_tokens} tokens left out).",
        f"Training: {len(result.losses)} steps of {settings.batch_size * settings.num_accumulated} solutions, AdamW at "
        f"{settings.learning_rate}, warm-up over {settings.warmup_share:.0%} and linear decay, {settings.dtype}, seed "
        f"{settings.seed}; loss {result.losses[0]:.4f} at first, {result.losses[-1]:.4f} at last.",
    ]
    if figures:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float))
        lines.append(f"On held-out data: {shown}.")
    else:
        lines.append("It was not measured on held-out data; `ets prm eval` does that.")
    return "\n\n".join(lines) + "\n"
