"""`ets bench stopping`: what a search saves that stops before its width is spent, and how often its answer changes.

Searches run by the ordinary loop in virtual time, a token of every row a tick, so that what is saved is exact and
repeatable. Of the mini family, by any method; or flat votes over recorded solutions, which come back whole, in the
order of their file, each in as many ticks as it has tokens.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search.errors import ConfigError, DataError, EngineError
from search.problems.data import load_problems
from search.results.result import Result
from search.studies.measured import InVirtualTime, solve_alone, suffix
from search.studies.recorded import PieceTokenizer, Playback, read_solutions
from search.support.statistics import paired_estimate
from search.types import Child, FinishReason, Generation, Prefix, Problem, Sampling

FLAT = ("best-of-n", "self-consistency")
"""Methods of flat votes: they compare nothing on the way, and may begin their chains one by one."""

DEFAULT_WIDTH = 16

WAYS: Mapping[str, dict[str, Any]] = {
    "decided": {},
    **{f"confidence_{share}": {"confidence": share / 100} for share in (99, 95, 90)},
}
"""Settings of each way to stop early."""


class RecordedSolutions(Playback):
    """Recorded solutions as an engine that writes whole solutions: for each new seed the next one of the problem.

    Attributes:
        problems: with placeholders for their texts, which are not recorded.
        num_solutions: of each of them, at least.
    """

    def __init__(self, file: Path, num_solutions: int | None = None) -> None:
        """Read recorded solutions; empty ones, and problems that have too few, are left out, which stderr is told.

        Args:
            file: as `search.studies.recorded.read_solutions` takes it.
            num_solutions: that a problem must have; None for as many as most problems have.

        Raises:
            ConfigError, DataError: as there, or no problem has so many.
        """
        pieces = PieceTokenizer()
        recorded = {
            name: [(pieces.encode("".join(steps)), right) for steps, right in solutions if steps]
            for name, solutions in read_solutions(file).items()
        }
        self.num_solutions = num_solutions or statistics.mode(map(len, recorded.values()))
        enough = {name: written for name, written in recorded.items() if len(written) >= self.num_solutions}
        if not enough:
            raise DataError(f"{file}: no problem has {self.num_solutions} solutions")
        if few := len(recorded) - len(enough):
            sys.stderr.write(f"stopping: left out, with fewer than {self.num_solutions} solutions: {few} problems\n")
        self.problems = [Problem(name, f"<|{number}|>") for number, name in enumerate(enough)]
        self._written = dict(zip((problem.text for problem in self.problems), enough.values(), strict=True))
        for question in self._written:
            pieces.encode(question)
        self._given: dict[str, dict[int, int]] = {question: {} for question in self._written}
        super().__init__(pieces)

    async def generate(
        self, prefix: Prefix, children: Sequence[Child], sampling: Sampling
    ) -> AsyncGenerator[Generation, None]:
        """The next solution for each seed that is new, the same one again for each that is known."""
        asked = re.search(r"<\|\d+\|>", self.tokenizer.decode(prefix.ids))
        if asked is None or asked[0] not in self._written:
            raise EngineError("nothing is recorded for this prompt")
        written, given = self._written[asked[0]], self._given[asked[0]]
        for child in children:
            number = given.setdefault(child.seed, len(given))
            if number >= len(written):
                raise EngineError(f"only {len(written)} solutions are recorded for this problem")
            ids, _ = written[number]
            yield Generation(child.key, ids, self.tokenizer.decode(ids), FinishReason.EOS)

    def right_answers(self, whole: Result) -> set[str | None]:
        """Answers, as keys, that most of the solutions that gave them were recorded as right with.

        Args:
            whole: a vote over all solutions of a problem.
        """
        recorded = dict(self._written[whole.problem.text])
        tally: Counter[str | None] = Counter()
        for candidate in whole.verdict.candidates:
            tally[candidate.key] += 1 if recorded[whole.tree[candidate.node].ids] else -1
        return {key for key, more in tally.items() if key is not None and more > 0}


class _Source:
    """Where searches come from: the mini family, or recorded solutions."""

    def __init__(self, data: str, limit: int, width: int | None) -> None:
        self.recorded = None if data.startswith("mini:") else RecordedSolutions(Path(data), width)
        if self.recorded is None:
            self.steps, self.problems = InVirtualTime.mini(), load_problems(data, limit)
        else:
            # A whole solution is one step here, of any length.
            long = {"max_step_tokens": 10**6, "max_tokens": 10**6}
            self.steps = InVirtualTime(self.recorded, None, prompt="plain", grader="math", **long)
            self.problems = self.recorded.problems[:limit]

    def right(self, results: Sequence[Result], whole: Sequence[Result]) -> list[float]:
        """100 for a right answer, else 0."""
        if self.recorded is None:
            return [100.0 * (result.correct is True) for result in results]
        right_answers = map(self.recorded.right_answers, whole)
        return [100.0 * (_answer(result) in answers) for result, answers in zip(results, right_answers, strict=True)]


def run(
    limit: int | None = None,
    seed: int = 0,
    data: str = "mini:test",
    widths: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure.

    Args:
        limit: problems; default 300.
        seed: of all searches.
        data: `mini:SPLIT`, searched by the mini family, or a file of recorded solutions: rows of problem, text, answer
            and correct.
        widths: of the searches; default 16, of recorded solutions as many as most problems have.
        methods: to search with; default self-consistency, rebase and ets, of recorded solutions self-consistency.

    Returns:
        `figures`, for each width W and each way to stop: `decided`, `confidence_99`, `confidence_95`, `confidence_90`,
        and for flat votes each of them with `_needed`, where chains begin as `--begin needed` says. `saved_WAY_W`: the
        percentage of the policy's tokens that it saves, over all problems; `changed_WAY_W`: of problems whose answer
        is another one; `accuracy_diff_WAY_W`, with `_lo` and `_hi`: points, paired by problem; `ticks_WAY_W`: token
        steps one after the other, mean over problems, each alone. `accuracy_spent_W`, `tokens_spent_W` and
        `ticks_spent_W` of the whole width. Methods other than self-consistency have their name as a suffix.

    Raises:
        ConfigError, DataError: data that cannot be read, or a method that is not known.
    """
    flat_only = not data.startswith("mini:")
    methods = methods or ("self-consistency",) if flat_only else methods or ("self-consistency", "rebase", "ets")
    if flat_only and (trees := [method for method in methods if method not in FLAT]):
        accepted = " or ".join(FLAT)
        raise ConfigError(f"bench stopping: method {trees[0]}: recorded solutions are flat; give {accepted}")
    figures: dict[str, float] = {}
    for asked in widths or (None,):
        source = _Source(data, limit or 300, asked)
        width = asked or (source.recorded.num_solutions if source.recorded else DEFAULT_WIDTH)
        try:
            for method in methods:
                settings = {"method": method, "width": width, "seed": seed}
                figures |= _method(source, settings, f"_{width}{suffix(method, 'self-consistency')}")
        finally:
            source.steps.close()
    return {"data": data, "num_problems": len(source.problems), "seed": seed, "figures": figures}


