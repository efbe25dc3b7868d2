"""VersaPRM and Llama-PRM800K (arXiv 2502.06737): blank lines after each step, and '+' or '-' predicted there.

As their model cards do it (read in three public copies of that code, which agree): the start token, the question, a
space and two line breaks, then each step with a space and four line breaks, which are one token (23535); the candidates
are '-' and '+' (12 and 10), and a step's score is softmax's share of '+' at that token.
"""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import LabelCodec
from search.errors import ConfigError
from search.plain_text import encode_after, encode_text, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

AFTER_QUESTION = " \n\n"
STEP_END = " \n\n\n\n"


class VersaCodec(LabelCodec):
    """Reads p('+') / (p('+') + p('-')) at the blank lines that end a step."""

    name: ClassVar[str] = "versaprm"

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its published names alone."""
        return checkpoint.by_name(("versaprm",), ("llama", "prm800k"))

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look labels and blank lines up.

        Raises:
            ConfigError: one of them is not a single token.
        """
        super().__init__(tokenizer, config)
        if len(encode_after(tokenizer, "1.", STEP_END)) != 1:
            raise ConfigError(f"step end {STEP_END!r} is not one token for this tokenizer; VersaPRM is read at it")

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The start token and the question."""
        return self.start + encode_text(self.tokenizer, tree.question.strip())

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step and the blank lines that end it, after those that end the question."""
        text = protect(self.tokenizer, node.text.strip(), written=True) + STEP_END
        if node.depth > 1:
            return encode_after(self.tokenizer, STEP_END, text)
        return encode_after(self.tokenizer, protect(self.tokenizer, tree.question.strip()), AFTER_QUESTION + text)
