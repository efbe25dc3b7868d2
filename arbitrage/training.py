"""Training a learned router: a reward model's decoder with a class head at each draft step's last token.

Arbitrage (arXiv 2512.05033): label y = 1[D > 0], cross-entropy, AdamW with linear warm-up and decay, the larger class
downsampled at random. Where a checker judged the steps, its verdict may stand for the reward model's. A walk's prefix
is shared by all its drafts that were taken, so they are read in one pass.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from arbitrage.reading import Classes, Label, RouterReader, StepReader, advantage_class, estimate, num_outputs
from arbitrage.walks import Walk
from search.errors import ConfigError, DataError
from search.support.statistics import auc
from search.support.training import Optimisation, accumulate, adamw, optimise

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterTraining(Optimisation):
    """How a router is trained; texts longer than `max_tokens` are left out.

    Attributes:
        classes: two, four, or four as ordinal links.
        label: who says that escalation helps: the rewards (D > margin), or a checker (the target's step is right, the
            draft's wrong), which knows of faults that the reward model does not see; two classes alone.
        margin: what an advantage must exceed to count as a gain.
        wide: with four classes, where large gains and losses begin.
        balance: whether the larger class is downsampled at random to the smaller one's size.
        batch_size: drafts in one step of the optimiser, about.
        rows: texts in one forward.
        patience: points of the dev curve without a better AUC after which training stops.
        evals_per_epoch: points of the dev curve in one epoch.
    """

    num_epochs: int = 3
    warmup_share: float = 0.1
    classes: Classes = "2"
    label: Label = "reward"
    margin: float = 0.0
    wide: float = 0.3
    balance: bool = True
    batch_size: int = 1024
    rows: int = 32
    patience: int = 3
    evals_per_epoch: int = 2


class Text(NamedTuple):
    """Ids with the places at which drafts are judged.

    Attributes:
        ids: question and steps.
        reads: position of each judged draft's last token.
        pairs: the number of each judged pair, over all walks.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    pairs: tuple[int, ...]


class TrainPoint(NamedTuple):
    """A step of the optimiser: its number, how many there are, its loss, and the dev AUC where it was measured."""

    step: int
    num_steps: int
    loss: float
    dev_auc: float | None


class TrainOutcome(NamedTuple):
    """What a training came to.

    Attributes:
        curve: its points.
        best_step: the step whose weights were kept.
        num_pairs, num_used: pairs at hand, and those left by the balancing and the limit of tokens.
        share_positive: share of pairs that escalation helps.
    """

    curve: list[TrainPoint]
    best_step: int
    num_pairs: int
    num_used: int
    share_positive: float


class RouterModel:
    """A decoder and a class head over its last hidden states, as training and evaluation in bulk want it."""

    def __init__(self, decoder: Any, head: nn.Module, classes: Classes) -> None:
        """Take a transformers decoder without its output embeddings, and a head of `num_outputs(classes)`."""
        self.decoder, self.head, self.classes = decoder, head, classes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = next(self.head.parameters()).device
        return device

    def parameters(self) -> list[nn.Parameter]:
        """All weights that are trained."""
        every = [*self.decoder.parameters(), *self.head.parameters()]
        return [parameter for parameter in every if parameter.requires_grad]

    def outputs(self, texts: Sequence[Text]) -> Tensor:
        """(num_reads of all texts, num_outputs) of the head."""
        import torch

        length = max(len(text.ids) for text in texts)
        ids = torch.zeros((len(texts), length), dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
        # Padding stands to the right, where a causal model does not look.
        hidden = self.decoder(input_ids=ids.to(self.device), use_cache=False).last_hidden_state
        rows = [row for row, text in enumerate(texts) for _ in text.reads]
        columns = [read for text in texts for read in text.reads]
        outputs: Tensor = self.head(hidden[rows, columns])
        return outputs.float()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """A copy of all trained weights."""
        named = {"decoder": self.decoder.named_parameters(), "head": self.head.named_parameters()}
        return {
            part: {name: value.detach().clone() for name, value in values if value.requires_grad}
            for part, values in named.items()
        }

    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take a copy back."""
        self.decoder.load_state_dict(state["decoder"], strict=False)
        self.head.load_state_dict(state["head"], strict=False)

    def estimates(self, texts: Sequence[Text], num_pairs: int, rows: int = 64) -> list[float | None]:
        """The estimate of each pair; None for pairs that no text reads."""
        import torch

        by_pair: list[float | None] = [None] * num_pairs
        ordered = sorted(texts, key=lambda text: len(text.ids))
        with torch.inference_mode():
            for at in range(0, len(ordered), rows):
                part = ordered[at : at + rows]
                values = self.outputs(part).double().tolist()
                for pair, outputs in zip((pair for text in part for pair in text.pairs), values, strict=True):
                    by_pair[pair] = estimate(self.classes, outputs)
        return by_pair


def start_head(rows: nn.Module, classes: Classes) -> nn.Module:
    """A router's head that starts as the reward model's own verdict: its estimate is 1 - s_d.

    Args:
        rows: the reward model's head; its last linear layer has 1 output (a sigmoid's), or 2 (bad, good).
        classes: what the new head tells apart.
    """
    import torch
    from torch import nn

    head = copy.deepcopy(rows)
    last = head[-1] if isinstance(head, nn.Sequential) else head
    assert isinstance(last, nn.Linear) and last.out_features in (1, 2)
    weight, bias = last.weight.detach().float(), None if last.bias is None else last.bias.detach().float()

    def spread(values: Tensor) -> Tensor:
        good = values[0] / 2 if last.out_features == 1 else values[1]
        bad = -values[0] / 2 if last.out_features == 1 else values[0]
        if classes == "4-ordinal":
            return torch.stack([bad - good] * 3)
        return torch.stack([good] * (num_outputs(classes) // 2) + [bad] * (num_outputs(classes) // 2))

    new_head = nn.Linear(last.in_features, num_outputs(classes), bias=bias is not None)
    with torch.no_grad():
        new_head.weight.copy_(spread(weight))
        if bias is not None:
            new_head.bias.copy_(spread(bias))
    if isinstance(head, nn.Sequential):
        head[-1] = new_head
        return head.float()
    return new_head


def texts_of(walks: Sequence[Walk], reader: StepReader, max_tokens: int) -> list[Text]:
    """What a reader reads of walks: each path once with all its taken drafts, and each replaced draft by itself."""
    texts: list[Text] = []
    number = 0
    for walk in walks:
        tree, drafts = walk.tree()
        ids = list(reader.prompt_ids(tree))
        reads: list[int] = []
        pairs: list[int] = []
        for pair, draft in zip(walk.pairs, drafts, strict=True):
            step = reader.step_ids(tree, tree[draft])
            if pair.takes_target:
                texts.append(Text((*ids, *step), (len(ids) + len(step) - 1,), (number,)))
                ids += reader.step_ids(tree, tree.nodes[draft + 1])
            else:
                ids += step
                reads.append(len(ids) - 1)
                pairs.append(number)
            number += 1
        if reads:
            texts.append(Text(tuple(ids[: reads[-1] + 1]), tuple(reads), tuple(pairs)))
    return [text for text in texts if len(text.ids) <= max_tokens]


def train(
    model: RouterModel,
    reader: RouterReader,
    walks: Sequence[Walk],
    dev: Sequence[Walk],
    settings: RouterTraining,
    report: Callable[[TrainPoint], None] = lambda point: None,
) -> TrainOutcome:
    """Train a router in place; the weights of the best dev AUC stay.

    Args:
        model: starts from the reward model's weights.
        reader: what it reads.
        walks: the data.
        dev: held-out walks, for the early stop.
        settings: how.
        report: told of every step.

    Raises:
        ConfigError: a checker's labels for four classes.
        DataError: one of the classes is missing, no text fits into `max_tokens`, or no checker judged the steps.
    """
    import torch

    if settings.label == "checker" and settings.classes != "2":
        raise ConfigError(f"label checker knows two classes, not {settings.classes}")
    helped = helps(walks, settings)
    if not any(helped) or all(helped):
        raise DataError("all collected steps are of one class: escalation always helps, or never")
    rng = random.Random(settings.seed)
    kept = _balanced(helped, rng) if settings.balance else set(range(len(helped)))
    texts = [_only(text, kept) for text in texts_of(walks, reader, settings.max_tokens)]
    texts = [text for text in texts if text.reads]
    if not texts:
        raise DataError(f"no collected step fits into {settings.max_tokens} tokens")
    wanted = _classes(walks, helped, settings)
    dev_texts, dev_helped = texts_of(dev, reader, settings.max_tokens), helps(dev, settings)
    torch.manual_seed(settings.seed)
    batches = [batch for _ in range(settings.num_epochs) for batch in _batches(texts, settings, rng)]
    per_epoch = len(batches) // settings.num_epochs
    eval_every = max(1, per_epoch // settings.evals_per_epoch)

    def dev_auc() -> float | None:
        pairs = zip(model.estimates(dev_texts, len(dev_helped)), dev_helped, strict=True)
        estimated = [(value, helped) for value, helped in pairs if value is not None]
        return auc([value for value, _ in estimated], [helped for _, helped in estimated])

    def backward(batch: list[list[Text]]) -> float:
        model.decoder.train()
        loss = _backward(model, batch, wanted, settings)
        model.decoder.eval()
        return loss

    curve = [TrainPoint(0, len(batches), float("nan"), dev_auc())]
    best_step, best_auc, best = 0, curve[0].dev_auc or 0.0, model.state()
    for step, loss in optimise(adamw(model.parameters(), settings), batches, backward, settings):
        measured = dev_auc() if step % eval_every == 0 or step == len(batches) else None
        curve.append(TrainPoint(step, len(batches), loss, measured))
        report(curve[-1])
        if measured is not None and measured > best_auc:
            best_step, best_auc, best = step, measured, model.state()
        elif measured is not None and _num_points_since(curve, best_step) >= settings.patience:
            break
    model.restore(best)
    num_used = sum(len(text.reads) for text in texts)
    return TrainOutcome(curve, best_step, len(helped), num_used, sum(helped) / len(helped))


def helps(walks: Sequence[Walk], settings: RouterTraining) -> list[bool]:
    """Whether escalation helps, by pair; see `RouterTraining.label`.

    Raises:
        DataError: a checker is asked for and did not judge every step.
    """
    pairs = [pair for walk in walks for pair in walk.pairs]
    if settings.label == "reward":
        return [pair.advantage > settings.margin for pair in pairs]
    if any(pair.draft_right is None or pair.target_right is None for pair in pairs):
        raise DataError("label checker: the collected steps have no checker's verdict; label reward needs none")
    return [bool(pair.target_right) and not pair.draft_right for pair in pairs]


def _classes(walks: Sequence[Walk], helped: Sequence[bool], settings: RouterTraining) -> list[int]:
    """The class of each pair."""
    if settings.label == "checker":
        return [int(label) for label in helped]
    advantages = [pair.advantage for walk in walks for pair in walk.pairs]
    return [advantage_class(settings.classes, value, settings.margin, settings.wide) for value in advantages]


def _num_points_since(curve: Sequence[TrainPoint], step: int) -> int:
    return sum(point.dev_auc is not None and point.step > step for point in curve)


def _balanced(helped: Sequence[bool], rng: random.Random) -> set[int]:
    """All of the smaller class, and as many of the larger one."""
    sides = [[number for number, label in enumerate(helped) if label is side] for side in (False, True)]
    smaller, larger = sorted(sides, key=len)
    return {*smaller, *rng.sample(larger, len(smaller))}


def _only(text: Text, kept: set[int]) -> Text:
    chosen = [(read, pair) for read, pair in zip(text.reads, text.pairs, strict=True) if pair in kept]
    reads, pairs = tuple(read for read, _ in chosen), tuple(pair for _, pair in chosen)
    return Text(text.ids[: reads[-1] + 1] if reads else (), reads, pairs)


def _batches(texts: Sequence[Text], settings: RouterTraining, rng: random.Random) -> list[list[list[Text]]]:
    """Steps of the optimiser, each a list of forwards of texts of similar length."""
    order = list(texts)
    rng.shuffle(order)
    groups: list[list[Text]] = [[]]
    for text in order:
        if sum(len(example.reads) for example in groups[-1]) >= settings.batch_size:
            groups.append([])
        groups[-1].append(text)
    batches = []
    for group in groups:
        group.sort(key=lambda text: len(text.ids))
        batches.append([group[at : at + settings.rows] for at in range(0, len(group), settings.rows)])
    return batches


def _backward(
    model: RouterModel, batch: Sequence[Sequence[Text]], wanted: Sequence[int], settings: RouterTraining
) -> float:
    """Add one batch's gradients; its loss, the mean over its drafts however it is split into forwards."""
    import torch
    from torch.nn import functional

    total = sum(len(text.reads) for part in batch for text in part)

    def loss(part: Sequence[Text]) -> Tensor:
        outputs = model.outputs(part)
        classes = torch.tensor([wanted[pair] for text in part for pair in text.pairs], device=model.device)
        if settings.classes == "4-ordinal":
            above = (classes[:, None] > torch.arange(3, device=model.device)).float()
            return functional.binary_cross_entropy_with_logits(outputs, above, reduction="sum") / (3 * total)
        return functional.cross_entropy(outputs, classes, reduction="sum") / total

    return accumulate(batch, loss, model.device, settings)
