"""`ets probe collect`: from recorded solutions, or the trees of kept runs, to the features that a probe learns from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prm.probe_features import Sampled, Solution, collect_features
from search.answers.graders import ComparingGrader, Grader, close_grader
from search.config import SearchSettings
from search.decision.vote import Candidate, candidates, vote
from search.engines.huggingface.tokenizer import HFTokenizer
from search.engines.stops import StopRule
from search.errors import ConfigError, DataError
from search.problems.data import read_data
from search.problems.rows import file_rows
from search.prompt.prompts import PromptRenderer
from search.protocols import Engine
from search.results.record import tree_from_record
from search.runs.report import read_run
from search.setup.registry import make_engine, make_grader, weights_of
from search.steps import line_end_tokens
from search.types import FinishReason, NodeId, Prefix, Sampling, Segment

_log = logging.getLogger("search")

_SHARES = (0.5, 0.625, 0.75, 0.875, 1.0)
"""Depths at which layers are read where none are named; a policy's middle layers know more than its last."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What features are to be made of, and on what.

    Attributes:
        settings: the policy, its engine, its prompt, its precision and its device; the grader.
        solutions: files of recorded solutions: `problem`, `text` as the model wrote it, its end token included where it
            ended, and, where the data has no reference, `answer` and `correct`.
        runs: folders of kept runs by that policy, or by another one of the same token ids, which is logged; the
            finished trajectories of their trees are taken.
        data: where the recorded solutions' problems stand, by id; None where `problem` is the question itself.
        layers: whose states, counted from 1; empty for five from the middle to the last.
        limit: problems to take; None for all.
        shard_size, concurrency: as in `collect_features`.
    """

    settings: SearchSettings
    solutions: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()
    data: str | None = None
    layers: tuple[int, ...] = ()
    limit: int | None = None
    shard_size: int = 20
    concurrency: int = 2


class _Read(NamedTuple):
    """A solution before its problem's answers are compared; `correct` is None where a reference is to say."""

    steps: tuple[tuple[int, ...], ...]
    answer: str | None
    correct: bool


@dataclass(slots=True)
class _Problem:
    prompt: tuple[int, ...]
    solutions: list[_Read] = field(default_factory=list)


