"""Hidden states of a model's last forward: what its language-model head read, and those of layers asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from search.errors import EngineError

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
