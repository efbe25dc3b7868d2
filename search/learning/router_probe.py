"""`ets router train --probe`: a router that is a probe on what its draft computed, from the walks of any router.

Each step that the draft wrote is a place, labelled by whether the target's in its stead is better; read of it are the
draft's state at its end and the draft's log-probabilities of its tokens. All else is as for every probe
(`prm.probe_training`): cross-fitting over problems, the best layer, a calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arbitrage.evaluation import figures
from arbitrage.training import RouterTraining, Text, helps, texts_of
from arbitrage.walks import Walk
from prm.probe import Probe, logprob_features, read_config, read_probe
from prm.probe_features import Features
from prm.probe_training import ProbeTraining, TrainEvent, train
from search.errors import ConfigError
from search.learning.probes import middle_layers
from search.learning.trainable import load_trainable, read_tokenizer
from search.mini.assets import place
from search.plain_text import encode_text
from search.protocols import Tokenizer
from search.setting_groups import PromptSettings
from search.setup.registry import weights_of
from search.setup.routing import prompt_for
from search.tree import Node, SearchTree

if TYPE_CHECKING:
    import torch

ROWS = 16
"""Paths in one forward."""

SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
"""Shares of a draft's steps for which the thresholds that escalate so many are kept."""

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a draft is read.

    Attributes:
        layers: whose states, counted from 1; empty for five from the middle on.
        device, trust_remote_code: of the draft, which is loaded into this process.
        family: the folder that `mini:ROLE` stands for; None: the shipped one.
    """

    layers: tuple[int, ...] = ()
    device: str = "cpu"
    trust_remote_code: bool = False
    family: Path | None = None


@dataclass(frozen=True, slots=True)
class DraftReads:
    """What a draft computed of the steps that it wrote.

    Attributes:
        settings: of what it is: policy, target, weights, tokenizer, layers, num_layers.
        states: (num_layers_read, width) of each pair of the walks, in order: the state at the step's end, and the
            features of its log-probabilities; None where the path is too long for the draft.
    """

    settings: Mapping[str, Any]
    states: list[torch.Tensor | None]


@dataclass(frozen=True, slots=True)
class _DraftReader:
    """Walks in the draft's ids; a `arbitrage.reading.StepReader`."""

    tokenizer: Tokenizer
    shares_ids: bool
    prompt: Callable[[SearchTree], tuple[int, ...]]

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        return tree.root.ids if self.shares_ids else self.prompt(tree)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        del tree
        return node.ids if self.shares_ids else encode_text(self.tokenizer, node.text, written=True)


def read_drafts(
    walks: Sequence[Walk], origin: Mapping[str, Any], how: Reading, report: Report = lambda done, total: None
) -> DraftReads:
    """Read all drafted steps of walks with the draft.

    Args:
        walks: as they were collected.
        origin: what their shards say of them: `draft`, `target` and `data`.
        how: which states, and where.
        report: told how many texts of how many are read.

    Raises:
        ConfigError: the draft cannot be loaded, or has no such layer.
    """
    path = place(origin["draft"], how.family)
    loaded = load_trainable(path, how.device, trust=how.trust_remote_code)
    _, theirs = read_tokenizer(place(origin["target"], how.family), trust=how.trust_remote_code)
    number = int(loaded.network.config.get_text_config(decoder=True).num_hidden_layers)
    layers = middle_layers(str(origin["draft"]), number, how.layers)
    prompt = prompt_for(PromptSettings(), loaded.tokenizer)
    reader = _DraftReader(loaded.tokenizer, loaded.tokenizer.fingerprint == theirs.fingerprint, prompt)
    lengths = [
        len(reader.step_ids(tree, tree[node])) for tree, drafts in (walk.tree() for walk in walks) for node in drafts
    ]
    found: list[torch.Tensor | None] = [None] * len(lengths)
    texts = sorted(texts_of(walks, reader, loaded.context_tokens), key=lambda text: len(text.ids))
    for at in range(0, len(texts), ROWS):
        part = texts[at : at + ROWS]
        for pair, state in _read(loaded.network.eval(), part, layers, lengths):
            found[pair] = state
        report(at + len(part), len(texts))
    kept = {
        "policy": origin["draft"],
        "target": origin["target"],
        "weights": weights_of(path),
        "tokenizer": loaded.tokenizer.fingerprint,
        "layers": list(layers),
        "num_layers": number,
        "reads_logprobs": True,
        "data": origin["data"],
        "dtype": "float32",
    }
    return DraftReads(kept, found)


