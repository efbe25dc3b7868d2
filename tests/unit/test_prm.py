"""The label-token codec and its scorer, over engines with known probabilities."""

import asyncio
import math
import subprocess
import sys

import pytest
from fake_engine import FakeEngine
from markov import BAD, GOOD, LabelModel
from scoring import rewards_of

from prm import LabelTokenCodec, PrmConfig, PrmScorer
from search.errors import ConfigError, EngineError, ScoringError
from search.tree import SearchTree
from search.types import ROOT, FinishReason, Step


def tree_of(tokenizer, *steps):
    tree = SearchTree("t#0", tokenizer.encode("Add 3.\n\n"), "Add 3.\n\n", "Add 3.")
    node = ROOT
    for text in steps:
        node = tree.add_child(node)
        tree.write(Step(node, tokenizer.encode(text), text, FinishReason.STOP, "w"))
    return tree, node


def scorer_of(reward, **options):
    engine = FakeEngine(LabelModel(reward))
    return PrmScorer(engine, LabelTokenCodec(engine.tokenizer, PrmConfig(**{"shares_ids": False, **options})))


@pytest.mark.parametrize("reward", [0.0, 1e-9, 0.25, 0.5, 1.0])
def test_a_reward_is_the_share_of_the_good_label(reward):
    scorer = scorer_of(lambda ids: reward, shares_ids=True)
    tree, leaf = tree_of(scorer.engine.tokenizer, "Add 4.\n\n")
    assert rewards_of(scorer, tree, [leaf]) == pytest.approx((reward,), abs=1e-12)


@pytest.mark.parametrize(
    ("logprobs", "reward"),
    [((-1.0, -1.0), 0.5), ((0.0, -1e9), 1.0), ((-1e9, 0.0), 0.0), ((-2.0, -1.0), 1 / (1 + math.e))],
)
def test_the_softmax_over_two_labels_never_overflows(logprobs, reward):
    codec = scorer_of(lambda ids: 0.5).codec
    assert codec.reward(logprobs) == pytest.approx(reward)


@pytest.mark.parametrize("logprobs", [(math.nan, -1.0), (-math.inf, -math.inf)])
def test_no_number_is_no_reward(logprobs):
    assert math.isnan(scorer_of(lambda ids: 0.5).codec.reward(logprobs))


def test_nan_names_the_problem_the_path_and_the_step():
    scorer = scorer_of(lambda ids: 0.5, shares_ids=True)
    tree, leaf = tree_of(scorer.engine.tokenizer, "Add 4.\n\n", "Take 1.\n\n")

    async def broken(prefix, labels):
        return (math.nan, math.nan)

    scorer.engine.label_logprobs = broken
    with pytest.raises(ScoringError, match=r"problem t: the reward model gave nan for node 0/1/2 \('Take 1\.'\)"):
        rewards_of(scorer, tree, [leaf])


def test_each_step_is_computed_once():
    scorer = scorer_of(lambda ids: len(ids) / 100, shares_ids=True)
    tree, leaf = tree_of(scorer.engine.tokenizer, "Add 4.\n\n", "Take 1.\n\n", "Add 9.\n\n")

    async def score_all():
        async with scorer.open(tree) as session:
            await session.score(tree, [tree.path(leaf)[1].id])
            await session.score(tree, [node.id for node in tree.path(leaf)[1:]])
            return session.usage()["prm"].computed_tokens, session.num_unique_tokens()

    num_tokens = sum(len(node.ids) for node in tree)
    assert asyncio.run(score_all()) == (num_tokens, num_tokens)


def test_siblings_that_say_the_same_are_asked_about_once():
    scorer = scorer_of(lambda ids: 0.25, shares_ids=True)
    tree, _ = tree_of(scorer.engine.tokenizer)
    texts = ["Add 4.\n\n", "Add 4.\n\n", "Add 5.\n\n", "Add 4.\n\n"]
    for text in texts:
        node = tree.add_child(ROOT)
        tree.write(Step(node, scorer.engine.tokenizer.encode(text), text, FinishReason.STOP, "w"))
    assert len(set(rewards_of(scorer, tree, tree.children(ROOT)))) == 1
    assert scorer.engine.num_calls("label_logprobs") == 2


