"""Models that think: thoughts kept, dropped, closed, or not asked for; no answer is ever read in them."""

import asyncio
from dataclasses import replace

import pytest
from fake_engine import FakeEngine
from markov import EOS, FakeTokenizer, MarkovModel

from search import Search
from search.answers.graders import PlainGrader
from search.decision.vote import candidates
from search.errors import ConfigError
from search.loop.driver import Driver, Limits
from search.loop.thoughts import ThoughtLimit, closed_thought, thinking_option
from search.loop.writer import ModelWriter
from search.policies import BestOfN
from search.steps import THOUGHT_TAGS, StepReader, open_thought, without_thoughts
from search.tree import SearchTree
from search.types import ROOT, FinishReason, NodeStatus, Problem, Sampling, Step

CHARACTERS = [*map(chr, range(0x20, 0x7F)), "◁", "▷", "\n"]


def thinker(ends: float = 0.0) -> FakeEngine:
    """Thinks in steps of three tokens, each of which names a wrong answer, until it ends or is stopped."""
    again = {"Hm,": 1 - ends, "</think>\n\n": ends}
    rows = {
        "<think>\n": {"Hm,": 1.0},
        "Hm,": {" is it \\boxed{5}": 1.0},
        " is it \\boxed{5}": {"?\n\n": 1.0},
        "?\n\n": again,
        "</think>\n\n": {"It is ": 1.0},
        "It is ": {"\\boxed{7}.": 1.0},
        "\\boxed{7}.": {EOS: 1.0},
    }
    vocabulary = (EOS, *rows, *CHARACTERS)
    return FakeEngine(MarkovModel.from_probabilities(vocabulary, rows, {"<think>\n": 1.0}))


def search(engine, prompt, thoughts=None, **options):
    driver = Driver(BestOfN(), ModelWriter(engine), None, width=3, thoughts=thoughts, **options)
    return asyncio.run(driver.solve(Problem("p", "1 + 1"), prompt))


@pytest.mark.parametrize("prompt", ["Q.<think>\n", "Q."], ids=["opened by the prompt", "opened by the model"])
def test_a_thought_that_is_too_long_is_closed_and_the_answer_comes(prompt):
    engine = thinker()
    outcome = search(engine, prompt, ThoughtLimit(6, engine.tokenizer))
    tree = outcome.tree
    finished = tree.leaves(NodeStatus.FINISHED)
    assert len(finished) == 3
    for leaf in finished:
        steps = tree.path(leaf.id)[1:]
        assert [step.forced_tokens for step in steps] == [0, 1, 0]
        assert steps[1].text.endswith("\n\n</think>\n\n") and steps[2].text == "It is \\boxed{7}."
        assert "".join(engine.tokenizer.decode(step.ids) for step in steps) == tree.steps_text(leaf.id)
        assert tree.solution_text(leaf.id).startswith("<think>\nHm,")
        assert tree.spoken_text(leaf.id) == "It is \\boxed{7}."
    assert {one.answer for one in candidates(tree, "last", PlainGrader())} == {"7"}


def test_what_was_put_behind_a_step_is_computed_once_and_counted_as_nobodys_writing():
    engine = thinker()
    outcome = search(engine, "Q.<think>\n", ThoughtLimit(3, engine.tokenizer))
    written = sum(len(call.keys) for call in engine.calls)
    assert written == 6 and engine.num_calls("generate") == 4, "one request for the root, one for each thought"
    cost = outcome.models["policy"]
    assert cost.sampled_tokens == cost.kept_tokens == 3 * (3 + 3) and cost.thrown_tokens == 0
    assert outcome.stats.unique_tokens == len(outcome.tree.root.ids) + 3 * (3 + 1 + 3)
    # The last token of an unexpanded step is read by nobody.
    assert outcome.stats.computed_tokens == outcome.stats.unique_tokens - 3


