"""Models that think before they answer: whether they are asked to, and how much they may.

A thought stands between tags (`search.steps.THOUGHT_TAGS`); which of them a model uses shows in its chat template and
its vocabulary. Its steps are paragraphs, searched like any others; no answer is read in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from search.errors import ConfigError
from search.protocols import Tokenizer
from search.steps import THOUGHT_TAGS, StepReader, open_thought
from search.tree import SearchTree
from search.types import FinishReason, Step

Thinking = Literal["auto", "keep", "drop", "off"]

_OPTIONS = ("enable_thinking", "thinking")
"""What chat templates call the choice."""

_PROBE = [{"role": "user", "content": "1 + 1"}]


def thinking_option(thinking: Thinking, tokenizer: Tokenizer, options: Mapping[str, object]) -> dict[str, object]:
    """Options of the chat template by which a model is asked to think, or not to; what is set in `options` stays.

    Nothing for "auto", and nothing where the template has no such choice.
    """
    found = dict(options)
    if thinking == "auto" or any(name in options for name in _OPTIONS):
        return found
    for name in _OPTIONS:
        try:
            with_it, without = (tokenizer.chat(_PROBE, {**options, name: choice}) for choice in (True, False))
        except ConfigError:
            continue  # the template has no option of this name
        if with_it != without:
            return {**found, name: thinking != "off"}
    return found


def closed_thought(prompt: str, tokenizer: Tokenizer) -> str:
    """What is put behind a prompt so that the model does not think: its thought, opened and closed at once.

    Nothing where the prompt ends with a closed thought already, or the model has no tags for thoughts.
    """
    opening = open_thought(prompt)
    if opening:
        return f"\n{THOUGHT_TAGS[opening]}\n\n" if prompt.endswith("\n") else f"\n\n{THOUGHT_TAGS[opening]}\n\n"
    if prompt.rstrip().endswith(tuple(THOUGHT_TAGS.values())):
        return ""
    for opening, closing in THOUGHT_TAGS.items():
        if len(tokenizer.encode(opening)) == len(tokenizer.encode(closing)) == 1:
            return f"{opening}\n\n{closing}\n\n"
    return ""


@dataclass(frozen=True, slots=True)
class ThoughtLimit:
    """Closes a trajectory's thought when it has grown too long.

    Attributes:
        max_tokens: tokens of thought of a trajectory; the step that reaches them is its last, and may exceed them.
        tokenizer: the tree's.
    """

    max_tokens: int
    tokenizer: Tokenizer

    def close(self, tree: SearchTree, step: Step) -> Step:
        """The step as it is, or with the end of its thought put behind it, which no model wrote."""
        if step.finish not in (FinishReason.STOP, FinishReason.LENGTH):
            return step
        above = tree[step.node].parent
        assert above is not None
        reader, num_tokens = StepReader.after(tree.opening), 0
        for text, ids in [*((node.text, node.ids) for node in tree.path(above)[1:]), (step.text, step.ids)]:
            reader.feed(text.encode("utf-8", "replace"))
            num_tokens += len(ids) if reader.open_thought else 0
        closing = reader.open_thought
        if not closing or num_tokens < self.max_tokens:
            return step
        text = f"{closing}\n\n" if step.text.endswith("\n") else f"\n{closing}\n\n"
        ids = self.tokenizer.encode(text)
        return replace(step, ids=(*step.ids, *ids), text=step.text + text, forced_tokens=len(ids))
