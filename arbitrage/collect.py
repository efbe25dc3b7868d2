"""Collecting what a router learns from: draft and target side by side along a path, both steps scored at each node."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arbitrage.models import ModelSession, ModelView
from arbitrage.walks import DRAFT, TARGET, StepPair, Walk, encode_states, read_shard, shard_file, shard_text
from search.errors import ConfigError, ContextOverflowError, DataError, EngineError
from search.protocols import Scorer, ScorerSession
from search.support.streams import closing, side_by_side
from search.tree import SearchTree
from search.types import ROOT, Child, FinishReason, Generation, NodeId, Problem, Prompt, Sampling, Step

Verdict = Callable[[Problem, Sequence[str]], bool]
"""Whether the last of a solution's steps is right."""

Grade = Callable[[Problem, str], bool | None]
"""Whether a solution's answer is right; None without a reference."""

SETTINGS = (
    "draft",
    "target",
    "prm",
    "data",
    "field",
    "skip",
    "shard_size",
    "temperature",
    "num_samples",
    "seed",
    "max_depth",
    "states",
)
"""What a shard's head says of how it came about; shards of one folder agree on it."""


@dataclass(frozen=True, slots=True)
class CollectSettings:
    """How walks are made.

    Attributes:
        sampling: of every step; the paper's is greedy.
        num_samples: the target's steps at each node, over whose rewards a mean is taken; 1 at temperature 0.
        seed: of the run.
        max_tokens: tokens of a path, the prompt not counted.
        max_depth: steps of a path.
        layers: whose states of the draft are kept; None keeps none.
    """

    sampling: Sampling
    num_samples: int = 1
    seed: int = 0
    max_tokens: int = 1024
    max_depth: int = 25
    layers: tuple[int, ...] | None = None


class Collector:
    """Makes walks with a draft, a target and a scorer. A walk goes on with the step that is scored better."""

    def __init__(
        self,
        draft: ModelView,
        target: ModelView,
        scorer: Scorer,
        settings: CollectSettings,
        *,
        prompt: Callable[[Problem], Prompt],
        verdict: Verdict | None = None,
        grade: Grade = lambda problem, text: None,
    ) -> None:
        """Put the parts together.

        Args:
            draft: the smaller model.
            target: the larger one; ids of walks are its own.
            scorer: gives s_d and s_t.
            settings: how.
            prompt: a problem as the target is asked it.
            verdict: a checker of steps, where the data has one.
            grade: a checker of answers.

        Raises:
            ConfigError: several samples of the target at temperature 0, which would all be the same.
        """
        if settings.num_samples > 1 and settings.sampling.temperature == 0:
            raise ConfigError(
                f"samples {settings.num_samples}: at temperature 0 they are all the same; set a temperature"
            )
        self._draft, self._target, self._scorer, self._settings = draft, target, scorer, settings
        self._prompt, self._verdict, self._grade = prompt, verdict, grade

    async def walk(self, problem: Problem) -> Walk:
        """One problem's walk; it ends early where a model's context does.

        Raises:
            EngineError, ScoringError: a model could not do its work.
        """
        prompt = self._prompt(problem)
        tree = SearchTree(f"{problem.id}#collect", prompt.ids, prompt.text, problem.text)
        pairs: list[StepPair] = []
        above, over = ROOT, False
        async with (
            self._draft.open(tree) as draft,
            self._target.open(tree) as target,
            self._scorer.open(tree) as scorer,
        ):
            while not over and tree[above].depth < self._settings.max_depth:
                try:
                    pair, above, over = await self._step((draft, target, scorer), problem, tree, above)
                except ContextOverflowError:
                    break
                pairs.append(pair)
        correct = self._grade(problem, tree.solution_text(above))
        return Walk(problem.id, problem.text, tree.root.ids, prompt.text, tuple(pairs), correct)

    async def _step(
        self, parts: tuple[ModelSession, ModelSession, ScorerSession], problem: Problem, tree: SearchTree, above: NodeId
    ) -> tuple[StepPair, NodeId, bool]:
        """Both models' steps below a node; the pair, the step taken, and whether it ended the path."""
        (draft, target, scorer), settings = parts, self._settings
        before = [node.text for node in tree.path(above)[1:]]
        left = settings.max_tokens - tree[above].num_path_tokens + tree.root.num_path_tokens
        drafted, *targeted = [tree.add_child(above) for _ in range(1 + settings.num_samples)]
        (ours,), theirs = await asyncio.gather(
            self._write(draft, problem, tree, above, [drafted]),
            self._write(target, problem, tree, above, targeted),
        )
        step = draft.step(drafted, ours, DRAFT)
        for written in (step, *(target.step(node, each, TARGET) for node, each in zip(targeted, theirs, strict=True))):
            tree.write(written)
        (draft_reward, *target_rewards), states = await asyncio.gather(
            scorer.score(tree, [drafted, *targeted]), self._states(tree, draft, step)
        )
        # Where several were drawn, their mean decides and the first of them is what a target would have written.
        target_reward = sum(target_rewards) / len(target_rewards)
        first = theirs[0]
        takes_target = target_reward > draft_reward
        pair = StepPair(
            draft_ids=tree[drafted].ids,
            draft_text=ours.text,
            target_ids=tree[targeted[0]].ids,
            target_text=first.text,
            draft_reward=draft_reward,
            target_reward=target_reward,
            takes_target=takes_target,
            draft_right=self._right(problem, [*before, ours.text]),
            target_right=self._right(problem, [*before, first.text]),
            draft_logprobs=ours.logprobs,
            draft_states=states,
        )
        taken, chosen = (targeted[0], first) if takes_target else (drafted, ours)
        for node in (drafted, *targeted):
            if node != taken:
                for part in parts:
                    await part.release({tree[node].seed})
        over = chosen.finish in (FinishReason.EOS, FinishReason.CONTEXT) or len(tree[taken].ids) >= left
        return pair, taken, over

    async def _states(self, tree: SearchTree, draft: ModelSession, step: Step) -> str | None:
        """What the draft knows at the end of its step, kept while its cache is there: no text is read again."""
        layers = self._settings.layers
        return None if layers is None else encode_states(await draft.states(tree, step, layers))

    async def _write(
        self, model: ModelSession, problem: Problem, tree: SearchTree, above: NodeId, nodes: Sequence[NodeId]
    ) -> list[Generation]:
        """A model's steps for pending nodes, in their order."""
        children = [Child(tree[node].seed, self._seed(problem, node)) for node in nodes]
        by_key: dict[int, Generation] = {}
        async with closing(model.generate(model.prefix(tree, above), children, self._settings.sampling)) as steps:
            async for step in steps:
                by_key[step.key] = step
        missing = [child.key for child in children if child.key not in by_key or not by_key[child.key].ids]
        if missing:
            raise EngineError(f"problem {problem.id}: the engine wrote no step", endpoint=model.engine.info.model)
        return [by_key[child.key] for child in children]

    def _seed(self, problem: Problem, node: NodeId) -> int:
        return random.Random(f"{self._settings.seed}/{problem.id}/{node}").getrandbits(64)

    def _right(self, problem: Problem, steps: Sequence[str]) -> bool | None:
        return None if self._verdict is None else self._verdict(problem, steps)


