"""Recorded solutions as a model: their steps, at their lengths, come back in searches that no model has to run for.

A recording is rows of a problem's id, a solution's text, and whether it is right. The project's own step detector cuts
each text. A search on it draws a child at depth d from the d-th steps of all solutions that have so many, so what is
real is how long the steps of a depth are and how often they are the last; a trajectory as a whole is nobody's solution.

Problems of like length, `NUM_LIKE` at a time, are one problem here: a dozen recorded solutions are too few for a width
of 64, whose longest step would be the same one over and over.
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.engines.counter import uniform
from search.errors import DataError, EngineError
from search.parts import Stateless
from search.problems.rows import file_rows
from search.steps import split_steps
from search.tree import SearchTree
from search.types import Child, EngineInfo, FinishReason, Generation, NodeId, Prefix, Problem, Prompt, Sampling, Usage

NUM_LIKE = 6
"""Recorded problems that make one."""

AUC = 0.8
"""How well simulated rewards tell right from wrong within a problem, as a process reward model of today does."""

SEPARATION = math.sqrt(2) * statistics.NormalDist().inv_cdf(AUC)
"""Distance of the means of right and of wrong, in standard deviations, at which two normal variables have this AUC."""

_CONTEXT_TOKENS = 1 << 20

_PIECE = re.compile(
    r"<\|\w+\|>|'(?:s|t|re|ve|m|ll|d)|[^\r\n\w]?[^\W\d_]+|\d| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+|_"
)
"""What stands for a token: a word with the sign before it, a digit, a run of signs.

Tokenizers of today split like this before they look anything up, and know most words. Against Qwen2.5's own it counts
4% too few tokens; nine in ten steps are between 0.87 and 1.21 of their length there.
"""


class PieceTokenizer:
    """Texts cut into words and signs; a piece's id is its place in the order of first use. No text is special."""

    start = ""
    eos_ids = controls = tags = frozenset[Any]()

    def __init__(self) -> None:
        """Know nothing yet."""
        self.pieces: list[str] = []
        self._ids: dict[str, int] = {}

    @property
    def fingerprint(self) -> str:
        """A hash of the pieces."""
        return hashlib.sha256("\0".join(self.pieces).encode()).hexdigest()

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the text's pieces; new ones are learnt."""
        ids = []
        for piece in _PIECE.findall(text):
            if piece not in self._ids:
                self._ids[piece] = len(self.pieces)
                self.pieces.append(piece)
            ids.append(self._ids[piece])
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The pieces put together."""
        return "".join(self.pieces[token] for token in ids)

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object] = {}) -> str | None:
        """None: there is no chat template."""
        return None


def read_solutions(file: Path) -> dict[str, list[tuple[list[str], bool]]]:
    """The recorded solutions of each problem, in the order of the file: their steps, and whether they are right.

    Args:
        file: rows with `problem`, `text` and `correct`.

    Raises:
        ConfigError: a kind of file that is not known.
        DataError: a row without these fields, or no row.
    """
    solutions: dict[str, list[tuple[list[str], bool]]] = {}
    for row in file_rows(file):
        for name, kind in (("problem", (str, int)), ("text", str), ("correct", bool)):
            value = row.values.get(name)
            if not isinstance(value, kind) or (name == "problem" and isinstance(value, bool)):
                shown = "missing" if name not in row.values else repr(value)[:40]
                raise DataError(
                    f"{row.where}: {name} is {shown}; a solution has problem, text, answer and correct (a bool)"
                )
        problem, text, correct = (row.values[name] for name in ("problem", "text", "correct"))
        solutions.setdefault(str(problem), []).append((split_steps(text), correct))
    if not solutions:
        raise DataError(f"{file}: holds no solutions")
    return solutions


@dataclass(frozen=True, slots=True)
class _Solution:
    """A recorded solution: the ids of its steps, and whether its answer is right."""

    steps: tuple[tuple[int, ...], ...]
    correct: bool


class Recording:
    """Problems with their recorded solutions."""

    def __init__(self, file: Path) -> None:
        """Read a file of solutions; empty ones are left out.

        Raises:
            ConfigError, DataError: as `read_solutions`, or too few problems.
        """
        self.tokenizer = PieceTokenizer()
        recorded: dict[str, list[_Solution]] = {}
        for name, solutions in read_solutions(file).items():
            written = [(tuple(map(self.tokenizer.encode, steps)), correct) for steps, correct in solutions if steps]
            if written:
                recorded[name] = [_Solution(*one) for one in written]
        by_length = sorted(recorded, key=lambda name: (_mean_tokens(recorded[name]), name))
        groups = [by_length[start : start + NUM_LIKE] for start in range(0, len(by_length), NUM_LIKE)]
        self._solutions: dict[int, tuple[_Solution, ...]] = {}
        self.prompts: dict[str, Prompt] = {}
        for group in groups:
            if len(group) == NUM_LIKE:
                (token,) = self.tokenizer.encode(f"<|{len(self._solutions)}|>")
                self._solutions[token] = tuple(one for name in group for one in recorded[name])
                self.prompts[group[0]] = Prompt(group[0], (token,))
        if not self.prompts:
            raise DataError(f"{file}: {len(recorded)} problems; at least {NUM_LIKE} are needed")

    def problems(self, limit: int) -> list[Problem]:
        """As many problems as asked for or there are, spread evenly over all lengths."""
        names = list(self.prompts)
        count = min(limit, len(names))
        return [Problem(name, name) for name in (names[i * len(names) // count] for i in range(count))]

    def draw(self, prompt: Sequence[int], number: int, seed: int) -> _Solution:
        """The solution whose next step a seed stands for, after so many others."""
        able = [solution for solution in self._solutions[prompt[0]] if len(solution.steps) > number]
        if not able:
            raise EngineError(f"no recorded solution has more than {number} steps")
        return able[int(uniform(seed, 0) * len(able))]

    def reward(self, prompt: Sequence[int], number: int, seed: int) -> float:
        """A step's simulated reward: a unit normal number, higher for steps of right solutions, as a probability."""
        u, v = uniform(seed, 1), uniform(seed, 2)
        noise = math.sqrt(-2 * math.log1p(-u)) * math.cos(2 * math.pi * v)
        right = self.draw(prompt, number, seed).correct
        return 1 / (1 + math.exp(-(noise + (SEPARATION / 2 if right else -SEPARATION / 2))))


