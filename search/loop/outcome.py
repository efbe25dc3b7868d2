"""What comes of a search: its tree, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from search.ledger import TREE_TOKENS, ModelCost, Stats, model_cost
from search.loop.limits import is_out_of_time
from search.loop.running import Running
from search.protocols import Scorer, Writer
from search.replay import replay
from search.tree import STEP_ABOVE_FAILED, SearchTree
from search.types import NodeStatus, Problem, Selected


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """A finished search.

    Attributes:
        problem: what was asked.
        tree: every node with its fate.
        stats: what it cost.
        notes: what policies wanted kept, one line each, e.g. a solver that found no optimum.
        selections: what could be kept below the root, and what was, for replays.
        models: what each model did, by its role.
    """

    problem: Problem
    tree: SearchTree
    stats: Stats
    notes: tuple[str, ...] = ()
    selections: tuple[Selected, ...] = ()
    models: Mapping[str, ModelCost] = field(default_factory=dict)

    @property
    def lost(self) -> tuple[str, ...]:
        """Why each branch was lost whose step could not be written or scored; time that was up is no such reason."""
        reasons = (node.reason for node in self.tree.leaves(NodeStatus.FAILED))
        return tuple(reason for reason in reasons if reason != STEP_ABOVE_FAILED and not is_out_of_time(reason))

    @property
    def error(self) -> str | None:
        """Why the whole search failed, if nothing finished and something broke; else None."""
        failed = self.tree.leaves(NodeStatus.FAILED)
        return failed[0].reason if failed and not self.tree.num_finished else None


def outcome_of(run: Running, writer: Writer, scorer: Scorer | None) -> SearchOutcome:
    """What came of a search that is at its end; to be asked before its sessions are closed."""
    tree, ledger = run.tree, run.ledger
    writing, scoring = run.writer.usage(), {} if run.scorer is None else run.scorer.usage()
    prm_tokens = 0 if run.scorer is None else run.scorer.num_unique_tokens()
    engines = {**writer.engines, **({} if scorer is None else scorer.engines)}
    # A chat server's tree has ids that are no tokens: counting them would be a guess.
    counted = getattr(writer.tokenizer, "counts_tokens", True)
    models = {
        role: model_cost(tree, role, engines[role].info, usage, clock.seconds, counted=counted)
        for usages, clock in ((writing, ledger.policy), (scoring, ledger.prm))
        for role, usage in usages.items()
    }
    kv_tokens = [one.kv_tokens for one in replay(tree, run.selections)]
    reading = {role: usage for role, usage in scoring.items() if role != "lookahead"}
    policies = {role: usage for role, usage in {**writing, **scoring}.items() if role not in ("router", *reading)}
    stats = ledger.stats(tree, kv_tokens, policies, reading, prm_tokens)
    if not counted:
        nothing: dict[str, Any] = dict.fromkeys(TREE_TOKENS)
        stats = replace(stats, **nothing)
    return SearchOutcome(run.problem, tree, stats, tuple(run.notes), run.selections, models)
