"""The values that pass between the parts of a search. No behaviour beyond what their fields imply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Literal, NewType

NodeId = NewType("NodeId", int)
"""A node of one search tree: 0 is the root (the prompt), children count up in the order of creation."""

ROOT = NodeId(0)

Reduce = Literal["last", "min", "mean", "prod"]
"""How the rewards of a path's steps become one number in [0, 1]."""

VoteRule = Literal["majority", "weighted", "normalised", "best"]
"""How finished trajectories become one answer."""


Pace = Literal["leaf", "level", "rolling"]
"""When a search method is asked. "level": when all that it ordered is written and scored, so that it may compare the
leaves. "leaf": whenever a step is written, scored or not, as it compares none with another and none waits. "rolling":
whenever steps are written and scored while others are still being written, in the order of `search.loop.pacing`."""


class FinishReason(StrEnum):
    """Why an engine stopped writing a step."""

    STOP = "stop"
    """A stop string was written; its ids are part of the step."""
    EOS = "eos"
    """The model ended its text; the end token is part of the step."""
    LENGTH = "length"
    """The step's token limit was reached, or, near to it, a line's end."""
    CONTEXT = "context"
    """The model's context is full."""
    ABORT = "abort"
    """The request was cancelled; what was written so far came back."""


class NodeStatus(StrEnum):
    """Where a node stands in the search."""

    PENDING = "pending"
    """Being written."""
    OPEN = "open"
    """Written; may be selected for expansion."""
    EXPANDED = "expanded"
    """Selected; it has children."""
    FINISHED = "finished"
    """The end of a trajectory; `reason` says whether the model ended it or a limit did."""
    PRUNED = "pruned"
    """Left out by the policy, or stopped by a limit of the whole search; `reason` says which."""
    FAILED = "failed"
    """The engine or the scorer could not do its work; `reason` says why."""


