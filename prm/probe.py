"""Probes: a small network that reads off a policy's own hidden state how likely a step leads to a right answer.

The policy has computed the state already, so a probe needs no second model, no cache and no tokens of its own. A probe
that routes reads a draft's state and its own log-probabilities of the step's tokens, which the draft has computed too,
and says how likely the target's step in place of the draft's is better.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError, ScoringError
from search.support.files import filled_folder
from search.types import EngineInfo, Reduce

PREFIX = "probe:"
"""What the name of such a reward model begins with: "probe:PATH"."""

CONFIG_FILE = "probe.json"
WEIGHTS_FILE = "probe.safetensors"

Network = Literal["linear", "mlp"]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """What a probe reads, and how its number becomes a reward.

    Attributes:
        layer: whose hidden state it reads, counted from 1; the last one's is after the final norm.
        num_layers: of the policy.
        width: numbers that the network reads: those of a state, and with `reads_logprobs` those of `logprob_features`.
        network: one linear map, or one hidden layer of rectified units.
        policy: the model it was trained for, as it was named.
        weights: the fingerprint of that model's files; None where they were not at hand.
        tokenizer: the fingerprint of its tokenizer.
        reduce: how the rewards of a path's steps become one.
        temperature: what the network's log-odds are divided by.
        knots: points (share by the network, share that was right) of a rising line; what lies between is interpolated.
        record: how it was trained, and its figures on problems that it did not see.
        target: of a probe that routes, the target as it was named; empty for one that scores steps.
        reads_logprobs: whether it also reads the log-probabilities of the step's tokens.
    """

    layer: int
    num_layers: int
    width: int
    network: Network
    policy: str
    weights: str | None
    tokenizer: str
    reduce: Reduce = "last"
    temperature: float = 1.0
    knots: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))
    record: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""
    reads_logprobs: bool = False

    def check(self, info: EngineInfo, tokenizer: str, weights: str | None) -> None:
        """Hold the policy's engine against the one that the probe was trained for.

        Args:
            info: of the engine.
            tokenizer: its tokenizer's fingerprint.
            weights: the fingerprint of its model's files; None where they are not at hand.

        Raises:
            ConfigError: another model, or an engine that does not give the states.
        """
        number = int(info.details.get("layers", 0))
        again = "ets router train --probe" if self.target else f"ets probe collect --policy {info.model}"
        for what, ours, theirs in (
            ("layers", self.num_layers, number or None),
            ("a tokenizer of hash", self.tokenizer[:8], tokenizer[:8]),
            ("weights of hash", self.weights and self.weights[:8], weights and weights[:8]),
        ):
            if ours is not None and theirs is not None and ours != theirs:
                raise ConfigError(
                    f"this probe was trained for {self.policy}, which has {what} {ours}; {info.model} has {theirs}: "
                    f"train one for it ({again})"
                )
        if info.name in ("openai", "chat"):
            raise ConfigError(
                "an OpenAI-compatible server has no hidden states for a probe: serve the model with SGLang"
            )
        if info.name == "sglang":
            if not info.details.get("hidden states"):
                raise ConfigError(
                    "this server gives no hidden states, which a probe reads: start it with "
                    "--enable-return-hidden-states"
                )
            if self.layer != number:
                raise ConfigError(
                    f"this probe reads layer {self.layer}, and a server gives the last one ({number}) alone: run the "
                    f"policy in this process (--engine local), or train a probe with --layers {number}"
                )


class Probe:
    """A trained probe.

    Attributes:
        config: what it reads.
    """

    def __init__(self, config: ProbeConfig, weights: Mapping[str, Array]) -> None:
        """Put a probe together.

        Args:
            config: what it reads.
            weights: "mean" and "scale" (width,) of the states; "in.weight" (units, width) and "in.bias" (units,), and
                for an MLP "out.weight" (1, units) and "out.bias" (1,).

        Raises:
            ConfigError: a tensor is missing or of another shape.
        """
        self.config = config
        self._weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
        units = len(self._weights["in.bias"]) if config.network == "mlp" and "in.bias" in self._weights else 1
        shapes = {
            "mean": (config.width,),
            "scale": (config.width,),
            "in.weight": (units, config.width),
            "in.bias": (units,),
        }
        if config.network == "mlp":
            shapes |= {"out.weight": (1, units), "out.bias": (1,)}
        given = {name: array.shape for name, array in self._weights.items()}
        if given != shapes:
            raise ConfigError(f"this probe's tensors are {given}; a {config.network} probe has {shapes}")

    @property
    def layers(self) -> tuple[int, ...]:
        """What to ask an engine for; a server gives the last layer unasked, and no other."""
        return () if self.config.layer == self.config.num_layers else (self.config.layer,)

    def log_odds(self, states: Array) -> Array:
        """(n,) the network's log-odds for states (n, width), as they are before calibration."""
        weights = self._weights
        normal = (states - weights["mean"]) / weights["scale"]
        hidden: NDArray[Any] = normal @ weights["in.weight"].T + weights["in.bias"]
        if self.config.network == "mlp":
            hidden = np.maximum(hidden, 0.0) @ weights["out.weight"].T + weights["out.bias"]
        result: Array = hidden[:, 0]
        return result

    def rewards(self, states: Array) -> NDArray[np.float64]:
        """(n,) calibrated probabilities that the steps of states (n, width) lead to a right answer."""
        return calibrate(self.log_odds(states), self.config.temperature, self.config.knots)

    def reward(self, state: Sequence[float], logprobs: Sequence[float] | None = None) -> float:
        """The calibrated probability for one state, as an engine gave it.

        Args:
            state: at the step's end.
            logprobs: of the step's tokens, for a probe that reads them.

        Raises:
            ScoringError: it is of another width, or holds what is no number, or log-probabilities are missing.
        """
        width = self.config.width - self.config.reads_logprobs * NUM_LOGPROB_FEATURES
        if len(state) != width:
            raise ScoringError(f"{len(state)} numbers, not {width}")
        if self.config.reads_logprobs and logprobs is None:
            raise ScoringError("no log-probabilities of its tokens beside it")
        read = (*state, *(logprob_features(logprobs or ()) if self.config.reads_logprobs else ()))
        if not all(map(math.isfinite, read)):
            raise ScoringError("what is no number")
        return float(self.rewards(np.array([read], np.float32))[0])

    def save(self, folder: Path) -> None:
        """Write it to a folder; `probe.json` comes last, so a folder that has it is whole.

        Raises:
            ConfigError: it cannot be written to.
        """
        from safetensors.numpy import save_file

        with filled_folder(folder, CONFIG_FILE) as partial:
            save_file(self._weights, str(partial / WEIGHTS_FILE))
            (partial / WEIGHTS_FILE).chmod(0o644)
            (partial / CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=1) + "\n", encoding="utf-8")


