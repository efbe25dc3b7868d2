"""Whatever the router, width and seed: nothing vanishes, every token has its account, pipelining shows nowhere."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from routing import PROMPT, Parts

from arbitrage.walks import DRAFT, TARGET
from search.loop.driver import Limits
from search.policies import BestOfN, Rebase
from search.studies.router_costs import Chain, ChainStep, work_of
from search.types import ROOT, NodeStatus, Problem

KINDS = st.sampled_from(["never", "always", "random", "rsd", "judge", "arbitrage", "oracle"])


def solve(kind, threshold, seed, **options):
    parts = Parts(other_draft=options.pop("other_draft", False))
    driver = parts.driver(kind, threshold=threshold, seed=seed, scorer=options.pop("scored", False) or None, **options)
    return parts, asyncio.run(driver.solve(Problem("p", PROMPT), PROMPT))


@settings(max_examples=40)
@given(KINDS, st.floats(0, 1), st.integers(0, 99), st.integers(1, 6), st.booleans())
def test_every_token_that_was_written_is_kept_dropped_or_thrown_away(kind, threshold, seed, width, other_draft):
    parts, outcome = solve(kind, threshold, seed, policy=BestOfN(), width=width, other_draft=other_draft)
    tree, models = outcome.tree, outcome.models
    assert all(node.status in (NodeStatus.EXPANDED, NodeStatus.FINISHED) for node in tree)
    assert {node.writer for node in tree if node.id} <= {DRAFT, TARGET}
    written = [node for node in tree if node.id != ROOT]
    num_target = sum(node.writer == TARGET for node in written)
    asked = sum(call.method == "generate" for call in parts.target.calls)
    assert asked == (len(written) if kind == "oracle" else num_target)
    if not other_draft:
        for role, engine in ((DRAFT, parts.draft), (TARGET, parts.target)):
            cost = models[role]
            assert cost.sampled_tokens == cost.kept_tokens + cost.dropped_tokens + cost.thrown_tokens
            assert cost.thrown_tokens == 0 or kind == "oracle"
            assert engine.usage(tree.id).kv_tokens_held == 0
    assert sum(node.dropped_tokens > 0 for node in written) == (0 if kind == "always" else num_target)


@settings(max_examples=40)
@given(KINDS, st.floats(0, 1), st.integers(0, 999), st.integers(1, 30), st.booleans())
def test_pipelining_changes_nothing_but_what_is_thrown_away(kind, threshold, seed, max_tokens, other_draft):
    limits = Limits(max_tokens=max_tokens)
    (_, plain), (_, ahead) = (
        solve(kind, threshold, seed, limits=limits, pipeline=pipeline, other_draft=other_draft)
        for pipeline in (False, True)
    )
    rows = [
        [(n.ids, n.text, n.writer, n.estimate, n.dropped_tokens, n.reason) for n in one.tree] for one in (plain, ahead)
    ]
    assert rows[0] == rows[1]


@settings(max_examples=25)
@given(KINDS, st.integers(0, 99), st.integers(2, 12))
def test_a_search_of_any_width_is_the_same_twice(kind, seed, width):
    shapes = []
    for _ in range(2):
        parts = Parts()
        driver = parts.driver(kind, policy=Rebase(), width=width, seed=seed, scorer=parts.scorer())
        tree = asyncio.run(driver.solve(Problem("p", PROMPT), PROMPT)).tree
        shapes.append([(node.parent, node.ids, node.writer, node.status, node.reward) for node in tree])
    assert shapes[0] == shapes[1]


STEPS = st.lists(
    st.builds(
        lambda escalated, draft, target: ChainStep(escalated, draft, target if escalated else 0),
        st.booleans(), st.integers(1, 20), st.integers(1, 20),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(STEPS, st.integers(1, 50), st.sampled_from(["judge", "prm", "router", "none"]))
def test_each_model_computes_what_it_must_read_and_write_and_no_more(steps, prompt, judge):
    work = work_of(Chain(prompt, tuple(steps), True), judge)
    kept = sum(step.target_tokens if step.escalated else step.draft_tokens for step in steps)
    dropped = sum(step.draft_tokens for step in steps if step.escalated)
    drafts = sum(step.draft_tokens for step in steps)
    assert work["draft"].decoded_tokens == drafts
    assert drafts + prompt <= work["draft"].decoded_tokens + work["draft"].prefilled_tokens <= prompt + kept + dropped
    assert work["target"].decoded_tokens == sum(step.target_tokens for step in steps)
    target = work["target"].decoded_tokens + work["target"].prefilled_tokens
    if not any(step.escalated for step in steps) and judge != "judge":
        assert target == 0
    assert target <= prompt + kept + (dropped if judge == "judge" else 0)
    reads = work["router"].prefilled_tokens
    assert reads == 0 if judge in ("judge", "none") else prompt + drafts <= reads <= prompt + kept + dropped
