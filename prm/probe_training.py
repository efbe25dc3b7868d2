"""`ets probe train`: networks on each layer's states, by cross-fitting over problems, and the best one as a probe.

Every figure, the choice of the layer and the calibration come from networks that have not seen the problem in
question: each fold of the problems is told by the networks of the other folds. The probe itself is trained on all
problems, for as many epochs as those needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prm.probe import Network, Probe, ProbeConfig, calibrate
from prm.probe_features import Features
from prm.probe_figures import concordance, solution_figures
from search.errors import DataError
from search.types import Reduce

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

NUM_BINS = 20
"""Groups of steps of one size that a calibration is fitted to, at most."""

REDUCTIONS: tuple[Reduce, ...] = ("last", "mean", "min", "prod")
DATA_SHARES = (0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class ProbeTraining:
    """How a probe is trained.

    Attributes:
        network: one linear map, or one hidden layer.
        units: of that layer.
        num_folds: parts of the problems for cross-fitting, at least 2.
        max_epochs: passes over the data, at most.
        patience: epochs without a better held-out figure after which it stops.
        batch_problems: problems in one step of the optimiser.
        learning_rate, weight_decay: of AdamW.
        pair_weight: of the term that sets the steps of right solutions above those of wrong ones of the same problem.
        seed: of folds, order and start.
    """

    network: Network = "mlp"
    units: int = 128
    num_folds: int = 5
    max_epochs: int = 40
    patience: int = 5
    batch_problems: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    pair_weight: float = 1.0
    seed: int = 0


class TrainEvent(NamedTuple):
    """A network is fitted: which of how many, and its held-out figure."""

    done: int
    total: int
    layer: int
    figure: float


@dataclass(frozen=True, slots=True)
class TrainedProbe:
    """What comes of a training.

    Attributes:
        probe: trained on all problems.
        log_odds: (num_places,) of each step by a network that did not see its problem, before calibration.
        by_layer: the within-problem figure of each layer, held out.
        by_data: the same of the best layer by the share of the problems that networks were trained on.
    """

    probe: Probe
    log_odds: Floats
    by_layer: Mapping[int, float]
    by_data: Mapping[float, float]


def train(
    features: Features,
    layers: Sequence[int],
    settings: ProbeTraining,
    *,
    curve: bool = False,
    report: Callable[[TrainEvent], None] = lambda event: None,
) -> TrainedProbe:
    """Train networks on each of some layers, and a probe of the best.

    Args:
        features: of problems with right and wrong solutions.
        layers: which layers to try.
        settings: how.
        curve: also train on shares of the problems, to see what more data would do.
        report: told of every network.

    Raises:
        ConfigError: a layer was not collected.
        DataError: too few problems, or none with both right and wrong solutions.
    """
    import torch

    labels, problems = features.labels, features.problems
    mixed = {int(one) for one in np.unique(problems) if np.ptp(labels[problems == one]) > 0}
    if len(mixed) < settings.num_folds:
        raise DataError(
            f"{len(mixed)} problems have both right and wrong solutions, and {settings.num_folds} folds need "
            f"{settings.num_folds} at least: collect more"
        )
    torch.manual_seed(settings.seed)
    folds = _folds(len(features.problem_ids), mixed, settings)
    total = len(layers) * settings.num_folds + (len(DATA_SHARES) - 1) * settings.num_folds * curve + 1
    done = 0

    def told(layer: int, figure: float) -> None:
        nonlocal done
        done += 1
        report(TrainEvent(done, total, layer, figure))

    by_layer: dict[int, float] = {}
    best: tuple[float, int, Floats, list[int]] | None = None
    for layer in layers:
        log_odds, epochs = _cross_fit(features, layer, folds, settings, 1.0, told)
        by_layer[layer] = concordance(log_odds, labels, problems)
        if best is None or by_layer[layer] > best[0]:
            best = by_layer[layer], layer, log_odds, epochs
    assert best is not None
    _, layer, log_odds, epochs = best
    by_data = {1.0: best[0]}
    for share in DATA_SHARES[:-1] if curve else ():
        less, _ = _cross_fit(features, layer, folds, settings, share, told)
        by_data[share] = concordance(less, labels, problems)
    states = features.layer(layer)
    everything = np.ones(len(problems), np.bool_)
    fitted = _fit(states, features, everything, None, settings, max(1, round(sum(epochs) / len(epochs))))
    told(layer, best[0])
    temperature = fit_temperature(log_odds, labels, features.num_solutions)
    knots = fit_knots(calibrate(log_odds, temperature, ((0.0, 0.0), (1.0, 1.0))), labels, features.num_solutions)
    rewards = calibrate(log_odds, temperature, knots)
    within = {how: solution_figures(features, rewards, how)["auc_within"] or 0.0 for how in REDUCTIONS}
    record = {
        "settings": asdict(settings),
        "features": {name: features.settings.get(name) for name in ("sources", "data", "grader", "dtype")},
        "num_problems": len(features.problem_ids),
        "num_solutions": len(features.leaves),
        "num_steps": len(problems),
        "num_epochs": epochs,
        "concordance_by_layer": {str(one): round(value, 4) for one, value in by_layer.items()},
        "concordance_by_data": {str(one): round(value, 4) for one, value in sorted(by_data.items())},
        "auc_within_by_reduce": {how: round(value, 4) for how, value in within.items()},
    }
    config = ProbeConfig(
        layer=layer,
        num_layers=int(features.settings["num_layers"]),
        width=int(states.shape[1]),
        network=settings.network,
        policy=str(features.settings["policy"]),
        weights=features.settings.get("weights"),
        tokenizer=str(features.settings["tokenizer"]),
        # Of equals the first: what the last step says is what a search knows.
        reduce=max(REDUCTIONS, key=lambda how: round(within[how], 3)),
        temperature=temperature,
        knots=knots,
        record=record,
        target=str(features.settings.get("target", "")),
        reads_logprobs=bool(features.settings.get("reads_logprobs", False)),
    )
    weights = {name: one.numpy() for name, one in fitted.tensors.items()}
    return TrainedProbe(Probe(config, weights), log_odds, by_layer, by_data)


def _folds(num_problems: int, mixed: set[int], settings: ProbeTraining) -> Numbers:
    """(num_problems,) a fold for each problem; those that tell something are spread evenly."""
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(num_problems)
    ranked = [one for one in order if one in mixed] + [one for one in order if one not in mixed]
    folds = np.zeros(num_problems, np.int64)
    folds[ranked] = np.arange(num_problems) % settings.num_folds
    return folds


def _cross_fit(
    features: Features,
    layer: int,
    folds: Numbers,
    settings: ProbeTraining,
    share: float,
    told: Callable[[int, float], None],
) -> tuple[Floats, list[int]]:
    """Log-odds of every step by networks that saw no solution of its problem, and how long those were trained."""
    import torch

    states = features.layer(layer)
    place_folds = folds[features.problems]
    rng = np.random.default_rng(settings.seed + 1)
    chosen = rng.permutation(len(folds))[: math.ceil(share * len(folds))]
    kept = np.isin(features.problems, chosen)
    log_odds, epochs = np.zeros(len(place_folds)), []
    for fold in range(settings.num_folds):
        held = place_folds == fold
        # The problems that stop it are another fold's: what it is measured on has no part in it.
        stop = place_folds == (fold + 1) % settings.num_folds
        fitted = _fit(states, features, ~held & ~stop & kept, stop, settings, settings.max_epochs)
        with torch.inference_mode():
            log_odds[held] = fitted.log_odds(states[torch.from_numpy(held)]).double().numpy()
        epochs.append(fitted.num_epochs)
        told(layer, fitted.figure)
    return log_odds, epochs


@dataclass(slots=True)
class _Fitted:
    """A network as its tensors; see `prm.probe.Probe`."""

    tensors: dict[str, torch.Tensor]
    num_epochs: int
    figure: float

    def log_odds(self, states: torch.Tensor) -> torch.Tensor:
        """(n,) of states (n, width)."""
        import torch

        tensors = self.tensors
        hidden = torch.nn.functional.linear((states - tensors["mean"]) / tensors["scale"], tensors["in.weight"])
        hidden = hidden + tensors["in.bias"]
        if "out.weight" in tensors:
            hidden = torch.nn.functional.linear(hidden.relu(), tensors["out.weight"], tensors["out.bias"])
        return hidden[:, 0]


def _fit(
    states: torch.Tensor,
    features: Features,
    used: NDArray[np.bool_],
    stop: NDArray[np.bool_] | None,
    settings: ProbeTraining,
    num_epochs: int,
) -> _Fitted:
    """One network.

    Args:
        states: (num_places, width) of all steps.
        features: their labels and problems.
        used: which are trained on.
        stop: which say when it is enough; None: after `num_epochs`.
        settings: how.
        num_epochs: passes over the data, at most.
    """
    import torch

    generator = torch.Generator().manual_seed(settings.seed)
    rows = torch.from_numpy(np.flatnonzero(used))
    own = states[rows]
    mean, scale = own.mean(0), own.std(0)
    # A number that hardly varies must not become large by being divided.
    scale = scale.clamp(min=float(scale.mean()) * 1e-2 + 1e-6)
    units = settings.units if settings.network == "mlp" else 1
    tensors = {"in.weight": torch.empty(units, own.shape[1]), "in.bias": torch.zeros(units)}
    if settings.network == "mlp":
        tensors |= {"out.weight": torch.empty(1, units), "out.bias": torch.zeros(1)}
        for name in ("in.weight", "out.weight"):
            tensors[name].normal_(0.0, tensors[name].shape[1] ** -0.5, generator=generator)
    else:
        tensors["in.weight"].zero_()
    parameters = [one.requires_grad_() for one in tensors.values()]
    fitted = _Fitted({"mean": mean, "scale": scale, **tensors}, 0, 0.5)
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    labels = torch.from_numpy(features.labels).float()[rows]
    weights = torch.from_numpy(features.num_solutions).float()[rows]
    problems = torch.from_numpy(features.problems)[rows]
    members = [torch.nonzero(problems == one)[:, 0] for one in np.unique(features.problems[used])]
    best: dict[str, torch.Tensor] | None = None
    since = 0
    for epoch in range(1, num_epochs + 1):
        order = torch.randperm(len(members), generator=generator).tolist()
        for at in range(0, len(order), settings.batch_problems):
            batch = torch.cat([members[one] for one in order[at : at + settings.batch_problems]])
            loss = _loss(fitted.log_odds(own[batch]), labels[batch], weights[batch], problems[batch], settings)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        if stop is None:
            fitted.num_epochs = epoch
            continue
        with torch.inference_mode():
            told = fitted.log_odds(states[torch.from_numpy(stop)]).double().numpy()
        figure = concordance(told, features.labels[stop], features.problems[stop])
        since += 1
        if best is None or figure > fitted.figure:
            best = {name: one.detach().clone() for name, one in fitted.tensors.items()}
            fitted.figure, fitted.num_epochs, since = figure, epoch, 0
        elif since >= settings.patience:
            break
    fitted.tensors = best or {name: one.detach() for name, one in fitted.tensors.items()}
    return fitted


def _loss(
    log_odds: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    problems: torch.Tensor,
    settings: ProbeTraining,
) -> torch.Tensor:
    """Cross-entropy with soft labels, and a logistic loss over pairs of steps of one problem with unequal labels."""
    import torch

    functional = torch.nn.functional
    each = functional.binary_cross_entropy_with_logits(log_odds, labels, reduction="none")
    loss = (each * weights).sum() / weights.sum()
    if settings.pair_weight:
        lead = (labels[:, None] - labels[None]).clamp(min=0) * (problems[:, None] == problems[None])
        lead = lead * weights[:, None] * weights[None]
        if float(lead.sum()) > 0:
            pairs = functional.softplus(log_odds[None] - log_odds[:, None])
            loss = loss + settings.pair_weight * (pairs * lead).sum() / lead.sum()
    return loss


def fit_temperature(log_odds: Floats, labels: Floats, weights: Numbers) -> float:
    """The temperature with the least cross-entropy, within a factor of 20 of 1."""
    fitted, best = 1.0, math.inf
    for temperature in np.exp(np.linspace(-3, 3, 241)):
        cooled = log_odds / temperature
        loss = float(np.average(np.logaddexp(0, cooled) - labels * cooled, weights=weights))
        if loss < best:
            fitted, best = float(temperature), loss
    return fitted


def fit_knots(probabilities: Floats, labels: Floats, weights: Numbers) -> tuple[tuple[float, float], ...]:
    """A rising line from told to true probabilities: isotonic regression over groups of steps, joined by lines.

    It rises everywhere but where it must not fall, so it keeps the order of the steps: its ends are (0, 0) and (1, 1).
    """
    order = np.argsort(probabilities, kind="stable")
    groups = np.array_split(order, min(NUM_BINS, max(1, len(order) // 50)))
    blocks: list[list[float]] = []  # weight, told, true
    for group in groups:
        weight = float(weights[group].sum())
        told, true = (float(np.average(values[group], weights=weights[group])) for values in (probabilities, labels))
        blocks.append([weight, told, true])
        while len(blocks) > 1 and blocks[-2][2] >= blocks[-1][2]:
            last, before = blocks.pop(), blocks.pop()
            whole = last[0] + before[0]
            blocks.append([whole, *((before[0] * before[at] + last[0] * last[at]) / whole for at in (1, 2))])
    inner = [(round(told, 6), round(true, 6)) for _, told, true in blocks if 0.0 < told < 1.0]
    return ((0.0, 0.0), *inner, (1.0, 1.0))
