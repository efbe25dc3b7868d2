"""Linear layers whose weights stay packed, four bits each, as a .gguf file has them; by torch's own CPU kernel.

Q4_0, Q4_1 and Q4_K all say w = s (q - 8) + z, with q in 0..15 and one s and z for 32 neighbours in a row, which is what
the kernel takes. q is kept as it is; s and z are rounded to bfloat16, where a dequantised weight would be.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

GROUP = 32
"""Neighbours that share scale and zero."""

BLOCK_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q4_K": 144}
"""Kinds that can be kept packed, and the bytes of a block."""

_MANY_ROWS = 160
"""From here on weights are taken out of their packing, some rows at a time, for a matrix product in bfloat16. Measured
on one core (Xeon with AMX, 8960 x 1536): the kernel takes 1 ms for one row and 0.33 ms more for each further one;
taking all weights out takes 52 ms, the product after it 2 to 40 ms (1,024 rows)."""

_AT_ONCE = 256
"""Output features taken into or out of their packing at a time, which the processor's caches hold."""

Bytes = NDArray[np.uint8]


class PackedLinear(nn.Module):
    """`nn.Linear` over packed weights, 0.625 bytes each.

    Attributes:
        in_features, out_features: as of `nn.Linear`.
        digits: (out_features, in_features / 2) two q in a byte, in the processor's own order.
        scales: (in_features / 32, out_features, 2) s and z of each group.
        bias: (out_features,); None without one.
    """

    digits: Tensor
    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int) -> None:
        """Make room: `in_features` are a multiple of 32, `out_features` one of 16."""
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("digits", torch.empty((out_features, in_features // 2), dtype=torch.uint8))
        scales = torch.empty((in_features // GROUP, out_features, 2), dtype=torch.bfloat16)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.register_parameter("bias", None)

    def fill(self, kind: str, data: Bytes) -> PackedLinear:
        """Take the weights from GGUF blocks, (out_features, bytes of a row), and return this layer."""
        # Some features at a time: what the whole needs for a moment would stay with the process as holes in its memory.
        for first in range(0, self.out_features, _AT_ONCE):
            digits, scales = read_blocks(kind, data[first : first + _AT_ONCE])
            self.digits[first : first + _AT_ONCE] = _pack(digits)
            self.scales.data[:, first : first + _AT_ONCE] = scales.transpose(0, 1)
        return self

    @property
    def num_parameters(self) -> int:
        """Weights, without the bias."""
        return self.in_features * self.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        rows = x.reshape(-1, self.in_features)
        block = _block_features()
        if len(rows) < _MANY_ROWS or not block or self.out_features % block:
            kernel: Any = torch.ops.aten._weight_int4pack_mm_for_cpu
            found: Tensor = kernel(rows.contiguous(), self.digits, GROUP, self.scales.to(rows.dtype))
        else:
            found = torch.cat([linear(rows, weights) for weights in self._unpacked(rows.dtype, block)], -1)
        found = found.view(*x.shape[:-1], self.out_features)
        return found if self.bias is None else found + self.bias

    def _unpacked(self, dtype: torch.dtype, block: int) -> Iterator[Tensor]:
        """The weights, (_AT_ONCE, in_features) at a time."""
        for first in range(0, self.out_features, _AT_ONCE):
            digits = _unpack(self.digits[first : first + _AT_ONCE], block).view(torch.int8).sub_(8)
            groups = digits.view(len(digits), -1, GROUP).to(dtype)
            scales = self.scales[:, first : first + _AT_ONCE].to(dtype).transpose(0, 1).contiguous()
            s, z = scales.unsqueeze(-1).unbind(2)
            yield torch.addcmul(z, groups, s).reshape(len(digits), -1)


def num_parameters(network: nn.Module) -> int:
    """Weights of a network, packed ones too."""
    packed = [module for module in network.modules() if isinstance(module, PackedLinear)]
    return sum(p.numel() for p in network.parameters()) + sum(m.num_parameters - m.scales.numel() for m in packed)


def num_packed(network: nn.Module) -> int:
    """Weights that are kept packed."""
    return sum(module.num_parameters for module in network.modules() if isinstance(module, PackedLinear))


def read_blocks(kind: str, data: Bytes) -> tuple[Tensor, Tensor]:
    """Rows of GGUF blocks, as they lie in the file, in the kernel's terms.

    Args:
        kind: one of `BLOCK_BYTES`.
        data: (num_rows, bytes of a row).

    Returns:
        q, (num_rows, num_columns), and s and z, (num_rows, num_columns / 32, 2) in float32.
    """
    blocks = data.reshape(len(data), -1, BLOCK_BYTES[kind])
    with np.errstate(all="ignore"):  # what is no finite number is found later, by the tensor's name
        digits, s, least = (_read_q4_k if kind == "Q4_K" else _read_q4)(blocks, kind)
        scales = np.stack((s, 8 * s + least), -1)
    return torch.from_numpy(digits.reshape(len(data), -1)), torch.from_numpy(scales.reshape(len(data), -1, 2))


def _read_q4(blocks: Bytes, kind: str) -> tuple[Bytes, NDArray[Any], NDArray[Any]]:
    """Q4_0: d, and w = d (q - 8); Q4_1: d and m, and w = d q + m. The first 16 q are low halves of bytes."""
    if kind == "Q4_0":
        d, q = _halves(blocks[..., :2])[..., 0], blocks[..., 2:]
        least = -8 * d
    else:
        d, least = np.moveaxis(_halves(blocks[..., :4]), -1, 0)
        q = blocks[..., 4:]
    return np.concatenate((q & 15, q >> 4), -1), d, least


def _read_q4_k(blocks: Bytes, kind: str) -> tuple[Bytes, NDArray[Any], NDArray[Any]]:
    """Eight groups: w = d a q - e b, with d and e of the block, a and b of the group, of six bits, in 12 bytes."""
    d, e = np.moveaxis(_halves(blocks[..., :4]), -1, 0)[..., None]
    first, second, third = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    a = np.concatenate((first & 63, third & 15 | first >> 6 << 4), -1)
    b = np.concatenate((second & 63, third >> 4 | second >> 6 << 4), -1)
    q = blocks[..., 16:].reshape(*blocks.shape[:2], 4, GROUP)
    return np.stack((q & 15, q >> 4), -2), d * a, -e * b


def _halves(data: Bytes) -> NDArray[Any]:
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _pack(digits: Tensor) -> Tensor:
    kernel: Any = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    packed: Tensor = kernel(digits.to(torch.int32), 1)
    return packed


def _unpack(packed: Tensor, block: int) -> Tensor:
    """Digits in order, where the first half of each block of features lies in the low halves of bytes."""
    num_features, num_bytes = packed.shape
    halves = packed.view(num_features // block, 2 * num_bytes, block // 2).transpose(1, 2)
    return torch.stack((halves & 15, halves >> 4), 1).view(num_features, 2 * num_bytes)


@cache
def _block_features() -> int:
    """How many features the kernel packs together, found by trying, as it depends on the processor; 0: otherwise."""
    digits = torch.randint(16, (64, GROUP), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = _pack(digits)
    return next((block for block in (64, 32) if bool((_unpack(packed, block) == digits).all())), 0)
