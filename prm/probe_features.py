"""Features of probes: a policy's hidden states at the ends of its steps, with what came of the solutions they stand in.

Solutions of one problem are one trie: equal beginnings are read once, and their label is the share of right solutions
among those that go on from them, Math-Shepherd's soft label (arXiv 2312.08935) without a sample of its own. Of
solutions that share nothing it is whether the final answer is right.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError, DataError
from search.protocols import Engine
from search.support.files import sweep_parts, write_atomic
from search.support.streams import side_by_side
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeId, Step

if TYPE_CHECKING:
    import torch

SETTINGS_FILE = "features.json"
_SHARD = "shard-{:05d}.safetensors"


class Solution(NamedTuple):
    """A finished solution.

    Attributes:
        steps: the token ids of each step, in order; at least one, none empty.
        answer: the number of its answer among the problem's different ones; -1 for none.
        correct: whether that answer is right.
    """

    steps: tuple[tuple[int, ...], ...]
    answer: int
    correct: bool


class Sampled(NamedTuple):
    """A problem with its solutions.

    Attributes:
        problem: its id.
        prompt: the ids of the question as the policy reads it.
        solutions: at least one.
    """

    problem: str
    prompt: tuple[int, ...]
    solutions: tuple[Solution, ...]


@dataclass(frozen=True, slots=True)
class Features:
    """Hidden states and what is known of them. A place is the end of a step; places of a problem stand together.

    Attributes:
        settings: of the collection: model, weights, tokenizer, layers, num_layers.
        problem_ids: by number.
        states: (num_places, num_layers_read, width) in bfloat16, layers in the order of `settings["layers"]`.
        problems: (num_places,) numbers of their problems, ascending.
        parents: (num_places,) the place of the step before; -1 where a solution begins.
        num_solutions, num_right: (num_places,) solutions through a place, and the right ones among them.
        leaves: (num_all_solutions,) the place at which each solution ends.
        answers: (num_all_solutions,) numbers of answers within a problem; -1 for none.
        correct: (num_all_solutions,) whether they are right.
    """

    settings: Mapping[str, Any]
    problem_ids: tuple[str, ...]
    states: torch.Tensor
    problems: NDArray[np.int64]
    parents: NDArray[np.int64]
    num_solutions: NDArray[np.int64]
    num_right: NDArray[np.int64]
    leaves: NDArray[np.int64]
    answers: NDArray[np.int64]
    correct: NDArray[np.bool_]

    @property
    def labels(self) -> NDArray[np.float64]:
        """(num_places,) the share of right solutions among those that go on from a place."""
        return self.num_right / self.num_solutions

    def layer(self, layer: int) -> torch.Tensor:
        """(num_places, width) float32: the states of one layer.

        Raises:
            ConfigError: it was not collected.
        """
        layers = list(self.settings["layers"])
        if layer not in layers:
            raise ConfigError(f"layer {layer} was not collected; there are {', '.join(map(str, layers))}")
        return self.states[:, layers.index(layer)].float()

    def path(self, leaf: int) -> list[int]:
        """The places of a solution from its first step to its end."""
        places = [leaf]
        while (above := int(self.parents[places[-1]])) >= 0:
            places.append(above)
        places.reverse()
        return places


async def collect_features(
    engine: Engine,
    sampled: Sequence[Sampled],
    layers: Sequence[int],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    shard_size: int = 20,
    concurrency: int = 2,
    report: Callable[[int, str], None] = lambda done, note: None,
) -> None:
    """Read the states of all steps of problems that a folder does not hold yet, into further shards of it.

    So a folder grows when more problems are asked for, wherever those stand among the others. Solutions that are longer
    than the model's context are left out.

    Args:
        engine: runs the policy; gives its hidden states.
        sampled: what to read.
        layers: which layers' states, counted from 1.
        folder: of the shards.
        settings: what decides them; a folder of others is not gone on with.
        shard_size: problems in one file.
        concurrency: problems side by side.
        report: told how many problems are done, and a note.

    Raises:
        ConfigError: the folder holds other features, or cannot be written to.
        EngineError: the model could not be asked; finished shards are kept.
    """
    kept = {**settings, "layers": list(layers), "shard_size": shard_size}
    sweep_parts(folder)
    begin(folder, kept)
    there = _held(folder)
    missing = [problem for problem in sampled if problem.problem not in there]
    done = len(sampled) - len(missing)
    report(done, "")
    free = (file for number in itertools.count() if not (file := folder / _SHARD.format(number)).exists())
    for first in range(0, len(missing), shard_size):
        part = missing[first : first + shard_size]
        read = await side_by_side(
            lambda problem: _read_problem(engine, problem, layers),
            part,
            concurrency,
            lambda more, before=done: report(before + more, ""),  # type: ignore[misc]
        )
        # Another process may fill the same folder; what it was faster with stays.
        there = _held(folder)
        if new := [problem for problem in read if problem is not None and problem[2].problem not in there]:
            _write_shard(next(free), new)
        done += len(part)
        report(done, "")


_Read = tuple[SearchTree, list[NodeId], Sampled, "torch.Tensor"]


async def _read_problem(engine: Engine, sampled: Sampled, layers: Sequence[int]) -> _Read | None:
    """The states of one problem's steps; solutions that do not fit into the context are left out."""
    import torch

    room = engine.info.context_tokens - len(sampled.prompt)
    fitting = tuple(solution for solution in sampled.solutions if sum(map(len, solution.steps)) <= room)
    if not fitting:
        return None
    sampled = sampled._replace(solutions=fitting)
    tree, ends = _tree_of(sampled)
    # The ends of solutions first: an engine that reads those computes what is above them on the way.
    order = list(dict.fromkeys([*ends, *(node.id for node in tree if node.parent is not None)]))
    try:
        read = await asyncio.gather(*(engine.read(tree.prefix(node), "hidden", layers) for node in order))
    finally:
        await engine.release(tree.id)
    states = torch.empty((len(order), len(layers), len(read[0]) // len(layers)), dtype=torch.bfloat16)
    for node, values in zip(order, read, strict=True):
        states[node - 1] = torch.tensor(values).reshape(len(layers), -1).to(torch.bfloat16)
    return tree, ends, sampled, states


def _tree_of(sampled: Sampled) -> tuple[SearchTree, list[NodeId]]:
    """What a problem's solutions say, each beginning once in the order of its first solution, and where each ends.

    The place of a step is the number of its node less 1, as the root is none.
    """
    tree = SearchTree(f"{sampled.problem}/features", sampled.prompt, "")
    known: dict[tuple[NodeId, tuple[int, ...]], NodeId] = {}
    ends = []
    for solution in sampled.solutions:
        at = ROOT
        for ids in solution.steps:
            if (at, ids) not in known:
                known[at, ids] = tree.add_child(at)
                tree.write(Step(known[at, ids], ids, "", FinishReason.STOP, "data"))
            at = known[at, ids]
        ends.append(at)
    return tree, ends


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder for features of these settings, or take one up.

    Raises:
        ConfigError: it is of other settings, or cannot be written to.
    """
    file, text = folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n"
    if file.is_file():
        before = read_settings(folder)
        before.pop("num_problems", None)  # stands in folders made before they could grow
        if before != json.loads(text):
            names = [name for name in {**before, **settings} if before.get(name) != json.loads(text).get(name)]
            raise ConfigError(
                f"{folder} holds features of other settings ({', '.join(names)} differ); give another folder"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror or error}") from None


def _write_shard(file: Path, read: Sequence[_Read]) -> None:
    import torch
    from safetensors.torch import save

    columns: dict[str, list[int]] = {
        name: [] for name in ("problems", "parents", "num_solutions", "num_right", "leaves", "answers", "correct")
    }
    base = 0
    for number, (tree, ends, sampled, _) in enumerate(read):
        steps = tree.nodes[1:]
        told, right = Counter[NodeId](), Counter[NodeId]()
        for end, solution in zip(ends, sampled.solutions, strict=True):
            for node in tree.path(end):
                told[node.id] += 1
                right[node.id] += solution.correct
        columns["problems"] += [number] * len(steps)
        columns["parents"] += [step.parent - 1 + base if step.parent else -1 for step in steps]
        columns["num_solutions"] += [told[step.id] for step in steps]
        columns["num_right"] += [right[step.id] for step in steps]
        columns["leaves"] += [end - 1 + base for end in ends]
        columns["answers"] += [one.answer for one in sampled.solutions]
        columns["correct"] += [int(one.correct) for one in sampled.solutions]
        base += len(steps)
    tensors = {name: torch.tensor(values, dtype=torch.int32) for name, values in columns.items()}
    tensors["states"] = torch.cat([states for *_, states in read])
    ids = json.dumps([sampled.problem for _, _, sampled, _ in read])
    write_atomic(file, save(tensors, metadata={"problems": ids}))


def _held(folder: Path) -> set[str]:
    """The problems that a folder has features of."""
    return {name for _, names in _shards(folder, tensors=False) for name in names}


def read_settings(folder: Path) -> dict[str, Any]:
    """What the features in a folder are of.

    Raises:
        ConfigError: there are none.
        DataError: they cannot be read.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise ConfigError(f"{folder}: holds no features (no {SETTINGS_FILE}); ets probe collect makes them")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return {**values, "layers": [int(layer) for layer in values["layers"]], "num_layers": int(values["num_layers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: cannot be read ({error!r})") from None


def read_features(folders: Sequence[Path]) -> Features:
    """All features of some folders together; of a folder that is not complete, what is there.

    Raises:
        ConfigError: a folder holds none, or folders are of different models or layers.
        DataError: a shard is broken.
    """
    import torch

    settings = read_settings(folders[0])
    parts: list[tuple[dict[str, torch.Tensor], list[str]]] = []
    for folder in folders:
        other = read_settings(folder)
        for name in ("weights", "tokenizer", "layers", "num_layers"):
            if other.get(name) != settings.get(name):
                raise ConfigError(f"{folder} and {folders[0]} are of different models: {name} differs")
        parts += _shards(folder)
    if not parts:
        raise ConfigError(f"{folders[0]}: holds no finished shard yet")
    numbers: dict[str, int] = {}
    columns: dict[str, list[NDArray[np.int64]]] = {}
    base = 0
    for tensors, ids in parts:
        found = {name: one.numpy().astype(np.int64) for name, one in tensors.items() if name != "states"}
        if twice := [one for one in ids if one in numbers]:
            raise ConfigError(f"problem {twice[0]} stands in the features twice; collect all its solutions at once")
        known = np.array([numbers.setdefault(one, len(numbers)) for one in ids], np.int64)
        found["problems"] = known[found["problems"]]
        found["parents"] = np.where(found["parents"] >= 0, found["parents"] + base, -1)
        found["leaves"] = found["leaves"] + base
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
        base += len(found["parents"])
    whole = {name: np.concatenate(values) for name, values in columns.items()}
    whole["correct"] = whole["correct"].astype(np.bool_)
    states = torch.cat([tensors["states"] for tensors, _ in parts if len(tensors["states"])])
    return Features(settings, tuple(numbers), states, **whole)  # type: ignore[arg-type]


def _shards(folder: Path, *, tensors: bool = True) -> Iterator[tuple[dict[str, torch.Tensor], list[str]]]:
    """The columns of each shard, if `tensors`, and its problems."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("shard-*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                columns = {name: opened.get_tensor(name) for name in list(opened.keys()) if tensors}
                problems = json.loads(opened.metadata()["problems"])
        except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{file}: is no shard of features, or cut short ({error})") from None
        yield columns, problems
