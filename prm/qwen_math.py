"""Qwen2.5-Math-PRM (and -PRM800K): a token classification at the special token that ends each step.

As the model card of Qwen/Qwen2.5-Math-PRM-7B does it (read there): the chat template with the system prompt below, the
question as the user's turn, and the steps, each followed by `<extra_0>`, as the assistant's; a step's reward is
softmax[1] of the head's two outputs at its `<extra_0>`. The head is Linear, ReLU, Linear (read in vLLM's port of it).
"""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import HeadCodec, one_token
from search.errors import ConfigError
from search.plain_text import encode_protected, encode_text, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."
STEP_END = "<extra_0>"


class QwenMathPrmCodec(HeadCodec):
    """Reads the probability of class 1 at the token that ends a step."""

    name: ClassVar[str] = "qwen-math-prm"
    system_prompt: ClassVar[str] = SYSTEM_PROMPT
    outputs: ClassVar[tuple[int, ...]] = (2,)

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its head and the token that ends steps."""
        if STEP_END not in checkpoint.special_tokens or checkpoint.num_head_outputs != 2:
            return ""
        return f"a {checkpoint.kind} with a head of 2 outputs ({checkpoint.head_names}) and the token {STEP_END}"

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look the special token up.

        Raises:
            ConfigError: the tokenizer splits it, or has no chat template.
        """
        super().__init__(tokenizer, config)
        self.step_end = one_token(tokenizer, config.step_tag or STEP_END, "step token")
        if tokenizer.chat([{"role": "user", "content": "1 + 1?"}]) is None:
            raise ConfigError(f"codec {self.name}: the tokenizer has no chat template")

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """System prompt and question, up to where the assistant's turn begins."""
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        text = self.tokenizer.chat([*system, {"role": "user", "content": protect(self.tokenizer, tree.question)}])
        assert text is not None, "checked when it was made"
        return encode_protected(self.tokenizer, text)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step and its special token; nothing stands between two steps but that."""
        return (*encode_text(self.tokenizer, node.text.strip(), written=True), self.step_end)
