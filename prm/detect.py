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
    return family(config.codec).configured(tokenizer, config, same)


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
    found = read_checkpoint(name, folder)
    config = _declared(found, folder) if codec == "auto" or _names(found) == codec else PrmConfig(codec)
    if config is None:
        config = _recognised(found)
    elif codec != "auto":
        config = replace(config, codec=codec, reason="it was asked for")
    _check(found, config)
    if "bos_token" in (found.prm_config or {}):
        return config
    writes_bos = found.adds_bos or family(config.codec).writes_bos
    return replace(config, bos_token=found.bos_token if writes_bos else "")


def _names(found: Checkpoint) -> object:
    return None if found.prm_config is None else found.prm_config.get("codec", "label-tokens")


def _declared(found: Checkpoint, folder: Path) -> PrmConfig | None:
    """What `prm_config.json` says; None where there is none."""
    content = found.prm_config
    if content is None:
        return None
    where = folder / CONFIG_FILE
    config = PrmConfig.from_file(content, where)
    if config.codec not in PRM_FAMILIES:
        raise ConfigError(f"{where}: unknown codec {config.codec!r}; known: {', '.join(PRM_FAMILIES)}")
    return config


def _recognised(found: Checkpoint) -> PrmConfig:
    """The first family that knows it, by the name that its user gave it or else by the one it was saved under."""
    for words, why in _REFUSED.items():
        if found.called(words):
            raise ConfigError(f"reward model {found.name!r} is not read here: {why}")
    for named in (found, replace(found, name=found.origin)):
        for name in PRM_FAMILIES:
            if reason := family(name).recognise(named):
                return PrmConfig(name, reason)
    if any("ForCausalLM" not in one for one in found.architectures):
        raise ConfigError(
            f"reward model {found.name!r} is a {found.kind} without its head: no score.* or v_head.* tensor"
        )
    raise ConfigError(
        f"{found.name!r} is no reward model that can be recognised: a {found.kind} without {CONFIG_FILE}, without a "
        f"reward head, and of no known name; if it is one, say how it is read by --prm-codec: {', '.join(PRM_FAMILIES)}"
    )


def _check(found: Checkpoint, config: PrmConfig) -> None:
    """Refuse a codec that reads what the weights do not hold."""
    outputs = family(config.codec).outputs
    if outputs and not found.head:
        raise ConfigError(
            f"codec {config.codec} reads a reward head and {found.name!r} has none: no score.* or v_head.* tensor"
        )
    if not outputs and found.head:
        raise ConfigError(
            f"codec {config.codec} reads label tokens and {found.name!r} has a reward head ({found.head_names}); "
            "leave --prm-codec at auto"
        )
    if outputs and found.num_head_outputs not in outputs:
        raise ConfigError(
            f"codec {config.codec} reads {' or '.join(map(str, outputs))} outputs and the reward head of "
            f"{found.name!r} has {found.num_head_outputs}"
        )