def test_without_shared_ids_question_and_steps_are_encoded_with_the_tag_last():
    scorer = scorer_of(lambda ids: 0.5, step_tag=" 7", shares_ids=True)
    tokenizer = scorer.engine.tokenizer
    tree, leaf = tree_of(tokenizer, "Add 4.\n\n", "Take 1.\n\n")
    rewards_of(scorer, tree, [leaf])
    (call,) = scorer.engine.calls
    assert tokenizer.decode(call.prefix.ids) == "Add 3. Add 4. 7\nTake 1. 7"


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [("Add 33", BAD, "label token 'Add 33' is 3 tokens"), (GOOD, GOOD, "are the same token"), ("", BAD, "is 0 tokens")],
)
def test_labels_that_are_not_one_token_each_are_refused(good, bad, message):
    with pytest.raises(ConfigError, match=message):
        LabelTokenCodec(FakeEngine().tokenizer, PrmConfig(good_token=good, bad_token=bad))


def test_a_head_is_read_where_the_codec_says_so():
    from prm.reward_head import RewardHeadCodec

    engine = FakeEngine(LabelModel(lambda ids: 0.5), head=lambda ids: (float(len(ids)) / 10,))
    scorer = PrmScorer(engine, RewardHeadCodec(engine.tokenizer, PrmConfig()))
    tree, leaf = tree_of(engine.tokenizer, "Add 4.\n\n", "Take 1.\n\n")
    (reward,) = rewards_of(scorer, tree, [leaf])
    (call,) = engine.calls
    assert call.method == "read" and engine.tokenizer.decode(call.prefix.ids) == "Add 3.\n\nAdd 4.\n\nTake 1."
    assert reward == pytest.approx(1 / (1 + math.exp(-len(call.prefix.ids) / 10)))


def test_a_head_that_is_not_there_is_an_engines_error():
    from prm.reward_head import RewardHeadCodec

    engine = FakeEngine(LabelModel(lambda ids: 0.5))
    tree, leaf = tree_of(engine.tokenizer, "Add 4.\n\n")
    with pytest.raises(EngineError, match="no reward head"):
        rewards_of(PrmScorer(engine, RewardHeadCodec(engine.tokenizer, PrmConfig())), tree, [leaf])


def test_importing_prm_loads_no_backend():
    code = "import sys, prm; print(sorted({'torch', 'transformers', 'numpy', 'search.engines'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def twins_of(tokenizer):
    """A tree whose first two nodes say the same, with a step below each of them."""
    tree, _ = tree_of(tokenizer)
    above = [tree.add_child(ROOT) for _ in range(2)]
    for node in above:
        tree.write(Step(node, tokenizer.encode("Add 4.\n\n"), "Add 4.\n\n", FinishReason.STOP, "w"))
    below = [tree.add_child(node) for node in above]
    for node, text in zip(below, ("Take 1.\n\n", "Add 1.\n\n"), strict=True):
        tree.write(Step(node, tokenizer.encode(text), text, FinishReason.STOP, "w"))
    return tree, above, below


def test_steps_that_say_the_same_share_one_cache():
    async def run():
        scorer = scorer_of(lambda ids: 0.5, shares_ids=True)
        tree, above, below = twins_of(scorer.engine.tokenizer)
        unique = len(tree.root.ids) + len(tree[above[0]].ids) + sum(len(tree[node].ids) for node in below)
        async with scorer.open(tree) as session:
            first, second = await session.score(tree, above)
            await session.score(tree, below)
            assert first == second
            assert session.num_unique_tokens() == unique
            assert session.usage()["prm"].computed_tokens == unique

    asyncio.run(run())


def test_what_two_steps_share_is_freed_with_the_later_of_them():
    async def run():
        scorer = scorer_of(lambda ids: 0.5, shares_ids=True)
        tree, above, below = twins_of(scorer.engine.tokenizer)
        async with scorer.open(tree) as session:
            await session.score(tree, above)
            held = session.usage()["prm"].kv_tokens_held
            await session.release(tree.keys(above[1:]))
            await session.release(tree.keys(above[1:]))  # once more says nothing new
            assert session.usage()["prm"].kv_tokens_held == held
            await session.score(tree, below[:1])
            await session.release(tree.keys([above[0], below[0]]))
            assert session.usage()["prm"].kv_tokens_held == len(tree.root.ids)
        assert session.usage()["prm"].kv_tokens_held == 0

    asyncio.run(run())
