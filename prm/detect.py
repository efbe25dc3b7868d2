"""`prm:auto`: which family a reward model is of, found out from its files, and why.

First what `prm_config.json` says; without one, each family of the catalogue is asked whether the checkpoint is of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from prm.checkpoint import CONFIG_FILE, Checkpoint, PrmConfig, read_checkpoint
from prm.codec import PrmCodec, PrmFamily
from search.catalogue import PRM_FAMILIES, load
from search.errors import ConfigError
from search.protocols import Tokenizer

_REFUSED: Mapping[tuple[str, ...], str] = {
    ("eurusprm",): "it is implicit, its reward being how much likelier it finds each token than the model it was "
    "trained from (Qwen2.5-Math-7B-Instruct), so that one checkpoint alone gives none",
    ("implicitprm",): "it is implicit, its reward being how much likelier it finds each token than the model it was "
    "trained from, so that one checkpoint alone gives none",
    (
        "reasonflux-prm-1.5b",
    ): "its reward head is a pickle beside the weights (reward_head.pt) and gives a whole answer "
    "one reward; ReasonFlux-PRM-7B rewards steps",
    ("reasonflux-prm-qwen",): "it is a policy that was trained by ReasonFlux-PRM, not a reward model",
    ("qwen-prm800k",): "no public text says at which token VersaPRM's Qwen model is read; Qwen2.5-Math-7B-PRM800K is",
}
"""Published models that are known and cannot be read, by words of their names, and why; `--prm-codec` is taken all the
same."""


def family(name: str) -> type[PrmFamily]:
    """The codec's class of a family."""
    named: type[PrmFamily] = load(PRM_FAMILIES[name])
    return named


def codec_of(config: PrmConfig, tokenizer: Tokenizer, tree_tokenizer: Tokenizer | None = None) -> PrmCodec:
    """The codec that a configuration describes.

    Args:
        config: as `detect_prm` found it.
        tokenizer: the reward model's own.
        tree_tokenizer: whose ids stand in the trees; None for one that is taken to be another.

    Raises:
        ConfigError: the tokenizer does not have what the family reads.
    """
    same = tree_tokenizer is not None and tokenizer.fingerprint == tree_tokenizer.fingerprint
    return family(config.codec)(tokenizer, replace(config, shares_ids=config.shares_ids and same))


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
    if codec != "auto" and codec not in PRM_FAMILIES:
        raise ConfigError(f"unknown reward model codec {codec!r}; known: auto, {', '.join(PRM_FAMILIES)}")
    checkpoint = read_checkpoint(name, folder)
    config = _declared(checkpoint, folder) if codec == "auto" or _names(checkpoint) == codec else PrmConfig(codec)
    if config is None:
        config = _recognised(checkpoint)
    elif codec != "auto":
        config = replace(config, codec=codec, reason="it was asked for")
    _check(checkpoint, config)
    if "bos_token" in (checkpoint.prm_config or {}):
        return config
    writes_bos = checkpoint.adds_bos or family(config.codec).writes_bos
    return replace(config, bos_token=checkpoint.bos_token if writes_bos else "")


def _names(checkpoint: Checkpoint) -> object:
    return None if checkpoint.prm_config is None else checkpoint.prm_config.get("codec", "label-tokens")


def _declared(checkpoint: Checkpoint, folder: Path) -> PrmConfig | None:
    """What `prm_config.json` says; None where there is none."""
    content = checkpoint.prm_config
    if content is None:
        return None
    where = folder / CONFIG_FILE
    config = PrmConfig.from_file(content, where)
    if config.codec not in PRM_FAMILIES:
        raise ConfigError(f"{where}: unknown codec {config.codec!r}; known: {', '.join(PRM_FAMILIES)}")
    return config


def _recognised(checkpoint: Checkpoint) -> PrmConfig:
    """The first family that knows it, by the name that its user gave it or else by the one it was saved under."""
    for words, why in _REFUSED.items():
        if checkpoint.called(words):
            raise ConfigError(f"reward model {checkpoint.name!r} is not read here: {why}")
    for named in (checkpoint, replace(checkpoint, name=checkpoint.origin)):
        for name in PRM_FAMILIES:
            if reason := family(name).recognise(named):
                return PrmConfig(name, reason)
    if any("ForCausalLM" not in architecture for architecture in checkpoint.architectures):
        raise ConfigError(
            f"reward model {checkpoint.name!r} is a {checkpoint.kind} without its head: no score.* or v_head.* tensor"
        )
    raise ConfigError(
        f"{checkpoint.name!r} is no reward model that can be recognised: a {checkpoint.kind} without {CONFIG_FILE}, "
        f"without a reward head, and of no known name; if it is one, say how it is read by --prm-codec: "
        f"{', '.join(PRM_FAMILIES)}"
    )


def _check(checkpoint: Checkpoint, config: PrmConfig) -> None:
    """Refuse a codec that reads what the weights do not hold."""
    outputs = family(config.codec).outputs
    if outputs and not checkpoint.head:
        raise ConfigError(
            f"codec {config.codec} reads a reward head and {checkpoint.name!r} has none: no score.* or v_head.* tensor"
        )
    if not outputs and checkpoint.head:
        raise ConfigError(
            f"codec {config.codec} reads label tokens and {checkpoint.name!r} has a reward head "
            f"({checkpoint.head_names}); leave --prm-codec at auto"
        )
    if outputs and checkpoint.num_head_outputs not in outputs:
        raise ConfigError(
            f"codec {config.codec} reads {' or '.join(map(str, outputs))} outputs and the reward head of "
            f"{checkpoint.name!r} has {checkpoint.num_head_outputs}"
        )