def collect(
    wanted: Collection, folder: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> list[Sampled]:
    """Make features in a folder; finished shards are kept.

    Args:
        wanted: of what.
        folder: of the shards.
        report: told how many problems of how many are done.

    Returns:
        The problems with their solutions.

    Raises:
        ConfigError: nothing to read, a model that cannot be used, or a folder of other features.
        DataError: a row or a record is broken.
        EngineError: the model could not be asked; finished shards are kept.
    """
    if not wanted.solutions and not wanted.runs:
        raise ConfigError("give recorded solutions (--solutions FILE) or kept runs (--run DIR)")
    settings = wanted.settings
    engine = make_engine(settings.engine, settings.policy, settings, settings.max_kv_tokens)
    grader = make_grader(_grader(wanted))

    async def run() -> list[Sampled]:
        try:
            layers = _layers(wanted, engine)
            problems = await asyncio.to_thread(_problems, wanted, engine, grader)
            sampled = [_sampled(name, one, grader) for name, one in problems.items()][: wanted.limit]
            if not sampled:
                raise DataError("there is no finished solution of a problem with a known answer")
            kept = {
                "policy": settings.policy,
                "weights": weights_of(settings.policy),
                "tokenizer": engine.tokenizer.fingerprint,
                "num_layers": _num_layers(engine),
                "dtype": settings.dtype,
                "sources": [str(one) for one in (*wanted.solutions, *wanted.runs)],
                "data": wanted.data,
                "grader": grader.name,
            }
            await collect_features(
                engine,
                sampled,
                layers,
                folder,
                kept,
                shard_size=wanted.shard_size,
                concurrency=wanted.concurrency,
                report=lambda done, note: report(done, len(sampled)),
            )
            return sampled
        finally:
            await engine.aclose()

    try:
        return asyncio.run(run())
    finally:
        close_grader(grader)


def _grader(wanted: Collection) -> str:
    """Who grades: as asked for, or as the first run was graded; mathematics otherwise."""
    if wanted.settings.grader != "auto":
        return wanted.settings.grader
    return read_run(wanted.runs[0]).settings.grader if wanted.runs else "math"


def _num_layers(engine: Engine) -> int:
    return int(engine.info.details.get("layers", 0))


def _layers(wanted: Collection, engine: Engine) -> tuple[int, ...]:
    """The layers to read: those asked for, or, on a server, the last, which is all that it gives."""
    number = _num_layers(engine)
    if engine.info.name != "local" and not wanted.layers:
        return (number,)
    return middle_layers(wanted.settings.policy, number, wanted.layers)


def middle_layers(model: str, number: int, asked: Sequence[int]) -> tuple[int, ...]:
    """Layers of a model of `number` layers to be read: those asked for, else five from the middle on.

    Raises:
        ConfigError: the model has no such layer.
    """
    if wrong := [layer for layer in asked if not 1 <= layer <= number]:
        raise ConfigError(f"layer {wrong[0]}: {model} has {number} layers, counted from 1")
    return tuple(sorted(set(asked) or {max(1, round(share * number)) for share in _SHARES}))


def _problems(wanted: Collection, engine: Engine, grader: Grader) -> dict[str, _Problem]:
    """All problems with their solutions, in the order in which they come."""
    found: dict[str, _Problem] = {}
    for folder in wanted.runs:
        for name, prompt, solution in _of_run(folder, wanted.settings.policy, engine, grader):
            known = found.setdefault(name, _Problem(prompt))
            if known.prompt != prompt:
                raise ConfigError(f"{folder}: problem {name} was asked in another way than in another source")
            known.solutions.append(solution)
    if wanted.solutions:
        reader = _RowReader(wanted, engine, grader)
        for file in wanted.solutions:
            for row in file_rows(file):
                name, prompt, solution = reader.read(row.values, row.where)
                if name not in found and wanted.limit is not None and len(found) >= wanted.limit:
                    continue
                found.setdefault(name, _Problem(prompt)).solutions.append(solution)
    return found


def _of_run(folder: Path, policy: str, engine: Engine, grader: Grader) -> Iterator[tuple[str, tuple[int, ...], _Read]]:
    """The finished trajectories of a kept run, graded.

    A run of the same model under another name may be read, e.g. of its .gguf file; one of other token ids may not.
    """
    run = read_run(folder)
    if run.settings.writer != "model":
        raise ConfigError(f"{folder} was written by a draft and a target; features are of one model's own steps")
    foreign = run.settings.policy != policy
    if foreign:
        _log.warning("%s was written by %s; its steps are read by %s", folder, run.settings.policy, policy)
    for record in run.records:
        if record.tree is None or record.reference is None:
            continue
        tree = tree_from_record(record.tree)
        for one in candidates(tree, "last", grader):
            path = [node for node in tree.path(one.node)[1:] if node.ids]
            ids = [token for node in path for token in node.ids]
            if foreign and not _spells(engine, ids, "".join(node.text for node in path)):
                raise ConfigError(f"{folder} was written by {run.settings.policy}, whose token ids are not {policy}'s")
            right = grader.correct(one.answer, record.reference) is True
            if path:
                yield record.problem_id, tree.root.ids, _Read(tuple(node.ids for node in path), one.answer, right)


def _spells(engine: Engine, ids: Sequence[int], text: str) -> bool:
    """Whether this text is what the model's tokens of these ids say."""
    return all(token < engine.info.vocab_size for token in ids) and engine.tokenizer.decode(ids) == text


class _RowReader:
    """Reads recorded solutions as the policy wrote them: in its ids, cut into steps where its engine would end them."""

    def __init__(self, wanted: Collection, engine: Engine, grader: Grader) -> None:
        tokenizer, settings = engine.tokenizer, wanted.settings
        if not isinstance(tokenizer, HFTokenizer):
            raise ConfigError(f"engine {engine.info.name} has no tokenizer that recorded texts can be cut with")
        prompts = PromptRenderer(settings, tokenizer)
        self._tokenizer, self._grader, self._prompts = tokenizer, grader, prompts
        self._rule = StopRule(tokenizer.table, prompts.style.stop, tokenizer.eos_ids)
        most = settings.max_step_tokens
        self._sampling = Sampling(
            max_new_tokens=most,
            stop=prompts.style.stop,
            min_new_tokens=settings.min_step_tokens,
            line_end_tokens=line_end_tokens(most),
        )
        self._problems = None if wanted.data is None else {one.id: one for one in read_data(wanted.data).problems}
        self._data = wanted.data
        self._known: dict[str, tuple[int, ...]] = {}

    def read(self, row: Mapping[str, Any], where: str) -> tuple[str, tuple[int, ...], _Read]:
        """A problem's id, its prompt, and one solution.

        Raises:
            DataError: a column is missing or of another kind, or the problem is not among the data.
        """
        name, text = row.get("problem"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str) or not text:
            raise DataError(f"{where}: a recorded solution has `problem` and `text`, both text")
        problem = None if self._problems is None else self._problems.get(name)
        if self._problems is not None and problem is None:
            raise DataError(f"{where}: problem {name!r} is not in {self._data}")
        if name not in self._known:
            self._known[name] = self._prompts.render(name if problem is None else problem.text).ids
        ids = self._tokenizer.encode(text)
        prompt = self._known[name]
        if problem is not None and problem.answer is not None:
            answer = self._grader.extract(self._tokenizer.decode(ids))
            correct = self._grader.correct(answer, problem.answer) is True
        else:
            if not isinstance(row.get("correct"), bool):
                raise DataError(f"{where}: without a reference answer (--data) `correct` must be true or false")
            answer = None if row.get("answer") is None else str(row["answer"])
            correct = bool(row["correct"])
        return name, prompt, _Read(tuple(self._steps(prompt, ids)), answer, correct)

    def _steps(self, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """A text's steps, ended by the rule that ends them while they are written."""
        segments = [Segment(0, prompt)]
        at = 0
        while at < len(ids):
            writing = self._rule.begin(Prefix("", tuple(segments)))
            ahead = ids[at : at + self._sampling.max_new_tokens]
            number, finish = self._rule.find_end(writing, (), ahead, self._sampling)
            yield ahead[:number]
            at += number
            if finish is FinishReason.EOS:
                return
            segments.append(Segment(len(segments), ahead[:number]))


def _sampled(name: str, problem: _Problem, grader: Grader) -> Sampled:
    """A problem's solutions with their answers numbered, equal ones alike, as a vote takes them."""
    voters = [
        Candidate(NodeId(at), one.answer, None, None if one.answer is None else grader.key(one.answer))
        for at, one in enumerate(problem.solutions)
    ]
    classes = vote(voters, "majority", grader.equivalent if isinstance(grader, ComparingGrader) else None).classes
    numbers = {node: number for number, one in enumerate(classes) for node in one.nodes}
    solutions = tuple(
        Solution(one.steps, numbers.get(NodeId(at), -1), one.correct) for at, one in enumerate(problem.solutions)
    )
    return Sampled(name, problem.prompt, solutions)


def num_steps(sampled: Iterable[Sampled] | Sequence[Sampled]) -> int:
    """Steps of all solutions, shared ones counted for each."""
    return sum(len(solution.steps) for one in sampled for solution in one.solutions)
