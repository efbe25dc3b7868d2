"""What one search cost: tokens, KV cache and seconds, counted per problem and summed at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from search.tree import SearchTree
from search.types import EngineInfo, NodeStatus, Usage


class KvTokens(NamedTuple):
    """Unique tokens at one selection: of the trajectories it kept, and of all candidates before it pruned."""

    kept: int
    candidates: int


class StageClock:
    """Wall seconds during which at least one piece of work of a stage was under way."""

    __slots__ = ("_running", "_since", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = 0
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block once, however many blocks overlap."""
        if self._running == 0:
            self._since = time.perf_counter()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self.seconds += time.perf_counter() - self._since


@dataclass(frozen=True, slots=True)
class Stats:
    """The cost of one search, or of many summed by `total`. None: an engine could not tell.

    Attributes:
        policy_tokens: tokens sampled by the policy models, dropped ones included.
        tokens_thrown: tokens that they wrote ahead and that nobody wanted in the end; no other count has them.
        computed_tokens: positions that went through the policy models, prompts included.
        unique_tokens: tokens of the tree, each shared one once, prompt and pruned branches included; with a router,
            the dropped drafts too. Computing each once is the least a search with a shared cache can do.
        prm_tokens: positions that went through the process reward model.
        prm_unique_tokens: the tree's tokens as the reward model sees it.
        kv_tokens_mean: unique tokens of the trajectories kept after a selection, mean over the
            selections below the root. Where no leaf waits for another, as in best-of-n, a selection is that of all
            leaves of one depth, whenever they were written: as if the same chains had gone on level by level.
        kv_tokens_peak: the largest such figure.
        kv_tokens_code: the count of the ETS code: at each selection the unique tokens of all unfinished candidates
            before pruning, summed over selections.
        kv_tokens_engine_peak: the most KV slots the policy's engine held for this tree.
        kv_tokens_ledger_peak: the same figure as the tree itself implies it: all that is not released, less the last
            token of each unexpanded step, which no model has read yet, and less the steps still being written.
        kv_tokens_prm_peak: the most KV slots the reward model's engine held for this tree.
        num_nodes: nodes, the root included.
        num_finished, num_pruned, num_failed: nodes by their fate.
        num_hopeless: those of the pruned ones that were given up as soon as they were written (`min_confidence`).
        num_policy_calls, num_prm_calls: requests to the engines.
        depth: the longest trajectory in steps.
        seconds: wall time.
        seconds_policy, seconds_prm: wall time with such a request in flight; the two overlap.
        seconds_features: wall time for the features a policy asked for, such as embeddings.
        seconds_select: wall time in the policy's selection.
    """

    policy_tokens: int | None = 0
    tokens_thrown: int = 0
    computed_tokens: int | None = 0
    unique_tokens: int | None = 0
    prm_tokens: int | None = 0
    prm_unique_tokens: int = 0
    kv_tokens_mean: float | None = 0.0
    kv_tokens_peak: int | None = 0
    kv_tokens_code: int | None = 0
    kv_tokens_engine_peak: int | None = 0
    kv_tokens_ledger_peak: int | None = 0
    kv_tokens_prm_peak: int | None = 0
    num_nodes: int = 0
    num_finished: int = 0
    num_pruned: int = 0
    num_failed: int = 0
    num_hopeless: int = 0
    num_policy_calls: int = 0
    num_prm_calls: int = 0
    depth: int = 0
    seconds: float = 0.0
    seconds_policy: float = 0.0
    seconds_prm: float = 0.0
    seconds_features: float = 0.0
    seconds_select: float = 0.0


class Price(NamedTuple):
    """What a server asks for a million tokens of prompts, and for a million that it writes."""

    prompt: float
    written: float


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What one model did for a search, or for many.

    Attributes:
        model: its name.
        num_calls: requests to it.
        sampled_tokens: tokens it wrote.
        kept_tokens: those of them that stand in the tree.
        dropped_tokens: those of them that a router replaced by another model's.
        computed_tokens: token positions that went through it; None: its engine cannot tell, as may be for what it
            wrote.
        seconds: wall time with such a request in flight.
        num_parameters: its weights; None where unknown.
        ahead_tokens: tokens that it wrote ahead and that nobody wanted; no count above has them.
        prompt_tokens: tokens of all prompts that it was sent, as its server says that sells them; None for others.
    """

    model: str
    num_calls: int = 0
    sampled_tokens: int | None = 0
    kept_tokens: int | None = 0
    dropped_tokens: int = 0
    computed_tokens: int | None = 0
    seconds: float = 0.0
    num_parameters: int | None = None
    ahead_tokens: int = 0
    prompt_tokens: int | None = None

    @property
    def thrown_tokens(self) -> int | None:
        """Tokens written for nothing: ahead of a decision that fell otherwise, or for an oracle's comparison."""
        if self.sampled_tokens is None or self.kept_tokens is None:
            return None
        return self.ahead_tokens + max(0, self.sampled_tokens - self.kept_tokens - self.dropped_tokens)

    def cost(self, price: Price) -> float | None:
        """What its server asks for it; None where it does not say how many tokens."""
        if self.prompt_tokens is None or self.sampled_tokens is None:
            return None
        return (price.prompt * self.prompt_tokens + price.written * self.sampled_tokens) / 1e6

    @property
    def flops(self) -> float | None:
        """The cost model of RSD (arXiv 2501.19324): 2 x parameters x tokens computed."""
        if self.num_parameters is None or self.computed_tokens is None:
            return None
        return 2.0 * self.num_parameters * self.computed_tokens


def total_costs(many: Iterable[Mapping[str, ModelCost]]) -> dict[str, ModelCost]:
    """Sum the costs of several searches, role by role; one None makes a sum None."""
    sums: dict[str, ModelCost] = {}
    for costs in many:
        for role, cost in costs.items():
            known = sums.get(role)
            sums[role] = cost if known is None else _added(known, cost)
    return sums


