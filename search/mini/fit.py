"""The training loop: steps, dev curve, progress, and a checkpoint file from which it goes on as if never stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from search.mini.corpus import BATCHES_PER_CHUNK, Batch
from search.mini.model import MiniModel
from search.mini.muon import MuonAdam
from search.mini.recipes import Recipe
from search.mini.sources import PolicySource, PrmSource
from search.support.training import load_state, save_state

_REPORT_SECONDS = 5.0
_SAVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """What a training tells while it runs.

    Attributes:
        role: which model.
        step: batches done.
        num_steps: batches in all.
        loss: mean training loss since the last event.
        tokens: tokens seen, padding not counted.
        seconds: training seconds, earlier runs of a resumed training included.
        figures: dev figures; empty between points of the dev curve.
    """

    role: str
    step: int
    num_steps: int
    loss: float
    tokens: int
    seconds: float
    figures: dict[str, float]


Report = Callable[[TrainEvent], None]


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training came to.

    Attributes:
        curve: the dev curve's events.
        seconds: wall seconds of training, evaluation included.
        cpu_seconds: processor seconds of the same.
        tokens: tokens seen.
    """

    curve: tuple[TrainEvent, ...]
    seconds: float
    cpu_seconds: float
    tokens: int


class _Progress:
    """How far a training is: batches and tokens done, and the seconds of all its runs."""

    def __init__(self, step: int = 0, tokens: int = 0, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.step, self.tokens = step, tokens
        self._begun, self._begun_cpu = time.monotonic() - seconds, time.process_time() - cpu_seconds

    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def cpu_seconds(self) -> float:
        return time.process_time() - self._begun_cpu


def fit(
    model: MiniModel,
    source: PolicySource | PrmSource,
    recipe: Recipe,
    fingerprint: str,
    *,
    report: Report,
    state_file: Path,
    resume: bool,
) -> FitResult:
    """Train a model in place.

    Args:
        model: trained in place, in bf16 autocast over float32 weights.
        source: of its batches and of its dev figures, which are asked for ``num_evals`` times.
        recipe: how it is trained.
        fingerprint: names data, recipe and seed; a state file is taken up only where it is the same.
        report: told of progress every few seconds and of each point of the dev curve.
        state_file: where the state is kept, written atomically every half minute; removed by the caller.
        resume: take up the state file where it exists.

    Raises:
        ConfigError: if the state file belongs to another training.
        DataError: if it cannot be read.
    """
    optimiser = MuonAdam(model, recipe.optimiser)
    progress = _Progress()
    curve: list[TrainEvent] = []

    def take_up(state: Mapping[str, Any]) -> None:
        nonlocal progress
        model.load_state_dict(state["model"])
        optimiser.load_state(state["optimiser"])
        progress = _Progress(*state["progress"])
        for step, loss, tokens, seconds, figures in state["curve"]:
            curve.append(TrainEvent(recipe.role, step, recipe.num_steps, loss, tokens, seconds, figures))

    if resume:
        load_state(state_file, fingerprint, take_up)
    eval_steps = {round(recipe.num_steps * (i + 1) / recipe.num_evals) for i in range(recipe.num_evals)}
    losses: list[float] = []
    batches: Sequence[Batch] = ()
    chunk = -1
    last_report = last_save = progress.seconds()
    while progress.step < recipe.num_steps:
        number, place = divmod(progress.step, BATCHES_PER_CHUNK)
        if number != chunk:
            batches, chunk = source.batches(number), number
        losses.append(_train_step(model, optimiser, batches[place], progress.step, recipe.num_steps))
        progress.step += 1
        progress.tokens += batches[place].num_tokens
        now = progress.seconds()
        figures = source.evaluate(model) if progress.step in eval_steps else {}
        if figures or now - last_report > _REPORT_SECONDS:
            loss = sum(losses) / len(losses)
            event = TrainEvent(recipe.role, progress.step, recipe.num_steps, loss, progress.tokens, now, figures)
            report(event)
            curve.extend([event] if figures else [])
            losses, last_report = [], now
        if now - last_save > _SAVE_SECONDS:
            kept = {
                "model": model.state_dict(),
                "optimiser": optimiser.state(),
                "progress": (progress.step, progress.tokens, progress.seconds(), progress.cpu_seconds()),
                "curve": [(one.step, one.loss, one.tokens, one.seconds, one.figures) for one in curve],
            }
            save_state(state_file, fingerprint, kept)
            last_save = now
    return FitResult(tuple(curve), progress.seconds(), progress.cpu_seconds(), progress.tokens)


def _train_step(model: MiniModel, optimiser: MuonAdam, batch: Batch, step: int, num_steps: int) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch.ids, logit_rows=batch.wanted)
    losses = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
    loss = (losses * batch.weights).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step(step, num_steps)
    return float(loss.detach())