def _mean_tokens(solutions: Sequence[_Solution]) -> float:
    return statistics.fmean(sum(map(len, solution.steps)) for solution in solutions)


class Playback:
    """What engines of recorded texts share: exact seeds, no limit, and nothing but texts."""

    def __init__(self, tokenizer: PieceTokenizer) -> None:
        """Write in the pieces of `tokenizer`, which has read all texts."""
        self.tokenizer = tokenizer
        self.info = EngineInfo("recorded", "recorded", _CONTEXT_TOKENS, len(tokenizer.pieces), seeds="exact")

    async def label_logprobs(self, prefix: Prefix, labels: Sequence[int]) -> tuple[float, ...]:
        """Nothing of that kind was recorded."""
        raise EngineError("a recording has no probabilities")

    async def read(
        self, prefix: Prefix, what: Literal["head", "hidden"], layers: Sequence[int] = ()
    ) -> tuple[float, ...]:
        """Nothing of that kind was recorded."""
        raise EngineError("a recording has no hidden states")

    def usage(self, tree: str) -> Usage:
        """Nothing runs."""
        return Usage()

    async def release(self, tree: str, keys: Collection[int] | None = None) -> None:
        """Nothing is held."""

    async def aclose(self) -> None:
        """Nothing runs."""


class RecordedEngine(Playback):
    """An engine that answers with recorded steps."""

    def __init__(self, recording: Recording) -> None:
        """Answer from `recording`."""
        super().__init__(recording.tokenizer)
        self._recording = recording

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """Draw a step for each child."""
        number = len(prefix.segments) - 1
        for child in children:
            steps = self._recording.draw(prefix.segments[0].ids, number, child.seed).steps
            ids, last = steps[number], number + 1 == len(steps)
            finish = FinishReason.EOS if last else FinishReason.STOP
            if len(ids) > sampling.max_new_tokens:
                ids, finish = ids[: sampling.max_new_tokens], FinishReason.LENGTH
            yield Generation(child.key, ids, self.tokenizer.decode(ids), finish)


class RecordedScorer(Stateless):
    """Simulated rewards for recorded steps, in no time."""

    scores_ahead = True

    def __init__(self, recording: Recording) -> None:
        """Score steps of `recording`."""
        self._recording = recording

    async def score(self, tree: SearchTree, nodes: Sequence[NodeId]) -> tuple[float, ...]:
        """The recording's rewards."""
        every = (tree[node] for node in nodes)
        return tuple(self._recording.reward(tree.root.ids, node.depth - 1, node.seed) for node in every)
