"""The contract of both writers: every child is answered once, whoever is stopped or fails."""

import asyncio

import pytest
from fake_engine import FakeEngine, Fault
from routing import PROMPT, Parts, solve, written

from arbitrage.walks import DRAFT
from search.catalogue import ROUTERS
from search.loop.writer import ModelWriter
from search.protocols import Writer
from search.support.streams import closing
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Sampling, Step, StepFailure, WriteJob


def writers():
    return {
        "model": lambda: ModelWriter(FakeEngine()),
        **{kind: lambda kind=kind: Parts().writer(kind) for kind in ROUTERS},
        "other tokenizer": lambda: Parts(other_draft=True).writer("random"),
    }


@pytest.fixture(params=writers())
def writer(request):
    return writers()[request.param]()


def level(writer, num_jobs=3, num_children=4):
    tree = SearchTree("p#0", writer.tokenizer.encode(PROMPT), PROMPT)
    tops = [tree.add_child(ROOT) for _ in range(num_jobs)]
    for top in tops:
        tree.write(Step(top, writer.tokenizer.encode("Add 1.\n\n"), "Add 1.\n\n", FinishReason.STOP, DRAFT))
    jobs = [WriteJob(top, tuple(tree.add_child(top) for _ in range(num_children)), 30) for top in tops]
    return tree, jobs


def test_a_writer_answers_each_child_once_with_ids_that_are_its_text(writer):
    async def main():
        assert isinstance(writer, Writer)
        tree, jobs = level(writer)
        async with writer.open(tree) as session:
            steps = await written(session, tree, jobs)
            assert set(session.usage()) == set(writer.engines)
        assert sorted(step.node for step in steps) == sorted(child for job in jobs for child in job.children)
        for step in steps:
            assert isinstance(step, Step) and step.writer and step.ids
            assert writer.tokenizer.decode(step.ids) == step.text
            assert (step.finish is FinishReason.EOS) == (step.ids[-1] in writer.tokenizer.eos_ids)

    asyncio.run(main())


def test_a_writer_that_is_stopped_can_go_on(writer):
    async def main():
        tree, jobs = level(writer)
        async with writer.open(tree) as session:
            async with closing(session.write(tree, jobs, Sampling())) as made:
                await anext(made)
            for pause in (0.0, 0.001):
                task = asyncio.create_task(written(session, tree, jobs))
                await asyncio.sleep(pause)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            again = await written(session, tree, jobs)
        assert len(again) == 12
        for engine in writer.engines.values():
            assert engine.usage(tree.id).kv_tokens_held == 0

    asyncio.run(main())


@pytest.mark.parametrize("broken", ["draft", "target", "prm"])
@pytest.mark.parametrize("pipeline", [False, True])
def test_a_part_that_fails_fails_its_steps_and_no_other(broken, pipeline):
    parts = Parts()
    method = "label_logprobs" if broken == "prm" else "generate"
    engine = getattr(parts, broken)
    engine._faults = {(method, 1): Fault(method, 1)}
    outcome = solve(parts.driver("rsd", width=1 if pipeline else 6, pipeline=pipeline))
    failed = outcome.tree.leaves(NodeStatus.FAILED)
    assert failed and all(node.reason for node in failed)
    assert not outcome.tree.leaves(NodeStatus.PENDING)
    if broken != "draft" and not pipeline:
        assert outcome.tree.leaves(NodeStatus.FINISHED)


@pytest.mark.parametrize(
    ("kind", "model", "method", "said"),
    [
        ("rsd", "prm", "label_logprobs", "the reward model gave nan"),
        ("probe", "draft", "read", "the draft's state at the end of its step has what is no number"),
    ],
)
def test_a_router_that_is_given_nonsense_fails_the_step_and_says_so(kind, model, method, said):
    parts = Parts()
    getattr(parts, model)._faults = {(method, 1): Fault(method, 1, "nan")}
    outcome = solve(parts.driver(kind, width=4))
    (failed,) = outcome.tree.leaves(NodeStatus.FAILED)
    assert said in failed.reason


def test_failures_of_the_target_alone_are_said():
    parts = Parts()
    parts.target._faults = {("generate", 1): Fault("generate", 1)}
    outcome = solve(parts.driver("always", width=3))
    assert len(outcome.tree.leaves(NodeStatus.FAILED)) == 1
    assert not any(isinstance(node, StepFailure) for node in outcome.tree)
