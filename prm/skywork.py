"""Skywork-o1-Open-PRM: a value head, read at the line break that ends each step.

As Skywork's skywork-o1-prm-inference does it (read in the copy that openr keeps of io_utils.py and prm_model.py): ids
of start token + question + line break, then each line of the solution, encoded by itself, and the line break's id; the
reward is the sigmoid of the value head (one linear layer on the last hidden state) at that line break. The published
tokenizer's start token is `<|im_start|>` (read in its special_tokens_map.json). The reference reads every line; here a
step of several lines is read at its last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import HeadCodec
from search.plain_text import encode_protected, encode_text, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

LINE_BREAK = "\n"


@dataclass(frozen=True, slots=True)
class SkyworkCodec(HeadCodec):
    """Reads the sigmoid of the value head at the line break after a step.

    Attributes:
        line_break: id of the line break.
        start_token: text that stands before the question; empty for none.
    """

    name: ClassVar[str] = "skywork-o1"
    outputs: ClassVar[tuple[int, ...]] = (1,)
    writes_bos: ClassVar[bool] = True
    line_break: int
    start_token: str = ""

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its value head."""
        if not any("v_head." in key for key in checkpoint.head):
            return ""
        return f"a {checkpoint.kind} with a value head ({checkpoint.head_names})"

    @classmethod
    def configured(cls, tokenizer: Tokenizer, config: PrmConfig, same_tokenizer: bool) -> Self:
        """Look the line break up: as the reference, the last id of its encoding."""
        del same_tokenizer  # each line is encoded by itself, so no ids are shared
        return cls(tokenizer, tokenizer.encode(LINE_BREAK)[-1], config.bos_token)

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """Start token, question, line break."""
        question = protect(self.tokenizer, tree.question.strip())
        return encode_protected(self.tokenizer, self.start_token + question + LINE_BREAK)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """Each line's own ids and a line break."""
        ids: list[int] = []
        for line in node.text.strip().split(LINE_BREAK):
            ids += [*encode_text(self.tokenizer, line, written=True), self.line_break]
        return tuple(ids)
