"""Label tokens after each step: the mini family, and what `ets prm train` makes from any base model."""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import LabelCodec
from search.errors import ConfigError
from search.plain_text import encode_after, encode_protected, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree


class LabelTokenCodec(LabelCodec):
    """Reads the probability of a good against a bad label token, as Math-Shepherd (arXiv 2312.08935) does.

    The reward of a step is p(good) / (p(good) + p(bad)) of the token that would follow the step.

    Where the policy's tokenizer has the same content, the tree's ids are taken as they are.
    """

    name: ClassVar[str] = "label-tokens"

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """No ordinary model is taken for one: its `prm_config.json`, or its user, says so."""
        del checkpoint
        return ""

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look the label tokens up.

        Raises:
            ConfigError: the tokenizer splits a label token, both are the same, or it has no chat template.
        """
        super().__init__(tokenizer, config)
        self._shares_ids = config.shares_ids and not config.step_tag
        if config.prompt == "chat" and tokenizer.chat([{"role": "user", "content": "1 + 1"}]) is None:
            raise ConfigError("this reward model is to be asked by chat, and its tokenizer has no chat template")

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The policy's prompt, by its ids where they are shared, else the question as this model is asked."""
        if self._shares_ids:
            return tree.root.ids
        # A chat template writes a start token of its own.
        start = self.start if self.config.prompt == "plain" else ()
        return start + encode_protected(self.tokenizer, self._prompt_text(tree))

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step's own ids where they are shared, else its text and what ends it, encoded."""
        if self._shares_ids:
            return node.ids
        text = protect(self.tokenizer, node.text.strip(), written=True) + self.config.step_tag + self.config.step_end
        if node.depth > 1:
            above = tree.path(node.id)[-2].text.strip()
            before = above[-1:] + self.config.step_tag + self.config.step_end
        else:
            before = self._prompt_text(tree)
        if not self.config.step_end:
            # The separator opens the segment, so that the tag, where the model is read, ends it.
            text = self._separator(node) + text
        return encode_after(self.tokenizer, before, text)

    def _separator(self, node: Node) -> str:
        if node.depth > 1:
            return "\n"
        return " " if self.config.prompt == "plain" else ""

    def _prompt_text(self, tree: SearchTree) -> str:
        """Protected, so that nothing in the question is a control token."""
        question = protect(self.tokenizer, tree.question)
        if self.config.prompt == "plain":
            return question + self.config.step_end
        text = self.tokenizer.chat([{"role": "user", "content": question}])
        assert text is not None, "checked when it was made"
        return text