def test_without_a_limit_it_thinks_on_and_nothing_is_read():
    tree = search(thinker(), "Q.<think>\n", limits=Limits(max_tokens=15)).tree
    leaves = tree.leaves(NodeStatus.FINISHED)
    assert [leaf.reason for leaf in leaves] == ["limit of 15 tokens"] * 3
    assert all("\\boxed{5}" in tree.steps_text(leaf.id) for leaf in leaves)
    assert [one.answer for one in candidates(tree, "last", PlainGrader())] == [None] * 3


def test_a_thought_that_ends_by_itself_is_left_alone():
    engine = thinker(ends=1.0)
    tree = search(engine, "Q.<think>\n", ThoughtLimit(4, engine.tokenizer)).tree
    assert all(node.forced_tokens == 0 for node in tree)
    assert {one.answer for one in candidates(tree, "last", PlainGrader())} == {"7"}


def test_how_a_thought_is_closed():
    tokenizer = FakeTokenizer((EOS, "</think>", "\n", *CHARACTERS[:-1]))
    limit = ThoughtLimit(4, tokenizer)

    def closed(prompt, text, num_tokens=4, finish=FinishReason.STOP):
        tree = SearchTree("t", (1,), prompt)
        child = tree.add_child(ROOT)
        step = Step(child, (5,) * num_tokens, text, finish, "policy")
        after = limit.close(tree, step)
        assert after == replace(step, ids=after.ids, text=after.text, forced_tokens=len(after.ids) - num_tokens)
        return after.text.removeprefix(text)

    assert closed("<think>\n", "a\n\n") == "</think>\n\n"
    assert closed("<think>", "a") == "\n</think>\n\n", "cut in a line"
    assert closed("[THINK]", "a\n") == "[/THINK]\n\n"
    assert closed("Q.", "<think>\na\n\n") == "</think>\n\n"
    assert closed("Q.", "<think>a") == "\n</think>\n\n", "the tag's line is not at its end"
    for prompt, text, num_tokens, finish in (
        ("Q.", "a\n\n", 9, FinishReason.STOP),
        ("<think>\n", "a\n\n", 3, FinishReason.STOP),
        ("<think>\n", "a\n</think>\n\n", 9, FinishReason.STOP),
        ("<think>\n", "a</think>", 9, FinishReason.LENGTH),
        ("<think>\n", "a", 9, FinishReason.EOS),
        ("<think>\n", "a", 9, FinishReason.CONTEXT),
    ):
        assert closed(prompt, text, num_tokens, finish) == ""


@pytest.mark.parametrize(
    ("thinking", "text"),
    [
        ("auto", "<think>\nHm, is it \\boxed{5}?\n\nHm, is it \\boxed{5}?\n\n</think>\n\nIt is \\boxed{7}."),
        ("keep", "<think>\nHm, is it \\boxed{5}?\n\nHm, is it \\boxed{5}?\n\n</think>\n\nIt is \\boxed{7}."),
        ("drop", "It is \\boxed{7}."),
    ],
)
def test_thoughts_are_given_out_or_not_and_never_voted_on(thinking, text):
    settings = {"method": "self-consistency", "width": 2, "thinking": thinking, "max_thought_tokens": 7}
    with Search(policy=thinker(), prm="none", **settings) as one:
        result = one.solve("1 + 1")
    assert result.text == text and {one.text for one in result.trajectories} == {text}
    assert result.answer == "7" and result.tally == {"7": 2.0}
    assert any("</think>" in node.text for node in result.tree), "the tree has all of it"


def test_a_model_that_is_not_to_think_starts_behind_a_closed_thought():
    class Tagged(FakeEngine):
        """One whose vocabulary has the tags."""

    words = {"<think>": "\n\n", "</think>": "\n\n", "No. ": "\\boxed{7}.", "\\boxed{7}.": EOS}
    rows = {word: {after: 1.0} for word, after in words.items()}
    engine = Tagged(MarkovModel.from_probabilities((EOS, "\n\n", *rows, *CHARACTERS), rows, {"No. ": 1.0}))
    with Search(policy=engine, prm="none", method="greedy", thinking="off") as one:
        result = one.solve("1 + 1")
    assert result.tree.root.text.endswith("<think>\n\n</think>\n\n")
    assert result.text == "No. \\boxed{7}." and result.answer == "7"


