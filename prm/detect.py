"""`prm:auto`: which family a reward model is of, found out from its files, and why.

In this order: what `prm_config.json` says; the reward head in the weights, with the architecture and the special
tokens; for label-token models without either, which are ordinary causal models to all appearance, the published name.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from prm.checkpoint import CONFIG_FILE, Checkpoint, PrmConfig, read_checkpoint
from prm.qwen_math import STEP_END
from search.errors import ConfigError


class Family(NamedTuple):
    """A codec by name: where it is, and whether it reads a reward head."""

    target: str
    reads_head: bool


CODECS: Mapping[str, Family] = {
    "label-tokens": Family("prm.label_tokens:LabelTokenCodec", False),
    "math-shepherd": Family("prm.math_shepherd:MathShepherdCodec", False),
    "rlhflow": Family("prm.rlhflow:RlhflowCodec", False),
    "qwen-math-prm": Family("prm.qwen_math:QwenMathPrmCodec", True),
    "skywork-o1": Family("prm.skywork:SkyworkCodec", True),
    "trl": Family("prm.trl:TrlCodec", True),
    "reward-head": Family("prm.reward_head:RewardHeadCodec", True),
}

_KEYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "good_token": ("good_token", lambda value: isinstance(value, str) and bool(value)),
    "bad_token": ("bad_token", lambda value: isinstance(value, str) and bool(value)),
    "step_tag": ("step_tag", lambda value: isinstance(value, str)),
    "bos_token": ("bos_token", lambda value: isinstance(value, str)),
    "step_end": ("step_end", lambda value: isinstance(value, str)),
    "shares_ids": ("shares_ids", lambda value: isinstance(value, bool)),
    "prompt": ("prompt", lambda value: value in ("plain", "chat")),
    "reduce_in_search": ("reduce", lambda value: value in ("last", "min", "mean", "prod")),
}
"""Keys of `prm_config.json` beside "codec": the field each sets, and what it accepts."""

_NOTES = frozenset({"codec", "read_at", "labels"})
"""Keys that say nothing that is not the codec's own, or that are for people."""

_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("shepherd", "prm"), "math-shepherd"),
    (("rlhflow", "prm"), "rlhflow"),
    (("prm-deepseek-data",), "rlhflow"),
    (("prm-mistral-data",), "rlhflow"),
)
"""What stands in a name by which a label-token model is known, all of it; policies are published beside them."""


def detect_prm(name: str, folder: Path, codec: str = "auto") -> PrmConfig:
    """How a reward model is read.

    Args:
        name: what the user called it; a hub id tells more than a folder.
        folder: where its files are.
        codec: a codec's name, or "auto" to find out.

    Raises:
        ConfigError: unknown codec; the files are broken; they are of no reward model that is known; or they do not
            hold what the codec reads.
    """
    if codec != "auto" and codec not in CODECS:
        raise ConfigError(f"unknown reward model codec {codec!r}; known: auto, {', '.join(CODECS)}")
    found = read_checkpoint(name, folder)
    config = _declared(found, folder) if codec == "auto" or _names(found) == codec else PrmConfig(codec)
    if config is None:
        config = _recognised(found)
    elif codec != "auto":
        config = replace(config, codec=codec, reason="it was asked for")
    _check(found, config)
    if "bos_token" in (found.prm_config or {}):
        return config
    return replace(config, bos_token=found.bos_token if _writes_bos(found, config) else "")


def _names(found: Checkpoint) -> object:
    return None if found.prm_config is None else found.prm_config.get("codec", "label-tokens")


def _writes_bos(found: Checkpoint, config: PrmConfig) -> bool:
    # Skywork's own code writes the start token itself, whatever the tokenizer does.
    return found.adds_bos or config.codec == "skywork-o1"


def _declared(found: Checkpoint, folder: Path) -> PrmConfig | None:
    """What `prm_config.json` says; None where there is none."""
    content = found.prm_config
    if content is None:
        return None
    where = folder / CONFIG_FILE
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key in _KEYS:
            field, accepts = _KEYS[key]
            if not accepts(value):
                raise ConfigError(f"{where}: {key} = {value!r} is not accepted")
            values[field] = value
        elif key not in _NOTES:
            raise ConfigError(f"{where}: unknown key {key!r}; known: {', '.join([*_KEYS, *sorted(_NOTES)])}")
    codec = _names(found)
    if codec not in CODECS:
        raise ConfigError(f"{where}: unknown codec {codec!r}; known: {', '.join(CODECS)}")
    return PrmConfig(codec=typing.cast(str, codec), reason=f"{CONFIG_FILE} says so", **values)


def _recognised(found: Checkpoint) -> PrmConfig:
    """The family by head, architecture, special tokens and name."""
    kind = ", ".join(found.architectures) or "checkpoint without architecture"
    head = ", ".join(sorted(found.head))
    if any("v_head." in key for key in found.head):
        return PrmConfig("skywork-o1", f"a {kind} with a value head ({head})")
    if found.head:
        if STEP_END in found.special_tokens and head_outputs(found) == 2:
            return PrmConfig("qwen-math-prm", f"a {kind} with a head of 2 outputs ({head}) and the token {STEP_END}")
        if any(one.endswith("ForTokenClassification") for one in found.architectures) and head_outputs(found) == 2:
            return PrmConfig("trl", f"a {kind} with a head of 2 outputs ({head}), as TRL's PRMTrainer makes them")
        return PrmConfig("reward-head", f"a {kind} with a head of {head_outputs(found)} outputs ({head})")
    for name in (found.name, found.origin):
        called = "/".join(Path(name).parts[-2:]).lower()
        for parts, codec in _NAMES:
            if all(part in called for part in parts):
                return PrmConfig(codec, f"a {kind} without a reward head, by its name {name!r}")
    if any("ForCausalLM" not in one for one in found.architectures):
        raise ConfigError(f"reward model {found.name!r} is a {kind} without its head: no score.* or v_head.* tensor")
    raise ConfigError(
        f"{found.name!r} is no reward model that can be recognised: a {kind} without {CONFIG_FILE}, without a reward "
        f"head, and of no known name; if it is one, say how it is read by --prm-codec: {', '.join(CODECS)}"
    )


def head_outputs(found: Checkpoint) -> int:
    """Number of outputs of a checkpoint's reward head; 0 without one."""
    weights = sorted(key for key, shape in found.head.items() if len(shape) == 2)
    return found.head[weights[-1]][0] if weights else 0


def _check(found: Checkpoint, config: PrmConfig) -> None:
    """Refuse a codec that reads what the weights do not hold."""
    if CODECS[config.codec].reads_head and not found.head:
        raise ConfigError(
            f"codec {config.codec} reads a reward head and {found.name!r} has none: no score.* or v_head.* tensor"
        )
    if not CODECS[config.codec].reads_head and found.head:
        raise ConfigError(
            f"codec {config.codec} reads label tokens and {found.name!r} has a reward head "
            f"({', '.join(sorted(found.head))}); leave --prm-codec at auto"
        )
    expected = {"qwen-math-prm": (2,), "skywork-o1": (1,), "trl": (2,), "reward-head": (1, 2)}.get(config.codec)
    if expected is not None and head_outputs(found) not in expected:
        raise ConfigError(
            f"codec {config.codec} reads {' or '.join(map(str, expected))} outputs and the reward head of "
            f"{found.name!r} has {head_outputs(found)}"
        )
