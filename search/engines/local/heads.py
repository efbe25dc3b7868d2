"""Reward heads: what a checkpoint has beside, or in place of, a language-model head; and where hidden states show.

A checkpoint with a head is loaded as the causal decoder it is built on; its head is made from its own tensors, by
their names. No code that comes with a checkpoint is needed for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.errors import ConfigError, EngineError

PREFIXES = ("score.", "v_head.")
WRAPPER = "pretrained_model."
"""What wrappers put before the names of the model that they wrap."""


FINAL = 0
"""Stands for the last layer: its hidden states after the final norm, which the language-model head reads."""


class HiddenTap:
    """Keeps hidden states of a model's last forward: what the language-model head read, and those of wanted layers.

    Attributes:
        last: (1, num_tokens, dim) by layer, counted from 1, with `FINAL` for the last; views of the forward's own.
    """

    def __init__(self, model: Any) -> None:
        self.last: dict[int, Tensor] = {FINAL: torch.zeros((1, 0, 1))}
        self._layers = _decoder_layers(model)
        model.get_output_embeddings().register_forward_pre_hook(self._take_final)

    def want(self, layers: Iterable[int]) -> None:
        """Keep these layers' states too, from the next forward on.

        Raises:
            EngineError: there is no such layer.
        """
        for layer in layers:
            if layer != FINAL and layer not in self.last:
                if not 1 <= layer < len(self._layers):
                    raise EngineError(f"there is no layer {layer}: this model has {len(self._layers)}")
                self.last[layer] = self.last[FINAL][:, :0]
                self._layers[layer - 1].register_forward_hook(partial(self._take, layer))

    def _take_final(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.last[FINAL] = inputs[0]

    def _take(self, layer: int, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.last[layer] = output[0] if isinstance(output, tuple) else output


def _decoder_layers(model: Any) -> Sequence[nn.Module]:
    """A decoder's layers: the first list of modules that has as many as its configuration says."""
    number = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", 0)
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((list(found) for found in lists if len(found) == number), ())


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
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
