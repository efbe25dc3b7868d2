"""The mini models: transformers' Llama with attention biases, and a forward of their own for training and measuring.

Attention is by plain matmuls (transformers' "eager"), which at this size is the fastest on a CPU. A batch is padded on
the right in training and on the left in sampling.

Llama rather than Qwen2, which differs by one bias alone: for Qwen2 checkpoints transformers 5 puts its own tokenizer in
the place of ours, whatever ``tokenizer.json`` says. Llama 3's own files are a Llama with a fast tokenizer, as ours are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, LlamaConfig, LlamaForCausalLM

from search.mini.tokenizer import EOS_TOKEN, PAD_TOKEN, token_id

ROPE_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a mini model.

    Attributes:
        vocab_size: number of tokens.
        num_layers: decoder layers.
        dim: width of the residual stream.
        num_heads: attention heads, each ``dim // num_heads`` wide.
        mlp_dim: inner width of the feed-forward part.
    """

    vocab_size: int
    num_layers: int
    dim: int
    num_heads: int
    mlp_dim: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    def config(self) -> dict[str, Any]:
        """What ``config.json`` says of a model of this shape."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.dim,
            "intermediate_size": self.mlp_dim,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_heads,
            "hidden_act": "silu",
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
            "rope_theta": ROPE_THETA,
            "tie_word_embeddings": False,
            "attention_bias": True,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "bos_token_id": None,
            "eos_token_id": token_id(EOS_TOKEN),
            "pad_token_id": token_id(PAD_TOKEN),
            "torch_dtype": "bfloat16",
        }


class MiniModel(LlamaForCausalLM):  # type: ignore[no-untyped-call]
    """A decoder and its head, untied."""

    def __init__(self, shape: ModelShape) -> None:
        config = {**shape.config(), "attn_implementation": "eager"}
        super().__init__(LlamaConfig(**config))  # type: ignore[no-untyped-call]
        self.shape = shape
        places = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        self.model.rotary_emb.inv_freq = ROPE_THETA**-places  # to the last bit as the shipped models were trained

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        logit_rows: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits in float32.

        Args:
            ids: (num_rows, length).
            positions: (num_rows, length); 0, 1, 2, ... where not given.
            mask: what is added to attention scores, broadcastable to (num_rows, heads, length, total length); causal
                where not given.
            cache: keys and values of earlier positions; this call's are appended.
            logit_rows: flat positions (row * length + column) whose logits are wanted; all where not given.

        Returns:
            (num_rows, length, vocab_size), or (num_wanted, vocab_size) with ``logit_rows``.
        """
        length = ids.shape[1]
        if positions is None:
            positions = torch.arange(length)[None]
        if mask is None:
            mask = torch.full((length, length), float("-inf")).triu(1)
        hidden = self.model.embed_tokens(ids)
        rotation = self.model.rotary_emb(hidden, positions)
        for layer in self.model.layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotation, past_key_values=cache)
        if logit_rows is not None:
            hidden = hidden.flatten(0, 1)[logit_rows]
        logits: Tensor = self.lm_head(self.model.norm(hidden))
        return logits.float()


def initialise(model: MiniModel, seed: int) -> None:
    """Fill a model with random weights; its first layer's heads start out looking back.

    Args:
        model: filled in place.
        seed: decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            scale = 0.5 / math.sqrt(parameter.shape[1]) if "lm_head" not in name else 0.02
            scale = 0.5 if "embed" in name else scale
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale /= math.sqrt(2 * model.shape.num_layers)
            nn.init.normal_(parameter, 0.0, scale, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    look_back(model, 0)


def look_back(model: MiniModel, number: int, size: float = 5.0) -> None:
    """Set the q and k biases of a layer so that its heads start out looking 1, 2, 3, ... tokens back.

    Turned by the rotary angles, the biases' product peaks at one distance, whatever the content.

    Args:
        model: changed in place.
        number: the layer.
        size: of the biases.
    """
    layer = model.model.layers[number]
    half = model.shape.head_dim // 2
    frequencies = ROPE_THETA ** (-torch.arange(half).float() / half)
    strong = (frequencies > 0.1).float() * size
    with torch.no_grad():
        for head in range(model.shape.num_heads):
            start = head * model.shape.head_dim
            turn = -frequencies * (head + 1)
            layer.self_attn.q_proj.bias[start : start + half] = strong * turn.cos()
            layer.self_attn.q_proj.bias[start + half : start + 2 * half] = strong * turn.sin()
            layer.self_attn.k_proj.bias[start : start + half] = strong


def grown(model: MiniModel, num_layers: int, seed: int) -> MiniModel:
    """A copy with more layers on top, which change nothing yet.

    The first of them looks back, so that it sees at each token what the layers below expected there.

    Args:
        model: left as it is.
        num_layers: layers of the copy, at least as many as the model has.
        seed: decides the new layers' weights.
    """
    shape = replace(model.shape, num_layers=num_layers)
    larger = MiniModel(shape)
    initialise(larger, seed)
    larger.load_state_dict(model.state_dict(), strict=False)
    fresh = range(model.shape.num_layers, num_layers)
    with torch.no_grad():
        for number in fresh:
            layer = larger.model.layers[number]
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    if fresh:
        look_back(larger, fresh[0])
    return larger