def _added(first: ModelCost, second: ModelCost) -> ModelCost:
    counted = [item.name for item in fields(ModelCost) if item.name not in ("model", "num_parameters")]
    sums = {name: _sum([getattr(first, name), getattr(second, name)]) for name in counted}
    return replace(first, **sums)  # type: ignore[arg-type]


HOPELESS = "confidence "
"""What the reason of a step begins with that was given up for it."""

_MAXIMA = frozenset({"depth"})

TREE_TOKENS = ("unique_tokens", "kv_tokens_mean", "kv_tokens_peak", "kv_tokens_code", "kv_tokens_ledger_peak")
"""Figures of `Stats` that count the tree's own ids."""


def total(stats: list[Stats]) -> Stats:
    """Sum the costs of several problems; `depth` is the largest, and one None makes a sum None."""
    values: dict[str, float | int | None] = {}
    for item in fields(Stats):
        column: list[float | int | None] = [getattr(one, item.name) for one in stats]
        if any(value is None for value in column):
            values[item.name] = None
            continue
        known = [value for value in column if value is not None]
        values[item.name] = max(known, default=0) if item.name in _MAXIMA else sum(known)
    return Stats(**values)  # type: ignore[arg-type]


@dataclass(slots=True)
class Ledger:
    """Counts one search while it runs. The driver calls it; it never looks at the clock of a finished stage."""

    policy: StageClock = field(default_factory=StageClock)
    prm: StageClock = field(default_factory=StageClock)
    features: StageClock = field(default_factory=StageClock)
    select: StageClock = field(default_factory=StageClock)
    whole: StageClock = field(default_factory=StageClock)
    kv_tokens_ledger_peak: int = 0

    def holds(self, tokens: int) -> None:
        """Note how many tokens a cache must hold now that a step is written."""
        self.kv_tokens_ledger_peak = max(self.kv_tokens_ledger_peak, tokens)

    def stats(
        self,
        tree: SearchTree,
        kv_tokens: Sequence[KvTokens],
        policy: Mapping[str, Usage],
        prm: Mapping[str, Usage],
        prm_unique_tokens: int,
    ) -> Stats:
        """The final figures.

        Args:
            tree: the finished tree.
            kv_tokens: at each selection below the root.
            policy: usage of the writing engines by role, taken before the tree was closed.
            prm: usage of the scorer's engines by role; empty without a scorer.
            prm_unique_tokens: the tree's tokens as the scorer sees it.
        """
        by_status = {status: len(tree.leaves(status)) for status in NodeStatus}
        return Stats(
            policy_tokens=_sum(usage.sampled_tokens for usage in policy.values()),
            tokens_thrown=sum(usage.thrown_tokens for usage in policy.values()),
            computed_tokens=_sum(usage.computed_tokens for usage in policy.values()),
            unique_tokens=sum(len(node.ids) + node.dropped_tokens for node in tree),
            prm_tokens=_sum(usage.computed_tokens for usage in prm.values()),
            prm_unique_tokens=prm_unique_tokens,
            kv_tokens_mean=sum(one.kept for one in kv_tokens) / len(kv_tokens) if kv_tokens else 0.0,
            kv_tokens_peak=max((one.kept for one in kv_tokens), default=0),
            kv_tokens_code=sum(one.candidates for one in kv_tokens),
            kv_tokens_engine_peak=_sum(usage.kv_tokens_peak for usage in policy.values()),
            kv_tokens_ledger_peak=self.kv_tokens_ledger_peak,
            kv_tokens_prm_peak=_sum(usage.kv_tokens_peak for usage in prm.values()),
            num_nodes=len(tree),
            num_finished=by_status[NodeStatus.FINISHED],
            num_pruned=by_status[NodeStatus.PRUNED],
            num_failed=by_status[NodeStatus.FAILED],
            num_hopeless=sum(node.reason.startswith(HOPELESS) for node in tree.leaves(NodeStatus.PRUNED)),
            num_policy_calls=sum(usage.num_calls for usage in policy.values()),
            num_prm_calls=sum(usage.num_calls for usage in prm.values()),
            depth=max(node.depth for node in tree),
            seconds=self.whole.seconds,
            seconds_policy=self.policy.seconds,
            seconds_prm=self.prm.seconds,
            seconds_features=self.features.seconds,
            seconds_select=self.select.seconds,
        )


def model_cost(
    tree: SearchTree, role: str, info: EngineInfo, usage: Usage, seconds: float, *, counted: bool = True
) -> ModelCost:
    """What the model in a role did for a finished tree.

    Args:
        tree: its nodes say who wrote them.
        role: "policy" wrote every step, "draft" and "target" those that name them, "prm" and "router" none.
        info: of the model's engine.
        usage: taken before the tree was closed.
        seconds: of its stage, where the usage does not say.
        counted: whether the tree's ids are tokens.
    """
    steps = [node for node in tree if node.parent is not None]
    return ModelCost(
        model=info.model,
        num_calls=usage.num_calls,
        sampled_tokens=usage.sampled_tokens,
        kept_tokens=sum(len(node.ids) - node.forced_tokens for node in steps if role in ("policy", node.writer))
        if counted or role not in ("policy", *(node.writer for node in steps))
        else None,
        dropped_tokens=sum(node.dropped_tokens for node in steps) if role == "draft" else 0,
        computed_tokens=usage.computed_tokens,
        seconds=seconds if usage.seconds is None else usage.seconds,
        num_parameters=info.num_parameters,
        ahead_tokens=usage.thrown_tokens,
        prompt_tokens=usage.prompt_tokens,
    )


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(value for value in known if value is not None)
