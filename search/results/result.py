"""What a person gets from a search: the answer by vote, its trajectory, the others, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from html import escape
from typing import Any

from search.answers.graders import Grader
from search.decision.verdict import Verdict, decide
from search.decision.vote import Candidate
from search.loop.outcome import SearchOutcome
from search.results.record import ProblemRecord, costs_record, problem_record, stats_record
from search.support.tables import Table
from search.tree import SearchTree
from search.types import NodeId, Reduce, VoteRule


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A finished solution.

    Attributes:
        node: its last node.
        text: all its steps, the prompt left out.
        answer: what was found in it; None if nothing was.
        reward: its step rewards reduced; None without a reward model.
        rewards: one for each step.
        num_tokens: its own tokens, shared ones included, the prompt left out; None where the tree's ids are no tokens.
        reason: why it ended.
    """

    node: NodeId
    text: str
    answer: str | None
    reward: float | None
    rewards: tuple[float | None, ...]
    num_tokens: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(SearchOutcome):
    """A solved problem: what came of the search, and what its trajectories were found to say.

    Attributes:
        verdict: of the vote and the grader.
        trajectories: all finished ones, in the order of their nodes.
        method, width, seed: how it was searched.
    """

    verdict: Verdict
    trajectories: tuple[Trajectory, ...]
    method: str
    width: int
    seed: int

    @property
    def answer(self) -> str | None:
        """The vote's winner; None if no trajectory gave an answer."""
        return self.verdict.answer

    @property
    def correct(self) -> bool | None:
        """Against the reference; None without one, and where the grader cannot decide."""
        return self.verdict.correct

    @property
    def tally(self) -> Mapping[str, float]:
        """The weight each answer got in the vote, heaviest first."""
        return self.verdict.tally

    @property
    def winner(self) -> NodeId | None:
        """The last node of the best trajectory that gives the answer; None without an answer."""
        return self.verdict.winner

    @property
    def text(self) -> str:
        """The best trajectory that gives the answer; empty without an answer."""
        return next((one.text for one in self.trajectories if one.node == self.winner), "")

    def _repr_html_(self) -> str:
        """As a notebook shows it: the answer, its solution, the vote, the cost, and the tree to be opened."""
        verdict = "" if self.correct is None else " (right)" if self.correct else " (wrong)"
        rows = (
            ("answer", "none" if self.answer is None else f"{self.answer}{verdict}"),
            ("search", f"{self.method}, width {self.width}, seed {self.seed}"),
            ("votes", ", ".join(f"{answer}: {weight:.3g}" for answer, weight in self.tally.items())),
            ("tokens written", self.stats.policy_tokens),
            ("KV tokens, peak", self.stats.kv_tokens_peak),
            ("seconds", round(self.stats.seconds, 2)),
            *((("branches lost", f"{len(self.lost)}; the first: {self.lost[0]}"),) if self.lost else ()),
            *((("error", self.error),) if self.error else ()),
        )
        table = Table("result", self.problem.text, ("", ""), rows, self.notes).html()
        solution = f"<pre>{escape(self.text)}</pre>" if self.text else ""
        tree = f"<details><summary>{len(self.tree)} nodes</summary>{self.tree._repr_html_()}</details>"
        return f"<div>{table}{solution}{tree}</div>"

    def to_dict(self) -> dict[str, Any]:
        """As `ets solve --json` prints it."""
        return {
            "answer": self.answer,
            "correct": self.correct,
            "method": self.method,
            "width": self.width,
            "seed": self.seed,
            "text": self.text,
            "tally": dict(self.tally),
            "trajectories": [
                {
                    "node": trajectory.node,
                    "answer": trajectory.answer,
                    "reward": trajectory.reward,
                    "rewards": list(trajectory.rewards),
                    "num_tokens": trajectory.num_tokens,
                    "reason": trajectory.reason,
                    "steps": [
                        {
                            "writer": node.writer,
                            "reward": node.reward,
                            "estimate": node.estimate,
                            "dropped_tokens": node.dropped_tokens,
                            "num_tokens": None if trajectory.num_tokens is None else len(node.ids),
                        }
                        for node in self.tree.path(trajectory.node)[1:]
                    ],
                    "text": trajectory.text,
                }
                for trajectory in self.trajectories
            ],
            "error": self.error,
            "notes": list(self.notes),
            "stats": stats_record(self.stats),
            "models": costs_record(self.models),
        }

    def to_record(self, config_hash: str) -> ProblemRecord:
        """As it is kept on disk, the tree included."""
        return problem_record(config_hash, self, self.verdict)


def conclude(
    outcome: SearchOutcome,
    *,
    rule: VoteRule,
    reduce: Reduce,
    grader: Grader,
    method: str,
    width: int,
    seed: int,
    thoughts: bool = True,
) -> Result:
    """Vote over the finished trajectories of a search, and grade what wins.

    Args:
        outcome: the search.
        rule: as in `search.decision.vote.vote`.
        reduce: as in `search.decision.vote.candidates`.
        grader: reads answers and compares them.
        method: as on the command line.
        width: of the search.
        seed: of the search.
        thoughts: whether the texts of the result show what stands between tags of thoughts.

    Raises:
        ConfigError: the rule needs rewards and the trajectories have none.
    """
    tree = outcome.tree
    told = tree.solution_text if thoughts else tree.spoken_text
    verdict = decide(tree, rule, reduce, grader, outcome.problem.answer)
    counted = outcome.stats.unique_tokens is not None
    trajectories = tuple(_trajectory(tree, one, told(one.node), counted) for one in verdict.candidates)
    found: dict[str, Any] = {item.name: getattr(outcome, item.name) for item in fields(outcome)}
    return Result(**found, verdict=verdict, trajectories=trajectories, method=method, width=width, seed=seed)


def _trajectory(tree: SearchTree, one: Candidate, text: str, counted: bool) -> Trajectory:
    last = tree[one.node]
    return Trajectory(
        node=one.node,
        text=text,
        answer=one.answer,
        reward=one.reward,
        rewards=tuple(step.reward for step in tree.path(one.node)[1:]),
        num_tokens=last.num_path_tokens - tree.root.num_path_tokens if counted else None,
        reason=last.reason,
    )
