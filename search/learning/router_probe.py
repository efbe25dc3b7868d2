"""`ets router train --probe`: a router that is a probe on what its draft computed, from the walks of any router.

Each step that the draft wrote is a place, labelled by whether the target's in its stead is better; read of it are the
draft's state at its end and the draft's log-probabilities of its tokens. All else is as for every probe
(`prm.probe_training`): cross-fitting over problems, the best layer, a calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arbitrage.evaluation import figures
from arbitrage.training import RouterTraining, helps
from arbitrage.walks import Walk, decode_states
from prm.probe import Probe, logprob_features, read_config, read_probe
from prm.probe_features import Features
from prm.probe_training import ProbeTraining, TrainEvent, train
from search.errors import ConfigError

SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Shares of a draft's steps for which the thresholds that escalate so many are kept, the probe's and RSD's."""


@dataclass(frozen=True, slots=True)
class DraftReads:
    """What a draft computed of the steps that it wrote.

    Attributes:
        settings: of what it is: policy, target, weights, tokenizer, layers, num_layers.
        states: (num_pairs, num_layers_read, width) in the order of the walks: the state at the step's end, and the
            features of its log-probabilities.
    """

    settings: Mapping[str, Any]
    states: NDArray[np.float32]


def read_drafts(walks: Sequence[Walk], origin: Mapping[str, Any], layers: Sequence[int] = ()) -> DraftReads:
    """What was kept of all drafted steps of walks when they were collected.

    Args:
        walks: as they were collected.
        origin: what their shards say of them: `draft`, `target`, `data` and `states`.
        layers: of those that were kept; empty for all.

    Raises:
        ConfigError: no states were kept, or none of such a layer.
    """
    pairs = [pair for walk in walks for pair in walk.pairs]
    kept = origin.get("states")
    if kept is None or any(pair.draft_states is None or pair.draft_logprobs is None for pair in pairs):
        raise ConfigError(
            "these steps were collected without what the draft computed of them, which a probe reads: collect them "
            "anew (ets router collect), with a draft on engine local or on a server with --enable-return-hidden-states"
        )
    if missing := set(layers) - set(kept["layers"]):
        raise ConfigError(f"layer {min(missing)}: collected were {', '.join(map(str, kept['layers']))}")
    chosen = [place for place, layer in enumerate(kept["layers"]) if not layers or layer in layers]
    rows = []
    for pair in pairs:
        assert pair.draft_states is not None and pair.draft_logprobs is not None
        states = decode_states(pair.draft_states, len(kept["layers"]))[chosen]
        more = np.tile(np.array(logprob_features(pair.draft_logprobs), np.float32), (len(chosen), 1))
        rows.append(np.concatenate([states, more], axis=1))
    settings = {
        "policy": origin["draft"],
        "target": origin["target"],
        **kept,
        "layers": [kept["layers"][place] for place in chosen],
        "reads_logprobs": True,
        "data": origin["data"],
        "dtype": "float32",
    }
    return DraftReads(settings, np.stack(rows))


def train_router_probe(
    walks: Sequence[Walk],
    dev: Sequence[Walk],
    origin: Mapping[str, Any],
    label: RouterTraining,
    settings: ProbeTraining,
    layers: Sequence[int] = (),
    fitted: Callable[[TrainEvent], None] = lambda event: None,
) -> tuple[Probe, dict[str, float | int | None]]:
    """Train a probe that routes, and measure it.

    Args:
        walks: the data.
        dev: held-out walks, for the figures and the thresholds that its record keeps.
        origin: what the shards of both say of them.
        label: `label` and `margin` say when escalation helps.
        settings: of the networks.
        layers: of those that were kept; empty for all.
        fitted: told of every network.

    Returns:
        The probe, and its figures on the held-out walks, as of `arbitrage.evaluation.figures`.

    Raises:
        ConfigError: as `read_drafts`.
        DataError: no checker judged the steps, or too few problems have steps of both kinds.
    """
    helped = helps(walks, label)
    seen, unseen = (read_drafts(part, origin, layers) for part in (walks, dev))
    probe = train(_features(walks, seen, helped), seen.settings["layers"], settings, report=fitted).probe
    estimated = estimates(probe, unseen)
    measured = figures(dev, estimated, label.margin)
    rewards = [pair.draft_reward for walk in dev for pair in walk.pairs]
    record = {
        **{name: value for name, value in probe.config.record.items() if name != "auc_within_by_reduce"},
        "prm": origin["prm"],
        "label": label.label,
        "margin": label.margin,
        "share_positive": round(sum(helped) / len(helped), 4),
        "dev": {name: measured[name] for name in ("num_pairs", "auc", "auc_prm", "calibration_error")},
        "thresholds": {str(share): round(float(np.quantile(estimated, 1 - share)), 6) for share in SHARES},
        "rsd_thresholds": {str(share): round(float(np.quantile(rewards, share)), 6) for share in SHARES},
    }
    probe.config = replace(probe.config, reduce="last", record=record)
    return probe, measured


def _features(walks: Sequence[Walk], read: DraftReads, helped: Sequence[bool]) -> Features:
    """Each drafted step as a solution of one step, right where escalation helps."""
    import torch

    right = np.array(helped, np.bool_)
    return Features(
        settings=read.settings,
        problem_ids=tuple(f"{number}/{walk.problem_id}" for number, walk in enumerate(walks)),
        states=torch.from_numpy(read.states),
        problems=np.array([number for number, walk in enumerate(walks) for _ in walk.pairs], np.int64),
        parents=np.full(len(right), -1, np.int64),
        num_solutions=np.ones(len(right), np.int64),
        num_right=right.astype(np.int64),
        leaves=np.arange(len(right)),
        answers=np.zeros(len(right), np.int64),
        correct=right,
    )


def estimates(probe: Probe, read: DraftReads) -> list[float]:
    """What a probe says of each pair that was read."""
    at = list(read.settings["layers"]).index(probe.config.layer)
    found: list[float] = probe.rewards(read.states[:, at]).tolist()
    return found


def evaluate_router_probe(
    folder: Path, walks: Sequence[Walk], origin: Mapping[str, Any]
) -> dict[str, float | int | None]:
    """Figures of a probe that routes on held-out walks, as of `arbitrage.evaluation.figures`.

    Raises:
        ConfigError: it is none, or the walks are of another draft or kept no state that it reads.
    """
    config = read_config(folder)
    if not config.target:
        raise ConfigError(f"{folder} is a probe that scores steps and no router; ets probe eval measures it")
    read = read_drafts(walks, origin, (config.layer,))
    for name in ("num_layers", "tokenizer", "weights"):
        if getattr(config, name) != read.settings[name]:
            raise ConfigError(
                f"{folder} was trained for {config.policy}; the data's draft {origin['draft']} has another {name}"
            )
    return figures(walks, estimates(read_probe(folder), read), float(config.record.get("margin", 0.0)))
