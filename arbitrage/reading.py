"""What a learned router reads: the reward model's own input, each step prefixed by the model that wrote it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

from arbitrage.walks import DRAFT, TARGET
from search.errors import ConfigError, ScoringError
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

CONFIG_FILE = "router_config.json"
Classes = Literal["2", "4", "4-ordinal"]
"""What the head tells apart; see `num_outputs` and `estimate`."""

Label = Literal["reward", "checker"]
"""Who said in training that escalation helps; see `arbitrage.training.RouterTraining`."""


class StepReader(Protocol):
    """How a reward model reads questions and steps; `prm.codec.PrmCodec` is one."""

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The ids of the question."""

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The ids that a step adds; it is judged at the last one."""


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """What a router's checkpoint says of itself.

    Attributes:
        draft, target, prm: the models it was trained for, by the names they had then.
        reader: how its reward model read steps: the fields of `prm.checkpoint.PrmConfig`.
        classes: what its head tells apart.
        annotate: whether each step is prefixed by its writer.
        draft_tag, target_tag: these prefixes.
        margin: what an advantage had to exceed to count as a gain; 0 in the paper.
        label: who said so: the rewards, as in the paper, or an exact checker.
    """

    draft: str
    target: str
    prm: str
    reader: Mapping[str, Any] = field(default_factory=dict)
    classes: Classes = "2"
    annotate: bool = True
    draft_tag: str = "Model 0: "
    target_tag: str = "Model 1: "
    margin: float = 0.0
    label: Label = "reward"

    def to_json(self) -> str:
        """As `read_config` reads it."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_config(name: str, folder: Path) -> RouterConfig:
    """A router's configuration.

    Raises:
        ConfigError: the folder has none, or one that cannot be used.
    """
    file = folder / CONFIG_FILE
    try:
        config = RouterConfig(**json.loads(file.read_text(encoding="utf-8")))
    except OSError:
        raise ConfigError(
            f"{name!r} is no router: no {CONFIG_FILE} in {folder}; `ets router train` makes one"
        ) from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file}: cannot be used: {error}") from None
    num_outputs(config.classes)
    return config


class RouterReader:
    """Ids for a router's model, and its estimate from the head's outputs. Serves as a codec of `prm.PrmScorer`."""

    name: ClassVar[str] = "router"
    reads: ClassVar[Literal["labels", "head"]] = "head"
    labels: ClassVar[tuple[int, ...]] = ()

    def __init__(self, steps: StepReader, tokenizer: Tokenizer, config: RouterConfig) -> None:
        """Read as `steps`, the underlying reward model, does, and each step after the tag of its writer."""
        tags = {DRAFT: config.draft_tag, TARGET: config.target_tag} if config.annotate else {}
        self._steps, self._classes = steps, config.classes
        self._tags = {writer: tokenizer.encode(tag) for writer, tag in tags.items()}

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """As the reward model reads the question."""
        return self._steps.prompt_ids(tree)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The writer's tag and the step."""
        return self._tags.get(node.writer, ()) + self._steps.step_ids(tree, node)

    def reward(self, outputs: Sequence[float]) -> float:
        """The estimate that escalation helps, in [0, 1]."""
        return estimate(self._classes, outputs)


def num_outputs(classes: str) -> int:
    """How many outputs a head has.

    Raises:
        ConfigError: unknown classes.
    """
    outputs_by_classes = {"2": 2, "4": 4, "4-ordinal": 3}
    if classes not in outputs_by_classes:
        raise ConfigError(f"router classes {classes!r}: must be one of {', '.join(outputs_by_classes)}")
    return outputs_by_classes[classes]


def estimate(classes: Classes, outputs: Sequence[float]) -> float:
    """P(D > 0) from a head's outputs: a class's softmax, two classes' sum, or the middle cumulative link's sigmoid.

    Raises:
        ScoringError: the head has another number of outputs.
    """
    if len(outputs) != num_outputs(classes):
        raise ScoringError(
            f"the router's head has {len(outputs)} outputs; {classes} classes need {num_outputs(classes)}"
        )
    if classes == "4-ordinal":
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, outputs[1]))))
    top = max(outputs)
    weights = [math.exp(value - top) for value in outputs]
    return sum(weights[len(weights) // 2 :]) / sum(weights)


def advantage_class(classes: Classes, advantage: float, margin: float, wide: float) -> int:
    """The class of an advantage D: 1 if D > margin for two; for four, cut at -wide, margin and wide.

    Args:
        classes: what is told apart.
        advantage: D in [-1, 1].
        margin: what D must exceed to count as a gain; 0 in the paper.
        wide: beyond it a gain or a loss is large.
    """
    if classes == "2":
        return int(advantage > margin)
    return sum(advantage > cut for cut in (-wide, margin, max(wide, margin)))


def as_classes(text: str) -> Classes:
    """A checked name of classes.

    Raises:
        ConfigError: unknown.
    """
    num_outputs(text)
    return cast(Classes, text)