@dataclass(frozen=True, slots=True)
class Sampling:
    r"""How a step is sampled.

    Attributes:
        temperature: 0 means greedy.
        top_p: nucleus mass in (0, 1]; 1 keeps the whole distribution.
        max_new_tokens: the step's limit in tokens, at least 1.
        stop: strings that end a step; the ids that complete one are kept. A blank line, "\n\n", ends one as
            `search.steps` reads it: not inside code or formulas, nor after a head.
        min_new_tokens: a blank line ends no step that is shorter.
        line_end_tokens: from so many tokens on any line's end ends a step that blank lines end; None: only its limit.
        logprobs: whether the tokens' log-probabilities are kept (`Generation.logprobs`).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ("\n\n",)
    min_new_tokens: int = 0
    line_end_tokens: int | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """The token ids that one node adds to its parent's, under a key unique in its tree."""

    key: int
    ids: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Ahead:
    """The mark of a request that is made ahead of the decision whether its answer is wanted.

    Engines that order their work serve such a request after all others, and may stop its work and begin it again.

    Attributes:
        wanted: set by whoever asked, once the answer is wanted after all; from then on it is a request like any other.
        sampled_tokens: tokens written for it so far. The engine counts them here as well as in its usage.
        computed_tokens: positions of the steps being written that went through the model, counted in the same way.
        prefix_tokens: positions of its prefix that were computed for it, counted in the same way.
    """

    wanted: bool = False
    sampled_tokens: int = 0
    computed_tokens: int = 0
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Prefix:
    """A path from the root: whose tree it belongs to and the segments in order.

    Engines that cache by content use `ids`; the in-process engine finds its cache by (tree, key). `tree` also
    serves as the routing key that keeps one problem on one worker.

    Attributes:
        tree: the tree's name.
        segments: root first.
        ahead: the mark of a request whose answer may not be wanted in the end; None for all others.
    """

    tree: str
    segments: tuple[Segment, ...]
    ahead: Ahead | None = field(default=None, compare=False)

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids, root first."""
        return tuple(chain.from_iterable(segment.ids for segment in self.segments))

    @property
    def num_tokens(self) -> int:
        """Length in tokens."""
        return sum(len(segment.ids) for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Child:
    """A step to be written: the key its segment will have, and its own random seed (64 bits, unsigned)."""

    key: int
    seed: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A step as an engine wrote it.

    Attributes:
        key: the `Child.key` it answers.
        ids: the new token ids, those of the stop string or the end token included.
        text: the new text, the stop string included and special tokens left out.
        finish: why it ended.
        seconds: from the request's arrival in the engine to the step's end.
        logprobs: the natural-log probability of each token in the model's own distribution (temperature 1, no nucleus;
            SGLang gives that of the distribution it drew from).
            None where they were not asked for. A server that leaves an end token out gives none for it.
    """

    key: int
    ids: tuple[int, ...]
    text: str
    finish: FinishReason
    seconds: float = 0.0
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What an engine did for one tree so far. None: the engine cannot know; never a made-up 0.

    Attributes:
        computed_tokens: token positions that went through the model.
        sampled_tokens: tokens written, dropped ones included.
        num_calls: requests received.
        kv_tokens_held: KV slots held now for this tree.
        kv_tokens_peak: the most KV slots held at once for this tree.
        recomputed_tokens: positions computed again after eviction; part of `computed_tokens`.
        seconds: wall time with a request in flight, where a writer measures its engines one by one; else None.
        thrown_tokens: tokens written ahead that nobody wanted in the end; they are in no figure above.
        prompt_tokens: tokens of all requests' prompts, as a server says that sells them; None for any other engine.
    """

    computed_tokens: int | None = 0
    sampled_tokens: int | None = 0
    num_calls: int = 0
    kv_tokens_held: int | None = 0
    kv_tokens_peak: int | None = 0
    recomputed_tokens: int | None = 0
    seconds: float | None = None
    thrown_tokens: int = 0
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for run records and for `ets doctor`.

    Attributes:
        name: kind of engine, e.g. "local".
        model: what it serves: path, hub id, or name.
        context_tokens: the longest sequence it takes.
        vocab_size: number of token ids.
        num_parameters: None where unknown.
        seeds: "exact": a step depends on its seed alone; "server": passed on to a server that honours it;
            "none": not honoured.
        details: anything else worth keeping, e.g. dtype, device, attention.
    """

    name: str
    model: str
    context_tokens: int
    vocab_size: int
    num_parameters: int | None = None
    seeds: Literal["exact", "server", "none"] = "none"
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """A question to be solved.

    Attributes:
        id: unique in its run; part of every seed.
        text: the question.
        answer: the reference answer, or None where there is none.
    """

    id: str
    text: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy model reads of a problem before it writes.

    Attributes:
        text: to be read by people; what is a control token in it, and what only looks like one, the ids tell.
        ids: of the model's own tokenizer.
        num_left_out: earlier turns of the conversation that are not in it, as the model's template has no place for
            them.
    """

    text: str
    ids: tuple[int, ...]
    num_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Expansion:
    """A policy's order: give `node` this many children."""

    node: NodeId
    num_children: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What a policy decided: open leaves that it neither expands nor lets wait are pruned.

    Attributes:
        expansions: leaves to expand, in the order in which their children are numbered.
        reasons: why leaves were left out; one that is missing here gets the policy's name as its reason.
        note: something the run record should keep, e.g. a solver that found no optimum.
        clusters: the group of each leaf, numbered from 0, where the policy made groups.
        cluster_distance: the cosine distance up to which leaves were put into one group, where it made groups.
        waiting: leaves that stay open, to be asked about again.
    """

    expansions: tuple[Expansion, ...]
    reasons: Mapping[NodeId, str] = field(default_factory=dict)
    note: str = ""
    clusters: Mapping[NodeId, int] = field(default_factory=dict)
    cluster_distance: float | None = None
    waiting: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True)
class Selected:
    """A selection below the root as it is kept for replays.

    Attributes:
        candidates: the unfinished leaves it could choose from, by their ids.
        kept: those of them that it expanded or let wait.
        cluster_distance: where the policy cut its clusters; None where it made none.
        num_nodes: nodes of the tree when it was made: those with lower ids. None where no leaf waits for another, as
            the selections are then those of depths, whenever their steps were written.
    """

    candidates: tuple[NodeId, ...]
    kept: tuple[NodeId, ...]
    cluster_distance: float | None = None
    num_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class WriteJob:
    """The children of one node, to be written as one request.

    Attributes:
        node: the node to continue.
        children: the pending nodes to fill, in order.
        max_new_tokens: what the limits leave for one step below `node`.
    """

    node: NodeId
    children: tuple[NodeId, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """A step that a writer delivers for a pending node.

    Attributes:
        node: the pending node it fills.
        ids, text, finish: as in `Generation`.
        writer: name of the model that wrote it.
        seconds: time from the request to the step's end.
        estimate: the router's estimate that escalation helps, in [0, 1]; None where no router was asked.
        dropped_tokens: tokens of a draft that was replaced by this step.
        forced_tokens: how many of the last ids no model wrote: the end of a thought that had to be closed.
        logprobs: as in `Generation`, of what a model wrote, in tokens of that model's own tokenizer.
    """

    node: NodeId
    ids: tuple[int, ...]
    text: str
    finish: FinishReason
    writer: str
    seconds: float = 0.0
    estimate: float | None = None
    dropped_tokens: int = 0
    forced_tokens: int = 0
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class StepFailure:
    """A step that could not be written; its node stays in the tree with this reason."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a router says of a draft's step.

    Attributes:
        escalate: whether the target is to write the step.
        estimate: how likely that is to help, in [0, 1]; None where the router estimates nothing.
    """

    escalate: bool
    estimate: float | None = None
