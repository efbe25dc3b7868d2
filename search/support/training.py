"""Training: one loop over the steps of an optimiser, and one state on disk from which it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from search.errors import ConfigError, DataError, SearchError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Batch = TypeVar("Batch")
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """How weights are trained: by AdamW, over several epochs, its rate rising and then falling to 0, both linearly.

    Attributes:
        num_epochs: passes over the data.
        learning_rate: its peak.
        warmup_share: share of the steps over which it rises; it falls over the others.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this.
        max_tokens: longest text.
        seed: of everything.
        dtype: "bfloat16" computes in it over weights kept in float32.
    """

    num_epochs: int = 1
    learning_rate: float = 1e-5
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_tokens: int = 2048
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        num_warmup = max(1, round(self.warmup_share * num_steps))
        rise = (step + 1) / num_warmup
        fall = (num_steps - step) / max(1, num_steps - num_warmup)
        return self.learning_rate * min(rise, fall, 1.0)


def adamw(parameters: Sequence[nn.Parameter], settings: Optimisation) -> torch.optim.Optimizer:
    """The optimiser of these weights."""
    import torch

    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.95)
    )


def optimise(
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Batch],
    backward: Callable[[Batch], float],
    settings: Optimisation,
    first: int = 0,
) -> Iterator[tuple[int, float]]:
    """Take one step of the optimiser for each batch.

    Args:
        optimiser: of the weights, which are changed in place.
        batches: of the whole training.
        backward: adds a batch's gradients and gives its loss.
        settings: how.
        first: batches that are done already.

    Yields:
        After each step the number of steps done, and the loss of its batch.
    """
    import torch

    parameters = [weight for group in optimiser.param_groups for weight in group["params"]]
    for step in range(first, len(batches)):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step, len(batches))
        loss = backward(batches[step])
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        yield step + 1, loss


def accumulate(
    parts: Iterable[Part], loss: Callable[[Part], Tensor], device: torch.device, settings: Optimisation
) -> float:
    """Add the gradients of a batch that is split into forwards; its loss, the sum of theirs.

    Args:
        parts: what each forward takes.
        loss: of one of them, as its share of the batch's.
        device: that computes.
        settings: `dtype` is read.
    """
    import torch

    total = 0.0
    for part in parts:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
            value = loss(part)
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    return total


def save_state(file: Path, key: str, state: Mapping[str, Any]) -> None:
    """Keep what a training goes on from, whole or not at all.

    Args:
        file: where.
        key: what decides the result; a state of another key is not gone on from.
        state: tensors, numbers and texts, and collections of these.
    """
    import torch

    partial = file.with_name(file.name + ".partial")
    torch.save({**state, "key": key}, partial)
    partial.replace(file)


def load_state(file: Path, key: str, take_up: Callable[[Mapping[str, Any]], None]) -> None:
    """Hand what `save_state` kept to `take_up`; does nothing where nothing was kept.

    Raises:
        ConfigError: it is of a training with another key.
        DataError: it cannot be read, or cannot be taken up.
    """
    import torch

    if not file.is_file():
        return
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["key"] != key:
            raise ConfigError(f"{file} is of a training with other settings; give those, or another folder")
        take_up(state)
    except SearchError:
        raise
    except Exception as error:  # what a broken file makes torch raise is not to be listed
        raise DataError(f"{file} cannot be gone on from: {first_line(error)}") from None
