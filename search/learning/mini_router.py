"""`ets mini train router` and `probe`: the shipped routers, by the same collection and training as any others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from arbitrage.reading import CONFIG_FILE
from arbitrage.training import RouterTraining, TrainPoint
from arbitrage.walks import Walk, read_walks
from prm.probe_training import ProbeTraining, TrainEvent
from search.learning.collection import Collection, collect_walks
from search.learning.router import new_router, save_router, train_router
from search.learning.router_probe import train_router_probe
from search.mini.assets import PROBE, ROUTER
from search.support.files import write_atomic

TRAIN = (
    Collection(data="mini:train", skip=30_000_000, limit=1500, seed=1),
    Collection(data="mini:train", skip=31_000_000, limit=800, seed=3, temperature=1.0),
)
"""Greedy steps, and steps at the temperature of searches; far from the problems that the models were trained on."""

DEV = Collection(data="mini:dev", limit=250, seed=2)

SETTINGS = RouterTraining(
    label="checker",
    margin=0.1,
    balance=False,
    num_epochs=2,
    batch_size=64,
    rows=16,
    learning_rate=5e-4,
    evals_per_epoch=3,
    patience=4,
    dtype="bfloat16",
)
"""Differs from the paper, whose label is D > 0. Both steps right, D > 0 is a toss-up by the reward model's last digits,
and four pairs in ten are of that kind; and where a draft leaves an operation out, the reward model sees nothing wrong.
The data's exact checker knows both. The class that escalation helps is small, and nothing of the other is thrown away.
"""

TAGS = {"draft_tag": "d", "target_tag": "t"}
"""One token each; the paper's "Model 0: " is eight to the mini tokenizer, half a step."""

Say = Callable[[str], None]


def train_mini_router(
    family: Path, data: Path, *, seed: int = 0, scale: float = 1.0, say: Say = lambda _: None
) -> dict[str, Any]:
    """Collect steps with a folder's target, draft and prm, and train its router into `FOLDER/router`.

    Args:
        family: folder of the family.
        data: folder for the collected steps, where an interrupted collection goes on.
        seed: of collection and training; 0 gives the shipped router.
        scale: share of the full length, for tests.
        say: told of progress.

    Returns:
        `folder`, `cpu_seconds`, `dev_auc` and `dev_auc_start`.

    Raises:
        ConfigError: a model of the family is not there.
    """
    started = time.process_time()
    *train, dev = _collect(family, data, seed, scale, say)
    models = {role: f"mini:{role}" for role in ("draft", "target", "prm")}
    config = {**models, "label": SETTINGS.label, "margin": SETTINGS.margin, **TAGS}
    parts = new_router(str(family / "prm"), config, device="cpu", tree_model=str(family / "target"))

    def report(point: TrainPoint) -> None:
        if point.dev_auc is not None:
            say(f"router: step {point.step}/{point.num_steps}, dev AUC {point.dev_auc:.4f}")

    walks = [walk for part in train for walk in part]
    outcome, record = train_router(parts, walks, dev, replace(SETTINGS, seed=seed), report)
    cpu_seconds = time.process_time() - started
    record |= {"role": ROUTER, "seed": seed, "cpu_seconds": round(cpu_seconds, 1)}
    folder = family / ROUTER
    save_router(parts, folder, record, bfloat16=True)
    write_atomic(folder / "README.md", card(record, sum(value.numel() for value in parts.model.parameters())))
    best = max(point.dev_auc or 0.0 for point in outcome.curve)
    assert (folder / CONFIG_FILE).is_file()
    return {
        "folder": str(folder),
        "cpu_seconds": cpu_seconds,
        "dev_auc": best,
        "dev_auc_start": record["dev_auc_start"],
    }


def train_mini_probe(
    family: Path, data: Path, *, seed: int = 0, scale: float = 1.0, say: Say = lambda _: None
) -> dict[str, Any]:
    """As `train_mini_router`, of the same steps: the router that is a probe on its draft, into `FOLDER/probe`."""
    started = time.process_time()
    *train, dev = _collect(family, data, seed, scale, say)
    origin, _ = read_walks([data / str(number) for number in range(len(train))])

    def fitted(event: TrainEvent) -> None:
        say(f"probe: network {event.done}/{event.total}, layer {event.layer}, held-out AUC {event.figure:.4f}")

    walks = [walk for part in train for walk in part]
    probe, figures = train_router_probe(walks, dev, origin, SETTINGS, ProbeTraining(seed=seed), fitted=fitted)
    cpu_seconds = time.process_time() - started
    folder = family / PROBE
    probe.save(folder)
    write_atomic(folder / "README.md", probe_card(probe.config.record, probe.config.width))
    return {"folder": str(folder), "cpu_seconds": cpu_seconds, "dev_auc": figures["auc"] or 0.0}


