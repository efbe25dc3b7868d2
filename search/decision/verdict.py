"""What a tree's finished trajectories come to: voted over and graded, in this one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from search.answers.graders import ComparingGrader, Grader
from search.decision.vote import AnswerClass, Candidate, candidates, vote
from search.tree import SearchTree
from search.types import NodeId, Reduce, VoteRule


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a search.

    Attributes:
        answer: the vote's winner; None if no trajectory gave an answer.
        correct: against the reference; None without one, and where the grader cannot decide.
        winner: the last node of the best trajectory that gives the answer.
        tally: the weight each answer got in the vote, heaviest first.
        candidates: the finished trajectories, in the order of their nodes; empty for a verdict that was only kept.
        classes: those of them that agree, by answer, heaviest first; empty as `candidates`.
    """

    answer: str | None = None
    correct: bool | None = None
    winner: NodeId | None = None
    tally: Mapping[str, float] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    classes: tuple[AnswerClass, ...] = ()


def decide(tree: SearchTree, rule: VoteRule, reduce: Reduce, grader: Grader, reference: str | None = None) -> Verdict:
    """Vote over the finished trajectories of a tree, and grade what wins.

    Args:
        tree: as a search left it, or as it was kept.
        rule: as in `search.decision.vote.vote`.
        reduce: as in `search.decision.vote.candidates`.
        grader: reads answers and compares them.
        reference: the right answer; None where it is not known.

    Raises:
        ConfigError: the rule needs rewards and the trajectories have none.
    """
    voters = candidates(tree, reduce, grader)
    voted = vote(voters, rule, grader.equivalent if isinstance(grader, ComparingGrader) else None)
    correct = None if reference is None else grader.correct(voted.answer, reference)
    return Verdict(voted.answer, correct, voted.winner, voted.tally, voters, voted.classes)
