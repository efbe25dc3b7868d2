"""Qwen2.5-Math-PRM (and -PRM800K): a token classification at the special token that ends each step.

As the model card of Qwen/Qwen2.5-Math-PRM-7B does it (read there): the chat template with the system prompt below, the
question as the user's turn, and the steps, each followed by `<extra_0>`, as the assistant's; a step's reward is
softmax[1] of the head's two outputs at its `<extra_0>`. The head is Linear, ReLU, Linear (read in vLLM's port of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prm.checkpoint import PrmConfig
from prm.codec import Reads, head_reward, one_token
from search.errors import ConfigError
from search.plain_text import encode_protected, encode_text, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."
STEP_END = "<extra_0>"


@dataclass(frozen=True, slots=True)
class QwenMathPrmCodec:
    """Reads the probability of class 1 at the token that ends a step.

    Attributes:
        tokenizer: the reward model's own, with a chat template.
        step_end: id of `<extra_0>`.
        name: "qwen-math-prm".
    """

    tokenizer: Tokenizer
    step_end: int
    name: str = "qwen-math-prm"
    reads: Reads = "head"
    labels: tuple[int, ...] = ()

    @classmethod
    def configured(cls, tokenizer: Tokenizer, config: PrmConfig, same_tokenizer: bool) -> QwenMathPrmCodec:
        """Look the special token up.

        Raises:
            ConfigError: the tokenizer splits it, or has no chat template.
        """
        del same_tokenizer  # a token of its own stands between the steps, so no ids are shared
        step_end = one_token(tokenizer, config.step_tag or STEP_END, "step token")
        if tokenizer.chat([{"role": "user", "content": "1 + 1?"}]) is None:
            raise ConfigError("codec qwen-math-prm: the tokenizer has no chat template")
        return cls(tokenizer, step_end)

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """System prompt and question, up to where the assistant's turn begins."""
        text = self.tokenizer.chat(
            [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": protect(self.tokenizer, tree.question)},
            ]
        )
        assert text is not None, "checked by `configured`"
        return encode_protected(self.tokenizer, text)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step and its special token; nothing stands between two steps but that."""
        return (*encode_text(self.tokenizer, node.text.strip(), written=True), self.step_end)

    def reward(self, outputs: Sequence[float]) -> float:
        """softmax[1] of the head's two outputs."""
        return head_reward(outputs)
