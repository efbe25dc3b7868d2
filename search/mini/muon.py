"""Muon for a model's matrices beside Adam for all else, on a schedule.

Muon (Keller Jordan and others, 2024): momentum, made orthogonal by five Newton-Schulz iterations. At this size it
learns from far fewer tokens than Adam alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(gradient: Tensor, num_iterations: int = 5) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1, computed in bf16.

    Args:
        gradient: (num_rows, num_columns), or a stack (num_matrices, num_rows, num_columns).
        num_iterations: Newton-Schulz iterations.
    """
    a, b, c = _COEFFICIENTS
    flip = gradient.shape[-2] > gradient.shape[-1]
    matrix: Tensor = gradient.mT if flip else gradient
    matrix = (matrix / (torch.linalg.matrix_norm(matrix, keepdim=True) + 1e-7)).bfloat16()
    for _ in range(num_iterations):
        square = matrix @ matrix.mT
        matrix = a * matrix + (b * square + c * square @ square) @ matrix
    return (matrix.mT if flip else matrix).to(gradient.dtype)


@dataclass(frozen=True, slots=True)
class OptimiserSettings:
    """Learning rates and schedule.

    Attributes:
        muon_rate: of the decoder's matrices.
        adam_rate: of embeddings, head, norms and biases.
        momentum: Muon's.
        decay_share: the last share of training in which both rates fall linearly to a twentieth.
        warmup_steps: steps over which both rise from zero.
    """

    muon_rate: float
    adam_rate: float
    momentum: float = 0.95
    decay_share: float = 0.6
    warmup_steps: int = 20


class MuonAdam:
    """The two optimisers of one model.

    Matrices of one shape are orthogonalised as one stack, which saves most of Muon's time on a CPU.
    """

    def __init__(self, model: nn.Module, settings: OptimiserSettings) -> None:
        self.settings = settings
        named = list(model.named_parameters())
        self.matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name and "head" not in name]
        chosen = {id(parameter) for parameter in self.matrices}
        rest = [parameter for _, parameter in named if id(parameter) not in chosen]
        self.adam = torch.optim.Adam(rest, lr=settings.adam_rate, betas=(0.9, 0.98), eps=1e-9)
        self.momenta = [torch.zeros_like(matrix) for matrix in self.matrices]
        self.groups: dict[tuple[int, ...], list[int]] = {}
        for number, matrix in enumerate(self.matrices):
            self.groups.setdefault(tuple(matrix.shape), []).append(number)

    def scale(self, step: int, num_steps: int) -> float:
        """The share of the full rates at a step, from 0 to ``num_steps - 1``."""
        warm = min(1.0, (step + 1) / max(1, self.settings.warmup_steps))
        left = (num_steps - step) / max(1.0, num_steps * self.settings.decay_share)
        return warm * max(0.05, min(1.0, left))

    @torch.no_grad()
    def step(self, step: int, num_steps: int) -> None:
        """Update the weights from their gradients and clear these."""
        scale = self.scale(step, num_steps)
        for group in self.adam.param_groups:
            group["lr"] = self.settings.adam_rate * scale
        self.adam.step()
        for numbers in self.groups.values():
            updates = []
            for number in numbers:
                gradient = self.matrices[number].grad
                if gradient is None:
                    gradient = torch.zeros_like(self.matrices[number])
                self.momenta[number].lerp_(gradient, 1 - self.settings.momentum)
                updates.append(gradient.lerp(self.momenta[number], self.settings.momentum))
            stack = orthogonalise(torch.stack(updates))
            rows, columns = stack.shape[-2:]
            rate = self.settings.muon_rate * scale * max(1.0, rows / columns) ** 0.5
            for number, update in zip(numbers, stack, strict=True):
                self.matrices[number].add_(update, alpha=-rate)
        for parameter in [*self.matrices, *self.adam.param_groups[0]["params"]]:
            parameter.grad = None

    def state(self) -> dict[str, object]:
        """All that a resumed training needs."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load_state(self, state: dict[str, object]) -> None:
        """Take up a saved state, in place."""
        momenta, adam = state["momenta"], state["adam"]
        assert isinstance(momenta, list)
        assert isinstance(adam, dict)
        self.momenta = momenta
        self.adam.load_state_dict(adam)
