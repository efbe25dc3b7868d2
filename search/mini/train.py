"""Training a mini model from nothing, on a CPU, with fixed seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from search.mini.assets import weights_folder
from search.mini.card import TRAINING_FILE, write_notes
from search.mini.checkpoint import save_model, write_json
from search.mini.fit import Report, fit
from search.mini.recipes import Recipe, recipe_for
from search.mini.solutions import DRAFT_RATES, TARGET_RATES
from search.mini.sources import PolicySource, PrmSource
from search.mini.wording import BAD_LABEL, GOOD_LABEL

STATE_FILE = "training-state.pt"
PRM_CONFIG_FILE = "prm_config.json"
PRM_CONFIG = {
    "codec": "label-tokens",
    "good_token": GOOD_LABEL,
    "bad_token": BAD_LABEL,
    "read_at": "step-last-token",
    "labels": "step-local",
    "reduce_in_search": "prod",
}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training left.

    Attributes:
        folder: the checkpoint's folder.
        seconds: wall seconds of all runs.
        cpu_seconds: processor seconds of all runs.
        figures: the last dev figures.
    """

    folder: Path
    seconds: float
    cpu_seconds: float
    figures: dict[str, float]


def train(
    role: str,
    out: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    scale: float = 1.0,
    report: Report = lambda _: None,
    policies: Path | None = None,
) -> TrainResult:
    """Train one model and write its checkpoint and card.

    Args:
        role: "target", "draft" or "prm".
        out: the checkpoint's folder; made where it does not exist.
        seed: decides weights, data and order.
        resume: go on from the state file in ``out``; a checkpoint that is already finished is left as it is.
        scale: share of the full length, for tests; see ``recipe_for``.
        report: told of progress.
        policies: for the PRM, the folder with ``target`` and ``draft``; the shipped ones where not given.

    Raises:
        ConfigError: if role or scale is wrong, or the state file belongs to another training.
        DataError: if a checkpoint that the PRM needs cannot be read.
    """
    recipe = recipe_for(role, scale)
    fingerprint = _fingerprint(recipe, seed)
    if resume:
        done = _finished(out, fingerprint)
        if done is not None:
            return done
    out.mkdir(parents=True, exist_ok=True)
    state_file = out / STATE_FILE
    with _one_thread():
        folder = policies or weights_folder()
        source = PrmSource(recipe, seed, folder) if role == "prm" else PolicySource(recipe, seed)
        model = source.start()
        result = fit(model, source, recipe, fingerprint, report=report, state_file=state_file, resume=resume)
    save_model(model, out)
    if role == "prm":
        write_json(out / PRM_CONFIG_FILE, dict(PRM_CONFIG))
    write_notes(out, model, recipe, seed, fingerprint, result)
    state_file.unlink(missing_ok=True)
    figures = result.curve[-1].figures if result.curve else {}
    return TrainResult(out, result.seconds, result.cpu_seconds, figures)


def _fingerprint(recipe: Recipe, seed: int) -> str:
    """Names a training: recipe, rates and seed."""
    named = f"{recipe} {TARGET_RATES} {DRAFT_RATES} {seed}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _finished(out: Path, fingerprint: str) -> TrainResult | None:
    """The result of a training that ``out`` already holds whole, or None."""
    path = out / TRAINING_FILE
    if not path.is_file() or not (out / "model.safetensors").is_file() or (out / STATE_FILE).exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("fingerprint") != fingerprint:
        return None
    known = ("step", "loss", "tokens", "seconds")
    last = record["curve"][-1] if record["curve"] else {}
    figures = {name: value for name, value in last.items() if name not in known}
    return TrainResult(out, record["seconds"], record["cpu_seconds"], figures)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: at this size a second one costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