async def collect(
    collector: Collector,
    problems: Sequence[Problem],
    folder: Path,
    origin: Mapping[str, Any],
    write: Callable[[Path, str], None],
    *,
    concurrency: int = 64,
    report: Callable[[int, str], None] = lambda done, note: None,
) -> list[Walk]:
    """Walk all problems, a shard at a time; shards that are there are read back.

    Args:
        collector: makes the walks.
        problems: in order.
        folder: of the shards.
        origin: the `SETTINGS`, kept in each shard's head.
        write: writes a file whole or not at all.
        concurrency: problems side by side.
        report: told how many problems are done, and a note.

    Raises:
        ConfigError: the folder holds shards of other settings.
        EngineError, ScoringError: a model could not do its work; finished shards are kept.
    """
    size = int(origin["shard_size"])
    every: list[Walk] = []
    for number, start in enumerate(range(0, len(problems), size)):
        part = problems[start : start + size]
        file = shard_file(folder, number)
        walks = _kept(file, part, origin, report, start)
        if walks is None:
            walks = await side_by_side(collector.walk, part, concurrency, lambda done, at=start: report(at + done, ""))  # type: ignore[misc]
            write(file, shard_text(walks, origin))
        every += walks
        report(start + len(part), "")
    return every


def _kept(
    file: Path, part: Sequence[Problem], origin: Mapping[str, Any], report: Callable[[int, str], None], done: int
) -> list[Walk] | None:
    """A finished shard's walks; None where it has to be made."""
    if not file.exists():
        return None
    try:
        head, walks = read_shard(file)
    except DataError:
        report(done, f"{file.name} is cut short and is made anew")
        return None
    changed = [name for name in SETTINGS if head.get(name) != origin.get(name)]
    if changed:
        name = changed[0]
        raise ConfigError(
            f"{file} was collected with {name} {head.get(name)!r}, now it is {origin.get(name)!r}; give another --out, "
            "or the same settings"
        )
    return walks if [walk.problem_id for walk in walks] == [problem.id for problem in part] else None