NUM_LOWEST, NUM_LAST = 4, 16
NUM_LOGPROB_FEATURES = NUM_LOWEST + 3 + NUM_LAST


def logprob_features(logprobs: Sequence[float]) -> tuple[float, ...]:
    """What a probe reads of the log-probabilities of a step's tokens, (NUM_LOGPROB_FEATURES,) whatever their number.

    The lowest four, their mean, their sum, how many there are, and those of the last sixteen tokens from the end; 0,
    the log of certainty, stands for tokens that a shorter step does not have.
    """
    held = [max(logprob, -100.0) for logprob in logprobs]
    none = [0.0] * max(NUM_LOWEST, NUM_LAST)
    whole = math.fsum(held)
    lowest, last = (sorted(held) + none)[:NUM_LOWEST], (held[::-1] + none)[:NUM_LAST]
    return (*lowest, whole / max(1, len(held)), whole, float(len(held)), *last)


def calibrate(log_odds: NDArray[Any], temperature: float, knots: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """Log-odds as probabilities: cooled by the temperature, then bent along the knots."""
    cooled = 1.0 / (1.0 + np.exp(-np.clip(np.asarray(log_odds, np.float64) / temperature, -700, 700)))
    across, up = zip(*knots, strict=True)
    calibrated: NDArray[np.float64] = np.clip(np.interp(cooled, across, up), 0.0, 1.0)
    return calibrated


def probe_folder(name: str) -> Path:
    """The folder of the probe "probe:PATH"."""
    return Path(name.removeprefix(PREFIX)).expanduser()


def read_probe(folder: Path) -> Probe:
    """A probe from its folder.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = read_config(folder)
    try:
        return Probe(config, load_file(folder / WEIGHTS_FILE))
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"probe {folder}: {WEIGHTS_FILE} is damaged or missing ({error})") from None


def read_config(folder: Path) -> ProbeConfig:
    """What the probe in a folder reads.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ConfigError(f"probe {folder}: no {CONFIG_FILE} there; ets probe train makes a probe")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        values["knots"] = tuple((float(across), float(up)) for across, up in values["knots"])
        config = ProbeConfig(**values)
        if config.network not in get_args(Network) or config.reduce not in get_args(Reduce):
            raise ValueError(f"network {config.network!r}, reduce {config.reduce!r}")
        if not (1 <= config.layer <= config.num_layers and config.temperature > 0 and len(config.knots) > 1):
            raise ValueError(f"layer {config.layer} of {config.num_layers}, temperature {config.temperature}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"probe {folder}: {CONFIG_FILE} cannot be read ({error})") from None
    return config


HELD_OUT_FILE = "held-out.safetensors"


def save_held_out(folder: Path, log_odds: Mapping[str, NDArray[Any]]) -> None:
    """Keep beside a probe what networks that did not see them said of the steps of its own problems.

    Args:
        folder: of the probe.
        log_odds: of each problem's steps, in the order of its features.

    Raises:
        ConfigError: it cannot be written to.
    """
    from safetensors.numpy import save_file

    with filled_folder(folder, HELD_OUT_FILE) as partial:
        file = partial / HELD_OUT_FILE
        save_file({name: np.asarray(values, np.float32) for name, values in log_odds.items()}, str(file))
        file.chmod(0o644)


def read_held_out(folder: Path) -> Mapping[str, NDArray[Any]]:
    """What `save_held_out` kept; empty where nothing is."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(folder / HELD_OUT_FILE) if (folder / HELD_OUT_FILE).is_file() else {}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"probe {folder}: {HELD_OUT_FILE} is damaged ({error})") from None