def _read(
    network: Any, texts: Sequence[Text], layers: Sequence[int], lengths: Sequence[int]
) -> list[tuple[int, torch.Tensor]]:
    """One forward: each judged pair's number, and (num_layers, width) of what is read of it."""
    import torch

    ids = torch.zeros((len(texts), max(len(text.ids) for text in texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
    ids = ids.to(network.device)
    with torch.inference_mode():
        # Padding stands to the right, where a causal model does not look.
        made = network(input_ids=ids, output_hidden_states=True, use_cache=False)
    found = []
    for row, text in enumerate(texts):
        for end, pair in zip(text.reads, text.pairs, strict=True):
            first = end - lengths[pair] + 1
            logits = torch.log_softmax(made.logits[row, first - 1 : end].float(), dim=-1)
            logprobs = logits.gather(1, ids[row, first : end + 1, None])[:, 0].tolist()
            more = torch.tensor(logprob_features(logprobs))
            states = torch.stack([made.hidden_states[layer][row, end].float().cpu() for layer in layers])
            found.append((pair, torch.cat([states, more.expand(len(layers), -1)], dim=1)))
    return found


def train_router_probe(
    walks: Sequence[Walk],
    dev: Sequence[Walk],
    origin: Mapping[str, Any],
    label: RouterTraining,
    settings: ProbeTraining,
    how: Reading,
    read: Report = lambda done, total: None,
    fitted: Callable[[TrainEvent], None] = lambda event: None,
) -> tuple[Probe, dict[str, float | int | None]]:
    """Train a probe that routes, and measure it.

    Args:
        walks: the data.
        dev: held-out walks, for the figures and the thresholds that its record keeps.
        origin: what the shards of both say of them.
        label: `label` and `margin` say when escalation helps.
        settings: of the networks.
        how: what is read, and where.
        read: told how many texts of how many are read.
        fitted: told of every network.

    Returns:
        The probe, and its figures on the held-out walks, as of `arbitrage.evaluation.figures`.

    Raises:
        ConfigError: the draft cannot be used.
        DataError: no checker judged the steps, or too few problems have steps of both kinds.
    """
    helped = helps(walks, label)
    both = read_drafts([*walks, *dev], origin, how, read)
    seen, unseen = (replace(both, states=part) for part in (both.states[: len(helped)], both.states[len(helped) :]))
    probe = train(_features(walks, seen, helped), both.settings["layers"], settings, report=fitted).probe
    estimated = estimates(probe, unseen)
    measured = figures(dev, estimated, label.margin)
    known = np.array([one for one in estimated if one is not None])
    record = {
        **{name: value for name, value in probe.config.record.items() if name != "auc_within_by_reduce"},
        "prm": origin["prm"],
        "label": label.label,
        "margin": label.margin,
        "share_positive": round(sum(helped) / len(helped), 4),
        "dev": {name: measured[name] for name in ("num_pairs", "auc", "auc_prm", "calibration_error")},
        "thresholds": {str(share): round(float(np.quantile(known, 1 - share)), 4) for share in SHARES},
    }
    probe.config = replace(probe.config, reduce="last", record=record)
    return probe, measured


def _features(walks: Sequence[Walk], read: DraftReads, helped: Sequence[bool]) -> Features:
    """Each drafted step as a solution of one step, right where escalation helps."""
    import torch

    owners = [number for number, walk in enumerate(walks) for _ in walk.pairs]
    known = [number for number, state in enumerate(read.states) if state is not None]
    right = np.array([helped[number] for number in known], np.bool_)
    return Features(
        settings=read.settings,
        problem_ids=tuple(f"{number}/{walk.problem_id}" for number, walk in enumerate(walks)),
        states=torch.stack([state for state in read.states if state is not None]),
        problems=np.array([owners[number] for number in known], np.int64),
        parents=np.full(len(known), -1, np.int64),
        num_solutions=np.ones(len(known), np.int64),
        num_right=right.astype(np.int64),
        leaves=np.arange(len(known)),
        answers=np.zeros(len(known), np.int64),
        correct=right,
    )


def estimates(probe: Probe, read: DraftReads) -> list[float | None]:
    """What a probe says of each pair that was read; None for the others."""
    at = list(read.settings["layers"]).index(probe.config.layer)
    return [None if one is None else float(probe.rewards(one[at][None].numpy())[0]) for one in read.states]


def evaluate_router_probe(
    folder: Path, walks: Sequence[Walk], origin: Mapping[str, Any], how: Reading
) -> dict[str, float | int | None]:
    """Figures of a probe that routes on held-out walks, as of `arbitrage.evaluation.figures`.

    Raises:
        ConfigError: it is none, or the walks are of another draft.
    """
    config = read_config(folder)
    if not config.target:
        raise ConfigError(f"{folder} is a probe that scores steps and no router; ets probe eval measures it")
    read = read_drafts(walks, origin, replace(how, layers=(config.layer,)))
    for name in ("num_layers", "tokenizer", "weights"):
        if getattr(config, name) != read.settings[name]:
            raise ConfigError(
                f"{folder} was trained for {config.policy}; the data's draft {origin['draft']} has another {name}"
            )
    return figures(walks, estimates(read_probe(folder), read), float(config.record.get("margin", 0.0)))
