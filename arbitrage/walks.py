"""Walks: the steps that draft and target wrote side by side along one path, as `ets router collect` keeps them.

A shard is a file of JSON lines: a head that says how many walks follow and how they came about, then one walk a line.
It is written whole or not at all; one that was cut short later is told by its head.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError, DataError
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Step

VERSION = 1
DRAFT, TARGET = "draft", "target"
"""Names of the two writers, as nodes record them."""


@dataclass(frozen=True, slots=True)
class StepPair:
    """What draft and target wrote after one prefix.

    Attributes:
        draft_ids, draft_text: the draft's step, ids in the target's vocabulary.
        target_ids, target_text: the target's step.
        draft_reward, target_reward: s_d and s_t in [0, 1]; the latter a mean where several samples were drawn.
        takes_target: whether the walk went on with the target's step.
        draft_right, target_right: a checker's verdict on each; None where there is no checker.
        draft_logprobs: of the tokens that the draft wrote, in its own ids; None where its engine keeps none.
        draft_states: its hidden states at the step's end, (num_layers, width) of float32 in base64, layers as the
            shard's head has them; None where its engine gives none.
    """

    draft_ids: tuple[int, ...]
    draft_text: str
    target_ids: tuple[int, ...]
    target_text: str
    draft_reward: float
    target_reward: float
    takes_target: bool
    draft_right: bool | None = None
    target_right: bool | None = None
    draft_logprobs: tuple[float, ...] | None = None
    draft_states: str | None = None

    @property
    def advantage(self) -> float:
        """D = s_t - s_d (arXiv 2512.05033), in [-1, 1]."""
        return self.target_reward - self.draft_reward


@dataclass(frozen=True, slots=True)
class Walk:
    """One problem's path with the pair of steps at each of its nodes.

    Attributes:
        problem_id, question: what was asked.
        prompt_ids, prompt_text: as the target read it.
        pairs: one for each step of the path.
        correct: whether the path's answer is right; None without a reference.
    """

    problem_id: str
    question: str
    prompt_ids: tuple[int, ...]
    prompt_text: str
    pairs: tuple[StepPair, ...]
    correct: bool | None = None

    def tree(self) -> tuple[SearchTree, tuple[NodeId, ...]]:
        """The walk as a search tree, and each pair's draft node: below one prefix stand the draft's step and, where
        the walk went on with it, the target's.
        """  # noqa: D205
        tree = SearchTree(f"{self.problem_id}#walk", self.prompt_ids, self.prompt_text, self.question)
        drafts: list[NodeId] = []
        above = ROOT
        for pair in self.pairs:
            node = tree.add_child(above)
            tree.write(Step(node, pair.draft_ids, pair.draft_text, FinishReason.STOP, DRAFT))
            drafts.append(node)
            if pair.takes_target:
                node = tree.add_child(above)
                tree.write(Step(node, pair.target_ids, pair.target_text, FinishReason.STOP, TARGET))
            above = node
        return tree, tuple(drafts)


def shard_file(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:05d}.jsonl"


def shard_text(walks: Sequence[Walk], origin: Mapping[str, Any]) -> str:
    """A shard's content.

    Args:
        walks: in order.
        origin: how they came about: the pair, the reward model, seeds.
    """
    head = {"version": VERSION, "num_walks": len(walks), **origin}
    return "\n".join(json.dumps(row) for row in (head, *map(asdict, walks))) + "\n"


def read_shard(file: Path) -> tuple[dict[str, Any], list[Walk]]:
    """A shard's head and its walks.

    Raises:
        DataError: the file cannot be read, is cut short, or is none of this layout.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        head = json.loads(lines[0])
        if head.get("version") != VERSION:
            raise DataError(f"{file}: its layout has version {head.get('version')}, this program reads {VERSION}")
        num_walks = int(head["num_walks"])
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise DataError(f"{file}: no shard of collected steps, or cut short in its first line") from None
    walks: list[Walk] = []
    for line in lines[1:]:
        try:
            row = json.loads(line)
            row["pairs"] = tuple(_pair(pair) for pair in row["pairs"])
            walks.append(Walk(**{**row, "prompt_ids": tuple(row["prompt_ids"])}))
        except (ValueError, KeyError, TypeError):
            break
    if len(walks) != num_walks:
        raise DataError(
            f"{file}: cut short: {len(walks)} of {num_walks} walks can be read; run the same `ets router collect` "
            "again, which makes this shard anew and keeps the others"
        )
    return head, walks


def _pair(row: dict[str, Any]) -> StepPair:
    names = ("draft_ids", "target_ids", "draft_logprobs")
    return StepPair(**{**row, **{name: tuple(row[name]) for name in names if row.get(name) is not None}})


def encode_states(states: Sequence[float]) -> str:
    """Hidden states as `StepPair.draft_states` keeps them."""
    return base64.b64encode(np.array(states, "<f4").tobytes()).decode()


def decode_states(states: str, num_layers: int) -> NDArray[np.float32]:
    """(num_layers, width) of `StepPair.draft_states`."""
    return np.frombuffer(base64.b64decode(states), "<f4").reshape(num_layers, -1)


def read_walks(folders: Iterable[Path]) -> tuple[dict[str, Any], list[Walk]]:
    """All walks of one or more folders, the models that they agree on, and the names of their data.

    Raises:
        ConfigError: a folder has no shards, or shards are of different pairs or reward models.
        DataError: a shard is cut short.
    """
    origin: dict[str, Any] = {"data": []}
    walks: list[Walk] = []
    for folder in folders:
        files = sorted(folder.glob("shard-*.jsonl"))
        if not files:
            raise ConfigError(f"{folder}: holds no collected steps; `ets router collect` makes them")
        for file in files:
            head, read = read_shard(file)
            for name in ("draft", "target", "prm", "states"):
                if origin.setdefault(name, head.get(name)) != head.get(name):
                    raise ConfigError(
                        f"{file} was collected with {name} {head.get(name)!r}, others with {origin[name]!r}; "
                        "one router is trained for one pair, one reward model and one kind of states"
                    )
            walks += read
            origin["data"] += [head.get("data")] if head.get("data") not in origin["data"] else []
    if not any(walk.pairs for walk in walks):
        raise DataError(f"{folder}: holds no steps")
    return origin, walks
