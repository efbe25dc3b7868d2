"""Skywork-o1-Open-PRM: a value head, read at the line break that ends each step.

As Skywork's skywork-o1-prm-inference does it (read in the copy that openr keeps of io_utils.py and prm_model.py): ids
of start token + question + line break, then each line of the solution, encoded by itself, and the line break's id; the
reward is the sigmoid of the value head (one linear layer on the last hidden state) at that line break. The published
tokenizer's start token is `<|im_start|>` (read in its special_tokens_map.json). The reference reads every line; here a
step of several lines is read at its last.
"""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import HeadCodec
from search.plain_text import encode_protected, encode_text, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

LINE_BREAK = "\n"


class SkyworkCodec(HeadCodec):
    """Reads the sigmoid of the value head at the line break after a step."""

    name: ClassVar[str] = "skywork-o1"
    outputs: ClassVar[tuple[int, ...]] = (1,)
    writes_bos: ClassVar[bool] = True

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its value head."""
        if not any("v_head." in key for key in checkpoint.head):
            return ""
        return f"a {checkpoint.kind} with a value head ({checkpoint.head_names})"

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look the line break up: as the reference, the last id of its encoding."""
        super().__init__(tokenizer, config)
        self.line_break = tokenizer.encode(LINE_BREAK)[-1]

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """Start token, question, line break."""
        question = protect(self.tokenizer, tree.question.strip())
        return encode_protected(self.tokenizer, self.config.bos_token + question + LINE_BREAK)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """Each line's own ids and a line break."""
        ids: list[int] = []
        for line in node.text.strip().split(LINE_BREAK):
            ids += [*encode_text(self.tokenizer, line, written=True), self.line_break]
        return tuple(ids)
