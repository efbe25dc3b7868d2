"""A small Llama-form decoder for training and for measuring, with the parameter names of ``transformers``.

It computes what ``transformers.LlamaForCausalLM`` computes with attention biases, with plain-matmul attention, which at
this size is the faster on a CPU. A batch is padded on the right in training and on the left in sampling.

Llama rather than Qwen2, which differs by one bias alone: for Qwen2 checkpoints transformers 5 puts its own tokenizer in
the place of ours, whatever ``tokenizer.json`` says. Llama 3's own files are a Llama with a fast tokenizer, as ours are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

ROPE_THETA = 10_000.0
NORM_EPSILON = 1e-6
MAX_POSITIONS = 512


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


@dataclass(slots=True)
class KVCache:
    """Keys and values of a batch, one tensor of (num_rows, num_heads, capacity, head_dim) a layer.

    Attributes:
        keys: by layer.
        values: by layer.
        length: positions filled.
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: int = 0

    @classmethod
    def empty(cls, shape: ModelShape, num_rows: int, capacity: int) -> KVCache:
        """Room for a batch of rows."""
        size = (num_rows, shape.num_heads, capacity, shape.head_dim)
        keys = [torch.zeros(size) for _ in range(shape.num_layers)]
        return cls(keys, [torch.zeros(size) for _ in range(shape.num_layers)])

    def select(self, rows: Tensor) -> None:
        """Keep some rows only, in the order given; (num_kept,) of row numbers."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = hidden.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + NORM_EPSILON)
        return self.weight * (wide * scale)


class Attention(nn.Module):
    """Multi-head attention with rotary positions and biases."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.num_heads, self.head_dim = shape.num_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.dim, shape.dim)
        self.k_proj = nn.Linear(shape.dim, shape.dim)
        self.v_proj = nn.Linear(shape.dim, shape.dim)
        self.o_proj = nn.Linear(shape.dim, shape.dim)

    def forward(
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, cache: KVCache | None, layer: int
    ) -> Tensor:
        """Attend; (num_rows, length, dim) to the same. Appends to the cache where there is one."""
        rows, length, _ = hidden.shape
        size = (rows, length, self.num_heads, self.head_dim)
        query = _rotate(self.q_proj(hidden).view(size).transpose(1, 2), rotation)
        key = _rotate(self.k_proj(hidden).view(size).transpose(1, 2), rotation)
        value = self.v_proj(hidden).view(size).transpose(1, 2)
        if cache is not None:
            end = cache.length + length
            cache.keys[layer][:, :, cache.length : end] = key
            cache.values[layer][:, :, cache.length : end] = value
            key, value = cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]
        scores = torch.matmul(query, key.transpose(2, 3)) * (1.0 / math.sqrt(self.head_dim))
        weights = torch.softmax(scores.float() + mask, dim=-1).to(value.dtype)
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(rows, length, -1)
        projected: Tensor = self.o_proj(mixed)
        return projected


class MLP(nn.Module):
    """Gated feed-forward part."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.dim, shape.mlp_dim, bias=False)
        self.up_proj = nn.Linear(shape.dim, shape.mlp_dim, bias=False)
        self.down_proj = nn.Linear(shape.mlp_dim, shape.dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        mapped: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return mapped


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.dim)
        self.post_attention_layernorm = RMSNorm(shape.dim)


class Decoder(nn.Module):
    """Embedding, layers and final norm: ``model`` in the checkpoint."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.dim)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.dim)


class MiniModel(nn.Module):
    """A decoder and its head, untied; parameter names are those of ``LlamaForCausalLM``."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        self.lm_head = nn.Linear(shape.dim, shape.vocab_size, bias=False)
        frequencies = ROPE_THETA ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angles = torch.arange(MAX_POSITIONS).float()[:, None] * frequencies
        both = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosines", both.cos(), persistent=False)
        self.register_buffer("sines", both.sin(), persistent=False)

    def forward(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
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
        cosines, sines = self.get_buffer("cosines"), self.get_buffer("sines")
        if positions is None:
            rotation = (cosines[None, None, :length], sines[None, None, :length])
        else:
            rotation = (cosines[positions][:, None], sines[positions][:, None])
        if mask is None:
            mask = torch.full((length, length), float("-inf")).triu(1)
        hidden = self.model.embed_tokens(ids)
        for number, module in enumerate(self.model.layers):
            assert isinstance(module, Layer)
            hidden = hidden + module.self_attn(module.input_layernorm(hidden), rotation, mask, cache, number)
            hidden = hidden + module.mlp(module.post_attention_layernorm(hidden))
        if cache is not None:
            cache.length += length
        if logit_rows is not None:
            hidden = hidden.flatten(0, 1)[logit_rows]
        logits: Tensor = self.lm_head(self.model.norm(hidden))
        return logits.float()

    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())


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
    assert isinstance(layer, Layer)
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
            assert isinstance(layer, Layer)
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    if fresh:
        look_back(larger, fresh[0])
    return larger


def _rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosines, sines = rotation
    half = heads.shape[-1] // 2
    turned = torch.cat([-heads[..., half:], heads[..., :half]], dim=-1)
    return (heads * cosines + turned * sines).to(heads.dtype)