def _collect(family: Path, folder: Path, seed: int, scale: float, say: Say) -> list[list[Walk]]:
    """The parts of `TRAIN`, and last `DEV`."""
    walks = []
    for number, wanted in enumerate((*TRAIN, DEV)):
        assert wanted.limit is not None
        say(f"router: collecting steps, part {number + 1} of {1 + len(TRAIN)}")
        limit = max(4, round(wanted.limit * scale))
        part = replace(wanted, family=family, seed=wanted.seed + 100 * seed, limit=limit)
        walks.append(collect_walks(part, folder / str(number)))
    return walks


def card(record: dict[str, Any], num_parameters: int) -> str:
    """The router's model card."""
    rows = [f"| {point['step']} | {point['loss']} | {point['dev_auc']} |" for point in record["curve"]]
    parts = [
        "---\nlicense: apache-2.0\nlanguage: en\nlibrary_name: transformers\n---",
        "# ets-arbitrage mini router",
        "The **router** of the mini family: it reads a draft's step and says how likely the target's step in its place "
        "would be better (Arbitrage, arXiv 2512.05033). It serves one pair, the mini draft and the mini target, "
        "as scored by the mini process reward model.",
        "It is a research toy on purpose: it knows the stories of `search/mini/problems.py` and nothing else.",
        "## Model\n"
        f"The reward model's six layers with a head of two classes at a step's last token, {num_parameters:,} "
        "parameters, stored in bf16, as a Llama for sequence classification. Each step begins with a mark of the model "
        f"that wrote it. The estimate is the softmax's share of class 1 (`router_config.json`).",
        "## Data and training\n"
        f"{record['num_walks']:,} problems walked by draft and target side by side, {record['num_pairs']:,} pairs of "
        f"steps, two thirds greedy and one third at temperature 1; the walk goes on with the better-scored step. "
        "Label: the target's step is right and the draft's wrong, by the exact checker "
        f"({record['share_positive']:.1%} of the pairs). AdamW at {record['settings']['learning_rate']}, batches of "
        f"{record['settings']['batch_size']} drafts, at most {record['settings']['num_epochs']} epochs; the weights of "
        f"the best dev AUC (step {record['best_step']}). Before training, when it says what the reward model says of "
        f"the draft's step alone, the dev AUC is {record['dev_auc_start']:.4f}. Command: `ets mini train router`.",
        "| step | loss | dev AUC |\n|---|---|---|\n" + "\n".join(rows),
    ]
    return "\n\n".join(parts) + "\n"


def probe_card(record: Mapping[str, Any], width: int) -> str:
    """The model card of the router that is a probe."""
    dev = record["dev"]
    rows = [f"| {share} | {threshold} |" for share, threshold in record["thresholds"].items()]
    parts = [
        "---\nlicense: apache-2.0\nlanguage: en\n---",
        "# ets-arbitrage mini probe",
        "A **router** of the mini family that needs no model: it reads the mini draft's own hidden state at the end of "
        "its step and its log-probabilities of the step's tokens, and says how likely the mini target's step in its "
        "place would be better (`--router probe`; Arbitrage, arXiv 2512.05033, read off the draft).",
        "It is a research toy on purpose: it knows the stories of `search/mini/problems.py` and nothing else.",
        "## Network, data and training\n"
        f"{width} numbers, of one layer's state and of the log-probabilities, {record['settings']['units']} rectified "
        "units, one calibrated probability (`probe.json`). It learned from the mini router's steps, "
        f"with the same labels: {record['num_steps']:,} drafted steps of {record['num_problems']:,} problems, "
        f"{record['share_positive']:.1%} positive. On held-out dev problems ({dev['num_pairs']:,} steps) its AUC is "
        f"{dev['auc']:.4f}, that of the reward model's 1 - s_d {dev['auc_prm']:.4f}. Command: `ets mini train probe`.",
        "| share of the draft's steps escalated | TAU |\n|---|---|\n" + "\n".join(rows),
    ]
    return "\n\n".join(parts) + "\n"
