"""Draft, target and router in a search: who writes which step, and what that costs."""

from collections import Counter

import pytest
from routing import ALONE, PROMPT, Parts, solve

from arbitrage.walks import DRAFT, TARGET
from ets import Ets, EtsKv
from ets.embedders import make_embedder
from search.loop.driver import Driver
from search.loop.writer import ModelWriter
from search.policies import BestOfN, Rebase
from search.types import ROOT, NodeStatus, Problem


@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("kind", ALONE)
def test_the_target_gets_one_request_for_each_escalated_step_and_no_other(kind, width):
    parts = Parts()
    driver = parts.driver(kind, policy=Rebase() if width > 1 else None, width=width, scorer=parts.scorer())
    outcomes = [solve(driver, Problem(f"q{number}", PROMPT)) for number in range(8 if width == 1 else 1)]
    steps = [node for outcome in outcomes for node in outcome.tree if node.id != ROOT]
    asked = [call.keys for call in parts.target.calls if call.method == "generate"]
    assert sorted(asked) == sorted((node.seed,) for node in steps if node.writer == TARGET)
    drafted = [key for call in parts.draft.calls for key in call.keys]
    assert sorted(drafted) == sorted(node.seed for node in steps)
    if kind not in ("never", "judge"):
        assert 0 < len(asked) < len(drafted)


@pytest.mark.parametrize("policy", [EtsKv(), Ets()], ids=lambda policy: policy.name)
@pytest.mark.parametrize("kind", ["rsd", "arbitrage", "probe"])
def test_inside_ets_at_width_16_the_router_decides_at_each_node(kind, policy):
    parts = Parts()
    features = [make_embedder("tfidf")] if policy.features else []
    outcome = solve(parts.driver(kind, policy=policy, width=16, scorer=parts.scorer(), features=features))
    tree = outcome.tree
    assert sorted(call.keys for call in parts.target.calls) == sorted((n.seed,) for n in tree if n.writer == TARGET)
    assert {node.writer for node in tree if node.id} == {DRAFT, TARGET}
    assert any(node.status is NodeStatus.PRUNED for node in tree)
    assert all(node.estimate is not None and node.reward is not None for node in tree if node.id)
    costs = outcome.models
    assert costs[DRAFT].sampled_tokens == costs[DRAFT].kept_tokens + costs[DRAFT].dropped_tokens
    assert (
        costs[TARGET].sampled_tokens == costs[TARGET].kept_tokens == sum(len(n.ids) for n in tree if n.writer == TARGET)
    )
    for engine in parts.engines:
        for name in {call.prefix.tree for call in engine.calls}:
            assert engine.usage(name).kv_tokens_held == 0


def test_always_is_the_target_alone_and_never_the_draft_alone():
    for kind, engine in (("always", Parts().target), ("never", Parts().draft)):
        parts = Parts()
        routed = solve(parts.driver(kind, policy=Rebase(), width=8, scorer=parts.scorer()))
        plain = solve(Driver(Rebase(), ModelWriter(engine), Parts().scorer(), width=8))
        assert [(n.parent, n.ids, n.status) for n in routed.tree] == [(n.parent, n.ids, n.status) for n in plain.tree]
        unused = parts.draft if kind == "always" else parts.target
        assert not unused.calls


def test_the_oracle_takes_the_better_scored_step_and_throws_the_other_away():
    parts = Parts()
    outcome = solve(parts.driver("oracle", width=8, scorer=parts.scorer()))
    written = [node for node in outcome.tree if node.id != ROOT]
    for engine in (parts.draft, parts.target):
        assert sorted(key for call in engine.calls for key in call.keys) == sorted(node.seed for node in written)
    for node in written:
        assert (node.estimate > 0.5) == (node.writer == TARGET)
    assert outcome.models[TARGET].thrown_tokens > 0


def test_a_dropped_draft_is_counted_and_its_cache_is_given_back():
    parts = Parts()
    outcome = solve(parts.driver("random", threshold=0.5, width=16))
    replaced = [node for node in outcome.tree if node.writer == TARGET]
    assert replaced and all(node.dropped_tokens > 0 for node in replaced)
    assert all(node.dropped_tokens == 0 for node in outcome.tree if node.writer != TARGET)
    assert outcome.stats.unique_tokens == sum(len(node.ids) + node.dropped_tokens for node in outcome.tree)
    assert outcome.models[DRAFT].dropped_tokens == sum(node.dropped_tokens for node in replaced)


def test_a_probe_costs_no_model_and_a_step_that_stays_next_to_nothing():
    """The token that it reads at is computed once: what goes on from a step that stays starts there."""
    for number in range(8):
        problem, parts = Problem(f"q{number}", PROMPT), Parts()
        outcome = solve(parts.driver("probe", threshold=1.0), problem)
        assert {node.writer for node in outcome.tree if node.id} == {DRAFT} and set(outcome.models) == {DRAFT, TARGET}
        plain = solve(Parts().driver("never"), problem)
        assert [node.ids for node in outcome.tree] == [node.ids for node in plain.tree]
        more = outcome.models[DRAFT].computed_tokens - plain.models[DRAFT].computed_tokens
        assert more == 1, "the last token of the last step alone"
        assert not parts.prm.calls and not parts.learned.calls and not parts.target.calls


def test_a_draft_with_a_tokenizer_of_its_own_writes_the_same_texts():
    """Its ids differ, so text is encoded for each model once, and the tree keeps the target's ids."""
    encoded = Counter()
    parts = Parts(other_draft=True)
    real = parts.draft.tokenizer.encode
    parts.draft.tokenizer.encode = lambda text: encoded.update([text]) or real(text)
    outcome = solve(parts.driver("random", policy=BestOfN(), width=6))
    assert {node.writer for node in outcome.tree if node.id} == {DRAFT, TARGET}
    for node in outcome.tree:
        assert parts.target.tokenizer.decode(node.ids) == node.text
    by_key = {node.seed: node.id for node in outcome.tree}
    for call in parts.draft.calls:
        assert parts.draft.tokenizer.decode(call.prefix.ids) == outcome.tree.root.text + outcome.tree.steps_text(
            by_key[call.prefix.segments[-1].key]
        )
    rewritten = [n.text for n in outcome.tree if n.writer == TARGET and outcome.tree.children(n.id)]
    assert sum(encoded.values()) == 1 + len(rewritten), "the prompt, and each of the target's steps that was continued"
