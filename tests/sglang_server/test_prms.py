"""Reward models on real servers: label tokens, and heads, those of our own model package included."""

import asyncio

import pytest
from cli import say
from prm_checkpoints import tree_of

from prm import PrmScorer, codec_of, detect_prm
from search.engines.local import LocalEngine
from search.engines.remote import SglangEngine
from search.types import FinishReason, Step

HEADS = ("qwen-math-prm", "skywork-o1-wrapped", "reward-head-qwen2")


def rewards(engine, folder):
    """Of a small tree, step by step and side by side."""
    config = detect_prm(str(folder), folder)
    scorer = PrmScorer(engine, codec_of(config, engine.tokenizer))
    tree, leaf = tree_of()
    siblings = [tree.add_child(tree[leaf].parent) for _ in range(3)]
    for number, node in enumerate(siblings):
        tree.write(Step(node, (8, number), f"The answer is {number}.\n\n", FinishReason.STOP, "w"))

    async def score():
        nodes = [node.id for node in tree.path(leaf)[1:]] + siblings
        async with scorer.open(tree) as session:
            found = await session.score(tree, nodes)
        await engine.aclose()
        return found

    return asyncio.run(score())


@pytest.mark.parametrize("name", HEADS)
def test_rewards_of_a_head_are_the_local_engines(servers, name):
    servers.start(*HEADS)
    folder = servers.model(name)
    there = rewards(SglangEngine.connect(str(folder), servers.url(name)), folder)
    here = rewards(LocalEngine.load(str(folder)), folder)
    say(f"{name}: largest difference {max(abs(a - b) for a, b in zip(here, there, strict=True)):.1e}")
    assert there == pytest.approx(here, abs=1e-4) and len(set(here)) > 3
    servers.stop(name)
