"""The draft writes on while the router judges: the same steps, sooner."""

import asyncio
from dataclasses import dataclass

import pytest
from fake_engine import FakeEngine
from markov import STORY_VOCABULARY, story_model
from routing import ALONE, PROBLEM, PROMPT, Parts, other_vocabulary, shape, solve
from virtual_clock import timed

from arbitrage.walks import DRAFT, TARGET
from search.loop.driver import Limits
from search.loop.thoughts import ThoughtLimit
from search.types import Problem


def runs(kind, pipeline, num_problems=50, **options):
    made = []
    for number in range(num_problems):
        parts = Parts(**options)
        made.append(solve(parts.driver(kind, pipeline=pipeline), Problem(f"q{number}", PROMPT)))
    return made


@pytest.mark.parametrize("kind", ALONE)
def test_pipelined_runs_equal_unpipelined_ones(kind):
    plain, ahead = runs(kind, False), runs(kind, True)
    assert list(map(shape, plain)) == list(map(shape, ahead))
    assert all(
        one.models[TARGET].num_calls == two.models[TARGET].num_calls for one, two in zip(plain, ahead, strict=True)
    )
    assert sum(outcome.models[DRAFT].thrown_tokens for outcome in plain) == 0


@pytest.mark.parametrize("kind", ["rsd", "arbitrage"])
def test_what_was_written_ahead_in_vain_is_counted(kind):
    ahead = runs(kind, True, 10, seconds=0.001)
    assert any(node.writer == TARGET for outcome in ahead for node in outcome.tree)
    assert sum(outcome.models[DRAFT].thrown_tokens for outcome in ahead) > 0


def test_pipelined_runs_equal_with_another_tokenizer_and_with_limits():
    plain, ahead = (runs("random", pipeline, 10, other_draft=True) for pipeline in (False, True))
    assert list(map(shape, plain)) == list(map(shape, ahead))
    for limits in (Limits(max_tokens=9), Limits(max_depth=2)):
        pairs = [
            solve(Parts().driver("random", pipeline=pipeline, limits=limits), Problem(f"q{i}", PROMPT))
            for i in range(10)
            for pipeline in (False, True)
        ]
        assert list(map(shape, pairs[::2])) == list(map(shape, pairs[1::2]))


@dataclass(frozen=True)
class Thinker:
    """Writes steps until its thought is closed, and then an answer."""

    turned: bool

    @property
    def vocabulary(self):
        return STORY_VOCABULARY[::-1] if self.turned else STORY_VOCABULARY

    def logits(self, ids):
        done = "</think>" in "".join(self.vocabulary[token] for token in ids)
        story = story_model(answer=float(done))
        return (other_vocabulary(story) if self.turned else story).logits(ids)


@pytest.mark.parametrize("other_draft", [False, True])
def test_a_thought_that_had_to_be_closed_is_closed_for_both_models_and_for_what_is_written_ahead(other_draft):
    made, seen = [], []
    for pipeline in (False, True):
        for number in range(8):
            parts = Parts(other_draft=other_draft)
            parts.draft, parts.target = FakeEngine(Thinker(other_draft)), FakeEngine(Thinker(False))
            thoughts = ThoughtLimit(8, parts.target.tokenizer)
            driver = parts.driver("random", pipeline=pipeline, thoughts=thoughts)
            made.append(asyncio.run(driver.solve(Problem(f"q{number}", PROMPT), f"{PROMPT}<think>\n")))
            for engine in (parts.draft, parts.target):
                told = [engine.tokenizer.decode(call.prefix.ids) for call in engine.calls if call.method == "generate"]
                seen += [text for text in told if "</think>" in text]
                for text in told:  # neither model ever reads what the tree does not have, or has it twice
                    tree = made[-1].tree
                    assert (
                        any((tree.root.text + tree.steps_text(node.id)).startswith(text) for node in tree) or pipeline
                    )
                    assert text.count("</think>") <= 1
    assert list(map(shape, made[:8])) == list(map(shape, made[8:]))
    assert any(node.forced_tokens for outcome in made for node in outcome.tree) and seen


def test_the_draft_writes_while_the_router_judges():
    """Four drafts kept: unpipelined each waits for the router's answer before the next begins."""

    def seconds(pipeline):
        parts = Parts(seconds=0.01)
        parts.draft.model = story_model(answer=0.0)
        limits = Limits(max_depth=4)
        driver = parts.driver("arbitrage", threshold=1.0, pipeline=pipeline, limits=limits)
        return timed(driver.solve(PROBLEM, PROMPT))[1]

    assert seconds(True) < 0.85 * seconds(False)