def _method(source: _Source, settings: Mapping[str, Any], ending: str) -> dict[str, float]:
    """The figures of one method."""
    ways = dict(WAYS)
    if settings["method"] in FLAT:
        ways |= {f"{name}_needed": {**way, "begin": "needed"} for name, way in WAYS.items()}
    whole, ticks = _searched(source, {**settings, "until": "spent"})
    right = source.right(whole, whole)
    figures = {
        f"accuracy_spent{ending}": statistics.fmean(right) / 100,
        f"tokens_spent{ending}": _tokens(whole) / len(whole),
        f"ticks_spent{ending}": ticks,
    }
    for name, way in ways.items():
        stopped, ticks = _searched(source, {**settings, **way})
        saved = 100 * (1 - _tokens(stopped) / _tokens(whole))
        changed = sum(_answer(early) != _answer(full) for early, full in zip(stopped, whole, strict=True))
        figures[f"saved_{name}{ending}"] = saved
        figures[f"changed_{name}{ending}"] = 100 * changed / len(whole)
        figures[f"ticks_{name}{ending}"] = ticks
        points = paired_estimate(source.right(stopped, whole), right)
        figures |= points.figures(f"accuracy_diff_{name}", ending)
        sys.stderr.write(f"stopping: {name}{ending} saves {saved:.1f}%, {changed} of {len(whole)} answers changed\n")
    return figures


def _searched(source: _Source, settings: Mapping[str, Any]) -> tuple[list[Result], float]:
    """Every problem by itself, and the ticks each took in the mean."""
    solved = solve_alone(source.problems, lambda clock: source.steps.search(clock, settings).asolve)
    return [result for result, _ in solved], statistics.fmean(ticks for _, ticks in solved)


def _tokens(results: Sequence[Result]) -> int:
    return sum(result.stats.policy_tokens or 0 for result in results)


def _answer(result: Result) -> str | None:
    """What the vote answers, in whatever way it is written."""
    return next((candidate.key for candidate in result.verdict.candidates if candidate.node == result.winner), None)
