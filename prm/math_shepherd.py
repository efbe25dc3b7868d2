"""Math-Shepherd (arXiv 2312.08935): a tag after each step, and a good or a bad label predicted at the tag.

As the model card of peiyi9979/math-shepherd-mistral-7b-prm does it (read there): the text is the question, a space and
"Step 1: ... ки", further steps on lines of their own; the tokenizer puts its start token first; the candidates are
the ids of "+ -" without the start token (648 and 387), and a step's score is the softmax over the two at the tag
(12902). Steps that the policy did not number are numbered, as in the training data.
"""

from __future__ import annotations

import re
from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import LabelCodec, one_token
from search.errors import ConfigError
from search.plain_text import encode_after, encode_text, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

STEP_TAG = "ки"
NUMBERED = re.compile(r"Step\s*\d+\s*:")


class MathShepherdCodec(LabelCodec):
    """Reads p('+') / (p('+') + p('-')) at the step tag."""

    name: ClassVar[str] = "math-shepherd"

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its published name alone."""
        return checkpoint.by_name(("shepherd", "prm"))

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look tag, labels and start token up.

        Raises:
            ConfigError: one of them is not a single token, or the labels are the same.
        """
        super().__init__(tokenizer, config)
        self.step_tag = config.step_tag.strip() or STEP_TAG
        if len(encode_after(tokenizer, "1.", f" {self.step_tag}")) != 1:
            raise ConfigError(
                f"step tag {self.step_tag!r} is not one token for this tokenizer; Math-Shepherd is read at it"
            )
        if config.bos_token:
            one_token(tokenizer, config.bos_token, "start token")

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The start token and the question."""
        return self.start + encode_text(self.tokenizer, tree.question.strip())

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """A space or a line break, the numbered step, and the tag."""
        text = node.text.strip().removesuffix(self.step_tag).rstrip()  # some policies write the tag themselves
        if not NUMBERED.match(text):
            text = f"Step {node.depth}: {text}"
        text = protect(self.tokenizer, text, written=True)
        question = protect(self.tokenizer, tree.question.strip())
        separator, before = (" ", question) if node.depth == 1 else ("\n", self.step_tag)
        return encode_after(self.tokenizer, before, f"{separator}{text} {self.step_tag}")
