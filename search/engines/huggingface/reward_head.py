"""Reward heads: what a checkpoint has beside, or in place of, a language-model head.

A checkpoint with a head is loaded as the causal decoder it is built on; its head is made from its own tensors, by
their names. No code that comes with a checkpoint is needed for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from search.errors import ConfigError

PREFIXES = ("score.", "v_head.")
WRAPPER = "pretrained_model."
"""What wrappers put before the names of the model that they wrap."""


def head_names(names: Iterable[str]) -> list[str]:
    """Those names of tensors that are of a reward head."""
    return sorted(name for name in names if name.removeprefix(WRAPPER).startswith(PREFIXES))


def read_head(model: str, files: Iterable[Path]) -> nn.Module | None:
    """A checkpoint's reward head, in the precision it is stored in; None without one.

    Raises:
        ConfigError: a head whose layout is not known.
    """
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in head_names(opened.keys()):
                tensors[name.removeprefix(WRAPPER)] = opened.get_tensor(name)
    return build_head(model, tensors) if tensors else None


def build_head(model: str, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The head that tensors of these names make up: `score` or `v_head.summary` linear, or `score.0`, ReLU, `score.2`.

    Raises:
        ConfigError: another layout.
    """
    names = {name.rpartition(".")[0] for name in tensors}
    if names in ({"score"}, {"v_head.summary"}):
        return _linear(tensors, names.pop())
    if names == {"score.0", "score.2"}:
        return nn.Sequential(_linear(tensors, "score.0"), nn.ReLU(), _linear(tensors, "score.2"))
    raise ConfigError(
        f"model {model!r}: its reward head ({', '.join(sorted(tensors))}) is of no known layout; known: score, "
        "score.0 and score.2, v_head.summary"
    )


def _linear(tensors: Mapping[str, Tensor], name: str) -> nn.Linear:
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer
