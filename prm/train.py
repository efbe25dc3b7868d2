"""`ets prm train`: any causal language model becomes a reward model that says a label token after each step.

A plain loop: the two labels' logits at each step's last token, cross-entropy, AdamW with warm-up and linear decay. The
ids are made by the codec that later reads the model, so training and search see the same text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prm.codec import PrmCodec
from prm.labels import LabelledSolution
from search.errors import ConfigError, DataError
from search.support.training import Optimisation, accumulate, adamw, load_state, optimise, save_state
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step

if TYPE_CHECKING:
    import torch

STATE_FILE = "training_state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(Optimisation):
    """How a reward model is trained; `max_tokens` cuts a solution after its last step that fits.

    Attributes:
        batch_size: solutions in one forward.
        num_accumulated: forwards in one step of the optimiser.
        max_steps: stop after so many steps of the optimiser; None for all.
        save_every: steps between two saves of what `resume` goes on from.
    """

    batch_size: int = 8
    num_accumulated: int = 1
    max_steps: int | None = None
    save_every: int = 200


class Encoded(NamedTuple):
    """A solution as ids.

    Attributes:
        ids: question and steps.
        reads: position of each step's last token.
        labels: whether each step is right; None for one that is not trained on.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    labels: tuple[bool | None, ...]


class TrainEvent(NamedTuple):
    """A step of the optimiser: its number, how many there are, and its loss."""

    step: int
    num_steps: int
    loss: float


class TrainResult(NamedTuple):
    """What a training came to.

    Attributes:
        losses: one for each step of the optimiser.
        num_solutions: solutions trained on.
        num_left_out: solutions of which no labelled step fits into `max_tokens`.
    """

    losses: list[float]
    num_solutions: int
    num_left_out: int


def encode_solution(codec: PrmCodec, solution: LabelledSolution, max_tokens: int) -> Encoded:
    """A solution as the codec reads it, cut after its last step that fits into `max_tokens`."""
    tree = SearchTree("train", (0,), solution.question, solution.question)
    ids = list(codec.prompt_ids(tree))
    reads: list[int] = []
    node = ROOT
    for text in solution.steps:
        node = tree.add_child(node)
        tree.write(Step(node, (), text, FinishReason.STOP, "data"))
        ids += codec.step_ids(tree, tree[node])
        if len(ids) > max_tokens:
            break
        reads.append(len(ids) - 1)
    end = reads[-1] + 1 if reads else 0
    return Encoded(tuple(ids[:end]), tuple(reads), solution.labels[: len(reads)])


def train(
    network: Any,
    codec: PrmCodec,
    solutions: Sequence[LabelledSolution],
    settings: TrainSettings,
    folder: Path,
    *,
    key: str = "",
    resume: bool = False,
    report: Callable[[TrainEvent], None] = lambda event: None,
) -> TrainResult:
    """Train a causal model in place.

    Args:
        network: a transformers causal model in float32, on its device.
        codec: one that reads label tokens.
        solutions: the data.
        settings: how.
        folder: where the state to resume from is kept.
        key: what else decides the result (the base, the data); a state of another key is not gone on with.
        resume: go on from the state in `folder` where there is one.
        report: told of every step.

    Raises:
        DataError: no labelled step fits into `max_tokens`, or the state is broken.
        ConfigError: the codec reads a head, or the state is of another training.
    """
    import torch

    if codec.reads != "labels":
        raise ConfigError(f"codec {codec.name} reads a reward head; training makes models that say label tokens")
    encoded = [encode_solution(codec, solution, settings.max_tokens) for solution in solutions]
    data = [example for example in encoded if any(label is not None for label in example.labels)]
    if not data:
        raise DataError(f"no labelled step fits into {settings.max_tokens} tokens; raise --max-tokens")
    torch.manual_seed(settings.seed)
    batches = list(_batches(len(data), settings))
    optimiser = adamw(list(network.parameters()), settings)
    state_file, full_key = folder / STATE_FILE, f"{key} {asdict(settings)} {codec.name}"
    losses: list[float] = []

    def take_up(state: Mapping[str, Any]) -> None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        losses.extend(state["losses"])

    if resume:
        load_state(state_file, full_key, take_up)

    def backward(batch: list[int]) -> float:
        return _backward(network, codec, [data[at] for at in batch], settings)

    network.train()
    for step, loss in optimise(optimiser, batches, backward, settings, len(losses)):
        losses.append(loss)
        report(TrainEvent(step, len(batches), loss))
        if step % settings.save_every == 0 and step < len(batches):
            kept = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "losses": losses}
            save_state(state_file, full_key, kept)
    network.eval()
    return TrainResult(losses, len(data), len(encoded) - len(data))


def _batches(num_data: int, settings: TrainSettings) -> Iterator[list[int]]:
    """Which solutions each step of the optimiser takes: every epoch in an order of its own."""
    size = settings.batch_size * settings.num_accumulated
    num_left = settings.max_steps
    for epoch in range(settings.num_epochs):
        order = list(range(num_data))
        random.Random(f"{settings.seed}/{epoch}").shuffle(order)
        for at in range(0, num_data, size):
            if num_left == 0:
                return
            num_left = None if num_left is None else num_left - 1
            yield order[at : at + size]


def _backward(network: Any, codec: PrmCodec, batch: list[Encoded], settings: TrainSettings) -> float:
    """Add one batch's gradients; its loss, the mean over its labelled steps however it is split into forwards."""
    import torch

    total = sum(label is not None for example in batch for label in example.labels)
    device = next(network.parameters()).device

    def loss(part: Sequence[Encoded]) -> torch.Tensor:
        wanted = [label for example in part for label in example.labels]
        told = [number for number, label in enumerate(wanted) if label is not None]
        classes = torch.tensor([0 if wanted[number] else 1 for number in told], device=device)
        logits = label_logits(network, codec, part)[told].float()
        return torch.nn.functional.cross_entropy(logits, classes, reduction="sum") / total

    size = settings.batch_size
    return accumulate((batch[at : at + size] for at in range(0, len(batch), size)), loss, device, settings)


def label_logits(network: Any, codec: PrmCodec, batch: Sequence[Encoded]) -> torch.Tensor:
    """(num_steps of all solutions, 2) logits of the good and the bad label at each step's last token."""
    import inspect

    import torch

    device = next(network.parameters()).device
    ids = torch.zeros((len(batch), max(len(example.ids) for example in batch)), dtype=torch.long)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
    # Padding stands to the right, where a causal model does not look. Logits are wide: only those that are read.
    kept = sorted({read for example in batch for read in example.reads})
    place = {position: number for number, position in enumerate(kept)}
    arguments: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(network.forward).parameters:
        arguments["logits_to_keep"] = torch.tensor(kept, device=device)
    logits: torch.Tensor = network(input_ids=ids.to(device), use_cache=False, **arguments).logits
    rows = [row for row, example in enumerate(batch) for _ in example.reads]
    columns = [place[read] if arguments else read for example in batch for read in example.reads]
    return logits[rows, columns][:, list(codec.labels)]