class Template:
    """A tokenizer with a chat template that reads an option."""

    def __init__(self, option, opens=""):
        self.option, self.opens = option, opens

    def chat(self, messages, options={}):  # noqa: B006
        if set(options) - {self.option, "other"}:
            raise ConfigError("no such option")
        closed = "" if options.get(self.option, True) else "<think>\n\n</think>\n\n"
        return f"{messages[0]['content']}{self.opens}{closed}"


def test_a_chat_template_is_asked_by_the_option_that_it_has():
    for name in ("enable_thinking", "thinking"):
        assert thinking_option("off", Template(name), {}) == {name: False}
        assert thinking_option("keep", Template(name), {"other": 1}) == {name: True, "other": 1}
        assert thinking_option("drop", Template(name), {}) == {name: True}
        assert thinking_option("auto", Template(name), {}) == {}
        assert thinking_option("off", Template(name), {name: True}) == {name: True}, "a person's own word counts"
    assert thinking_option("off", Template("verbose"), {}) == {}
    assert thinking_option("off", FakeTokenizer((EOS, "a")), {}) == {}, "no template"


def test_what_closes_a_prompts_thought():
    plain, tagged = FakeTokenizer((EOS, *CHARACTERS)), FakeTokenizer((EOS, "<think>", "</think>", *CHARACTERS))
    assert closed_thought("Q.<think>\n", plain) == "\n</think>\n\n"
    assert closed_thought("Q.<think>", plain) == "\n\n</think>\n\n"
    assert closed_thought("Q.[THINK]", plain) == "\n\n[/THINK]\n\n"
    assert closed_thought("Q.", plain) == "", "it has no tags for thoughts"
    assert closed_thought("Q.", tagged) == "<think>\n\n</think>\n\n"
    assert closed_thought("Q.<think>\n\n</think>\n\n", tagged) == "", "its template did"


def test_a_tag_at_the_end_of_a_question_opens_nothing():
    tree = SearchTree("t", (1,), "What is 1 + 1? <think>\n", "What is 1 + 1? <think>")
    assert tree.opening == "" and tree.solution_text(ROOT) == ""
    tree = SearchTree("t", (1,), "What is <think>?\n<think>\n", "What is <think>?")
    assert tree.opening == "<think>" and tree.solution_text(ROOT) == "<think>\n"


def test_thoughts_of_a_text():
    for opening, closing in THOUGHT_TAGS.items():
        assert open_thought(f"Q.{opening}\n") == opening
        assert without_thoughts(f"{opening}\na {opening} b\n{closing}\n\nIt is 7.") == "It is 7."
        assert without_thoughts(f"a\n{closing}\n\nIt is 7.") == "It is 7.", "it was open from the start"
        assert without_thoughts(f"It is 7. {opening}Or") == "It is 7. "
        reader = StepReader.after(f"Q.{opening}\n")
        assert reader.open_thought == closing
        reader.feed(f"a\n{closing}".encode())
        assert reader.open_thought == "", "though the line may go on"
        assert not reader.feed(b"\n") and reader.feed(b"\nb\n\n")
    assert without_thoughts("no thought\n\nIt is 7.") == "no thought\n\nIt is 7."
    assert open_thought("Put thoughts in <think> tags.") == ""


def test_limits_of_a_thought_are_in_a_step_too():
    """A long paragraph is closed at its end, not in it."""
    engine = thinker()
    sampling = Sampling(1.0, max_new_tokens=2)
    tree = search(engine, "Q.<think>\n", ThoughtLimit(2, engine.tokenizer), sampling=sampling).tree
    first = tree[tree.children(ROOT)[0]]
    assert first.text == "Hm, is it \\boxed{5}\n</think>\n\n" and first.forced_tokens == 2
