"""`ets probe eval`: a probe on features of its policy, its own problems told by networks that did not see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from prm.probe import Probe, calibrate, read_held_out, read_probe
from prm.probe_features import Features, read_features
from prm.probe_figures import figures
from prm.probe_training import REDUCTIONS
from prm.probe_votes import vote_figures
from search.errors import ConfigError, check_choice
from search.types import Reduce


def evaluate(folder: Path, features: Sequence[Path], reduce: str | None = None) -> dict[str, Any]:
    """All figures of a probe.

    Args:
        folder: of the probe.
        features: folders of its policy's features.
        reduce: how a solution's steps become one; None: as the probe says.

    Returns:
        `figures`, flat; and the probe's training record.

    Raises:
        ConfigError: no probe, features of another policy, or an unknown reduction.
        DataError: a shard is broken.
    """
    probe, data = read_probe(folder), read_features(features)
    for name in ("weights", "tokenizer", "num_layers"):
        ours, theirs = getattr(probe.config, name), data.settings.get(name)
        if ours != theirs:
            raise ConfigError(f"{features[0]} are features of {data.settings.get('policy')}: its {name} differ")
    how = reduce or probe.config.reduce
    check_choice("reduce", how, get_args(Reduce))
    rewards, num_held_out = rewards_of(probe, data, folder)
    shown = {
        "layer": probe.config.layer,
        "reduce": how,
        "num_held_out_problems": num_held_out,
        **figures(data, rewards, cast(Reduce, how)),
        **vote_figures(data, rewards, REDUCTIONS),
    }
    return {"probe": str(folder), "figures": shown, "record": dict(probe.config.record)}


def rewards_of(probe: Probe, features: Features, folder: Path) -> tuple[NDArray[np.float64], int]:
    """(num_places,) rewards, and how many problems were of the training and told by networks that did not see them.

    Raises:
        ConfigError: a problem of the training has other solutions here, so that nothing can be told that is held out.
    """
    held_out = read_held_out(folder)
    log_odds = probe.log_odds(features.layer(probe.config.layer).numpy()).astype(np.float64)
    number = 0
    for at, name in enumerate(features.problem_ids):
        if (kept := held_out.get(name)) is None:
            continue
        mine = features.problems == at
        if len(kept) != int(mine.sum()):
            raise ConfigError(f"problem {name} was trained on with other solutions; leave it out of the features")
        log_odds[mine] = kept
        number += 1
    return calibrate(log_odds, probe.config.temperature, probe.config.knots), number
