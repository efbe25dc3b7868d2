"""`ets prm train`, and the same from Python: a reward model from any base model, trained, measured and saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prm import PrmConfig, codec_of
from prm.checkpoint import CONFIG_FILE
from prm.codec import label_reward
from prm.export import card, save_prm
from prm.labels import LabelledSolution, load_labelled
from prm.metrics import figures
from prm.train import STATE_FILE, TrainEvent, TrainResult, TrainSettings, encode_solution, label_logits, train
from search.errors import ConfigError
from search.learning.trainable import Trainable, load_trainable

if TYPE_CHECKING:
    from prm.codec import PrmCodec


@dataclass(frozen=True, slots=True)
class PrmTraining:
    """What is to be trained, on what.

    Attributes:
        base: the model to start from: a path, a hub id, or `mini:ROLE`.
        data: step-labelled .jsonl files, in the layout of Math-Shepherd, of PRM800K or of ProcessBench.
        out: folder for the checkpoint, and until it is whole for what an interrupted training goes on from.
        dev: step-labelled data to measure the result on.
        settings: how; `max_tokens` is the model's context at most.
        codec: what the model is to read; label-tokens ends each step with a blank line.
        good_token, bad_token: the labels.
        reduce: how step rewards become a path's in a search: last for labels that judge the whole path.
        limit: lines to take of each file; None for all.
        device: cpu, cuda, cuda:N.
        resume: go on from an interrupted training in `out`.
        trust_remote_code: run code that comes with the base.
    """

    base: str
    data: Sequence[Path]
    out: Path
    dev: Path | None = None
    settings: TrainSettings = field(default_factory=TrainSettings)
    codec: str = "label-tokens"
    good_token: str = "+"
    bad_token: str = "-"
    reduce: Literal["last", "min", "mean", "prod"] = "min"
    limit: int | None = None
    device: str = "cpu"
    resume: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class TrainedPrm:
    """What came of it.

    Attributes:
        folder: of the checkpoint, for `Search(prm=...)`.
        codec: by which it is read.
        result: of the training.
        figures: on `dev`, as in `prm.metrics.figures`; None without it, or where every solution is too long.
    """

    folder: Path
    codec: str
    result: TrainResult
    figures: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """As `ets prm train --json` prints it."""
        result = self.result
        return {
            "folder": str(self.folder),
            "codec": self.codec,
            "num_solutions": result.num_solutions,
            "num_left_out": result.num_left_out,
            "num_steps": len(result.losses),
            "loss_first": result.losses[0],
            "loss_last": result.losses[-1],
            "figures": self.figures,
        }


def train_prm(wanted: PrmTraining, report: Callable[[TrainEvent], None] = lambda event: None) -> TrainedPrm:
    """Train a reward model that says a label token after each step, and save it.

    Args:
        wanted: what, and on what.
        report: told of every step of the optimiser.

    Raises:
        ConfigError: `out` holds a training already, or the base cannot be trained so.
        DataError: a line of the data is broken, or no labelled step fits.
    """
    out, state_file = wanted.out, wanted.out / STATE_FILE
    if (out / CONFIG_FILE).exists() or (not wanted.resume and state_file.exists()):
        raise ConfigError(f"{out} holds a training already; give another folder, or --resume for an interrupted one")
    solutions = [one for file in wanted.data for one in load_labelled(file, wanted.limit)]
    held_out = [] if wanted.dev is None else load_labelled(wanted.dev, wanted.limit)
    base = load_trainable(wanted.base, wanted.device, trust=wanted.trust_remote_code)
    config = _config(wanted, base)
    codec = codec_of(config, base.tokenizer)
    settings = replace(wanted.settings, max_tokens=min(base.context_tokens, wanted.settings.max_tokens))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror or error}") from None
    contents = hashlib.sha256(b"".join(file.read_bytes() for file in wanted.data)).hexdigest()[:16]
    key = f"{wanted.base} {contents} {config.good_token!r} {config.bad_token!r}"
    result = train(base.network, codec, solutions, settings, out, key=key, resume=wanted.resume, report=report)
    measured = _measure(base.network, codec, held_out, settings.max_tokens) if held_out else None
    text = card(config, wanted.base, [str(file) for file in wanted.data], settings, result, measured)
    save_prm(base.network, base.raw_tokenizer, out, config, text, bfloat16=settings.dtype == "bfloat16")
    state_file.unlink(missing_ok=True)
    return TrainedPrm(out, config.codec, result, measured)


def _config(wanted: PrmTraining, base: Trainable) -> PrmConfig:
    """How the trained model is to be read."""
    raw, labels = base.raw_tokenizer, wanted.codec == "label-tokens"
    chat = base.tokenizer.chat([{"role": "user", "content": "1 + 1"}]) is not None
    plain = raw.encode("1 + 1")
    starts = bool(plain) and plain[0] == raw.bos_token_id and raw.bos_token_id is not None
    return PrmConfig(
        codec=wanted.codec,
        good_token=wanted.good_token,
        bad_token=wanted.bad_token,
        reduce=wanted.reduce,
        shares_ids=False,
        prompt="chat" if labels and chat else "plain",
        step_end="\n\n" if labels else "",
        bos_token=raw.bos_token if starts else "",
    )


def _measure(network: Any, codec: PrmCodec, solutions: Sequence[LabelledSolution], max_tokens: int) -> dict[str, Any]:
    """Figures by the network as it is in memory; solutions longer than the limit are left out."""
    import torch

    kept, rewards = [], []
    with torch.inference_mode():
        for solution in solutions:
            encoded = encode_solution(codec, solution, max_tokens)
            if len(encoded.reads) == len(solution.steps):
                kept.append(solution)
                logits = label_logits(network, codec, [encoded]).double().tolist()
                rewards.append([label_reward(pair) for pair in logits])
    return dict(figures(kept, rewards))
