"""A sequence-classification reward head, read at the last token of each step.

Checkpoints of this form agree in their layout (a linear `score` on the last hidden state) and not in how they are
asked. The reading here is the common one: the question through the chat template where there is one, then the steps,
a blank line between two. It is not checked against any one published checkpoint.
"""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint
from prm.codec import HeadCodec
from search.plain_text import encode_after, encode_protected, encode_text, protect
from search.tree import Node, SearchTree

SEPARATOR = "\n\n"


class RewardHeadCodec(HeadCodec):
    """Reads the sigmoid of one output, or the share of class 1 of two, at a step's last token."""

    name: ClassVar[str] = "reward-head"
    outputs: ClassVar[tuple[int, ...]] = (1, 2)

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By having a head at all: this family comes last."""
        return (
            f"a {checkpoint.kind} with a head of {checkpoint.num_head_outputs} outputs ({checkpoint.head_names})"
            if checkpoint.head
            else ""
        )

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The question, as a user's turn where the tokenizer knows turns."""
        chat = self._chat(tree)
        if chat is None:
            return self.start + encode_text(self.tokenizer, tree.question)
        return encode_protected(self.tokenizer, chat)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step after a blank line, or at once where a chat template has opened the assistant's turn."""
        chat = self._chat(tree)
        text = protect(self.tokenizer, node.text.strip(), written=True) + self.config.step_tag
        if node.depth == 1 and chat is not None:
            return encode_after(self.tokenizer, chat, text)
        if node.depth > 1:
            above = tree.path(node.id)[-2].text.strip()[-1:] + self.config.step_tag
        else:
            above = protect(self.tokenizer, tree.question)
        return encode_after(self.tokenizer, above, SEPARATOR + text)

    def _chat(self, tree: SearchTree) -> str | None:
        return self.tokenizer.chat([{"role": "user", "content": protect(self.tokenizer, tree.question)}])
