"""What a person gets from a search: the answer by vote, its trajectory, the others, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.answers.graders import ComparingGrader, Grader
from search.driver import SearchOutcome
from search.ledger import ModelCost, Stats
from search.record import ProblemRecord, costs_record, problem_record, stats_record
from search.tree import SearchTree
from search.types import NodeId, NodeStatus, Problem, Reduce, Selected, VoteRule
from search.vote import Candidate, candidates, vote


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A finished solution.

    Attributes:
        node: its last node.
        text: all its steps, the prompt left out.
        answer: what was found in it; None if nothing was.
        reward: its step rewards reduced; None without a reward model.
        rewards: one for each step.
        num_tokens: its own tokens, shared ones included, the prompt left out.
        reason: why it ended.
    """

    node: NodeId
    text: str
    answer: str | None
    reward: float | None
    rewards: tuple[float | None, ...]
    num_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """A solved problem.

    Attributes:
        problem: what was asked.
        answer: the vote's winner; None if no trajectory gave an answer.
        correct: against the reference; None without one, and where the grader cannot decide.
        text: the best trajectory that gives this answer.
        trajectories: all finished ones, in the order of their nodes.
        tally: the weight each answer got in the vote, heaviest first.
        stats: what it cost.
        tree: every node with its fate.
        error: why the whole search failed, if nothing finished and something broke; else None.
        notes, selections, models: as in `search.driver.SearchOutcome`.
        method, width, seed: how it was searched.
    """

    problem: Problem
    answer: str | None
    correct: bool | None
    text: str
    trajectories: tuple[Trajectory, ...]
    tally: Mapping[str, float]
    stats: Stats
    tree: SearchTree
    error: str | None
    notes: tuple[str, ...]
    selections: tuple[Selected, ...]
    models: Mapping[str, ModelCost]
    method: str
    width: int
    seed: int

    @property
    def winner(self) -> NodeId | None:
        """The last node of the trajectory that `text` is, of equal ones the lowest; None without an answer."""
        if self.answer is None:
            return None
        return next((one.node for one in self.trajectories if one.text == self.text), None)

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
                    "node": one.node,
                    "answer": one.answer,
                    "reward": one.reward,
                    "rewards": list(one.rewards),
                    "num_tokens": one.num_tokens,
                    "reason": one.reason,
                    "steps": [
                        {
                            "writer": node.writer,
                            "reward": node.reward,
                            "estimate": node.estimate,
                            "dropped_tokens": node.dropped_tokens,
                            "num_tokens": len(node.ids),
                        }
                        for node in self.tree.path(one.node)[1:]
                    ],
                    "text": one.text,
                }
                for one in self.trajectories
            ],
            "error": self.error,
            "notes": list(self.notes),
            "stats": stats_record(self.stats),
            "models": costs_record(self.models),
        }

    def to_record(self, config_hash: str) -> ProblemRecord:
        """As it is kept on disk, the tree included."""
        return problem_record(
            self.problem,
            config_hash,
            answer=self.answer,
            correct=self.correct,
            error=self.error,
            winner=self.winner,
            tally=self.tally,
            stats=self.stats,
            notes=self.notes,
            selections=self.selections,
            models=self.models,
            tree=self.tree,
        )


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
        rule: as in `search.vote.vote`.
        reduce: as in `search.vote.candidates`.
        grader: reads answers and compares them.
        method: as on the command line.
        width: of the search.
        seed: of the search.
        thoughts: whether the texts of the result show what stands between tags of thoughts.

    Raises:
        ConfigError: the rule needs rewards and the trajectories have none.
    """
    tree, problem = outcome.tree, outcome.problem
    told = tree.solution_text if thoughts else tree.spoken_text
    voters = candidates(tree, reduce, grader)
    verdict = vote(voters, rule, grader.equivalent if isinstance(grader, ComparingGrader) else None)
    return Result(
        problem=problem,
        answer=verdict.answer,
        correct=None if problem.answer is None else grader.correct(verdict.answer, problem.answer),
        text="" if verdict.winner is None else told(verdict.winner),
        trajectories=tuple(_trajectory(tree, one, told(one.node)) for one in voters),
        tally=verdict.tally,
        stats=outcome.stats,
        tree=tree,
        error=_failure(tree),
        notes=outcome.notes,
        selections=outcome.selections,
        models=outcome.models,
        method=method,
        width=width,
        seed=seed,
    )


def _trajectory(tree: SearchTree, one: Candidate, text: str) -> Trajectory:
    last = tree[one.node]
    return Trajectory(
        node=one.node,
        text=text,
        answer=one.answer,
        reward=one.reward,
        rewards=tuple(step.reward for step in tree.path(one.node)[1:]),
        num_tokens=last.num_path_tokens - tree.root.num_path_tokens,
        reason=last.reason,
    )


def _failure(tree: SearchTree) -> str | None:
    failed = tree.leaves(NodeStatus.FAILED)
    return failed[0].reason if failed and not tree.num_finished else None
