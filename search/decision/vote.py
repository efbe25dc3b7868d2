"""Votes: finished trajectories become one answer. Pure; reads saved trees and never runs inside a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from search.errors import ConfigError, check_choice
from search.support.statistics import standing_weights
from search.tree import SearchTree, reduce_rewards
from search.types import NodeId, NodeStatus, Reduce, VoteRule

POINTWISE: frozenset[VoteRule] = frozenset({"majority", "weighted"})
"""Rules in which a trajectory weighs at most 1, whatever the others are: such a vote can be decided early."""


class AnswerReader(Protocol):
    """What a vote needs of a grader."""

    def extract(self, text: str) -> str | None:
        """The answer in a trajectory's text; None where there is none."""

    def key(self, answer: str) -> str:
        """Answers of equal keys are one answer."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished trajectory as a vote sees it.

    Attributes:
        node: its last node; of equal candidates the lower one wins.
        answer: what it answers; None does not vote.
        reward: the rewards of its steps reduced to one, in [0, 1]; None without a scorer.
        key: the answer's canonical form; None for the answer itself.
    """

    node: NodeId
    answer: str | None
    reward: float | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """The candidates that agree on one answer.

    Attributes:
        answer: as the member of the lowest node wrote it.
        nodes: the members, lowest first.
        weight: what decides: their number, the sum of their weights, or the best of their rewards.
        best: the member with the highest reward; of equals, or without rewards, the lowest.
    """

    answer: str
    nodes: tuple[NodeId, ...]
    weight: float
    best: NodeId


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote.

    Attributes:
        classes: all answers by falling weight, so the winner first; of equals the one with the lowest node.
        num_silent: candidates without an answer.
    """

    classes: tuple[AnswerClass, ...] = ()
    num_silent: int = 0

    @property
    def answer(self) -> str | None:
        """The winner; None where no candidate had an answer."""
        return self.classes[0].answer if self.classes else None

    @property
    def winner(self) -> NodeId | None:
        """The best trajectory that gives the winning answer."""
        return self.classes[0].best if self.classes else None

    @property
    def tally(self) -> Mapping[str, float]:
        """The weight of each answer, heaviest first."""
        return {one.answer: one.weight for one in self.classes}


def candidates(tree: SearchTree, reduce: Reduce, reader: AnswerReader) -> tuple[Candidate, ...]:
    """The finished trajectories of a tree in the order of their nodes; pruned and failed ones are left out.

    Args:
        tree: a searched tree.
        reduce: how the rewards of a trajectory's steps become one; steps without a reward are left out.
        reader: finds the answers, e.g. a grader.

    Raises:
        ConfigError: an unknown reduction.
    """
    check_choice("reduce", reduce, get_args(Reduce))
    found = []
    for node in tree.leaves(NodeStatus.FINISHED):
        rewards = [step.reward for step in tree.path(node.id)[1:] if step.reward is not None]
        answer = reader.extract(tree.solution_text(node.id))
        found.append(
            Candidate(
                node.id,
                answer,
                reduce_rewards(rewards, reduce) if rewards else None,
                None if answer is None else reader.key(answer),
            )
        )
    return tuple(found)


def vote(
    voters: Sequence[Candidate],
    rule: VoteRule = "weighted",
    equivalent: Callable[[str, str], bool] | None = None,
) -> Vote:
    """Decide on one answer.

    `majority` counts, `weighted` adds up the rewards of those that agree, `normalised` what
    `search.support.statistics.standing_weights` makes of all rewards together, `best` takes the answer of the
    candidate with the highest reward. Of equal weights the answer with the lowest node wins. The order in which
    candidates are passed does not matter.

    Args:
        voters: finished trajectories.
        rule: how to decide.
        equivalent: tells whether two answers of unequal keys are one all the same; symmetric. In a class every
            answer is equivalent to every other.

    Raises:
        ConfigError: an unknown rule, or one that needs rewards where a candidate with an answer has none.
    """
    check_choice("vote", rule, get_args(VoteRule))
    speaking = sorted((voter for voter in voters if voter.answer is not None), key=lambda voter: voter.node)
    if rule != "majority":
        for voter in speaking:
            if voter.reward is None:
                raise ConfigError(
                    f"vote {rule!r} needs rewards, and trajectory {voter.node} has none: "
                    "give a process reward model, or take vote 'majority'"
                )
    rewards = [0.0 if voter.reward is None else voter.reward for voter in speaking]
    weights = [1.0] * len(rewards) if rule == "majority" else rewards
    if rule == "normalised":
        weights = standing_weights(rewards)
    weight = dict(zip((voter.node for voter in speaking), weights, strict=True))
    classes = [_answer_class(members, rule, weight) for members in _agreeing(speaking, equivalent)]
    classes.sort(key=lambda one: (-one.weight, one.nodes[0]))
    return Vote(tuple(classes), len(voters) - len(speaking))


def _agreeing(speaking: Sequence[Candidate], equivalent: Callable[[str, str], bool] | None) -> list[list[Candidate]]:
    """Candidates that agree, each class in the order given. Which they are does not hang on that order."""
    by_key: dict[str, list[Candidate]] = {}
    for voter in speaking:
        by_key.setdefault(_answer(voter) if voter.key is None else voter.key, []).append(voter)
    if equivalent is None or len(by_key) == 1:
        return list(by_key.values())
    classes = _classes({key: _written(members) for key, members in by_key.items()}, by_key, equivalent)
    merged = [[voter for key in members for voter in by_key[key]] for members in classes]
    return [sorted(members, key=lambda voter: voter.node) for members in merged]


def _written(members: Sequence[Candidate]) -> str:
    """The answer by which candidates of one key are compared."""
    return min(_answer(voter) for voter in members)


def _classes(
    answers: Mapping[str, str], by_key: Mapping[str, Sequence[Candidate]], equivalent: Callable[[str, str], bool]
) -> list[list[str]]:
    """Classes of keys: in each, every answer is the same as every other.

    "5" is "5 km" and "5 m", which are not the same. So what is the same as the fewest comes first, and an answer that
    might join several classes joins the one with most voters; of equals, the one whose first key comes first.
    """
    keys = sorted(answers)
    alike: dict[str, set[str]] = {key: set() for key in keys}
    for place, key in enumerate(keys):
        for other in keys[place + 1 :]:
            if equivalent(answers[key], answers[other]):
                alike[key].add(other)
                alike[other].add(key)
    classes: list[list[str]] = []
    for key in sorted(keys, key=lambda key: (len(alike[key]), key)):
        open_to = [members for members in classes if alike[key].issuperset(members)]
        if open_to:
            best = min(open_to, key=lambda members: (-sum(len(by_key[one]) for one in members), members[0]))
            best.append(key)
        else:
            classes.append([key])
    return classes


def _answer_class(members: Sequence[Candidate], rule: VoteRule, weights: Mapping[NodeId, float]) -> AnswerClass:
    rewards = [0.0 if member.reward is None else member.reward for member in members]
    weight = max(rewards) if rule == "best" else math.fsum(weights[member.node] for member in members)
    # Members come lowest first, and `max` keeps the first of equals.
    best = max(zip(members, rewards, strict=True), key=lambda pair: pair[1])[0]
    return AnswerClass(_answer(members[0]), tuple(member.node for member in members), weight, best.node)


def _answer(voter: Candidate) -> str:
    assert voter.answer is not None
    return voter.answer
