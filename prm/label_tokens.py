"""Label tokens after each step: the mini family, and what `ets prm train` makes from any base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import LabelCodec, label_ids
from search.errors import ConfigError
from search.plain_text import encode_after, encode_protected, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree


@dataclass(frozen=True, slots=True)
class LabelTokenCodec(LabelCodec):
    """Reads the probability of a good against a bad label token, as Math-Shepherd (arXiv 2312.08935) does.

    The reward of a step is p(good) / (p(good) + p(bad)) of the token that would follow the step.

    Attributes:
        shares_ids: the policy's tokenizer has the same content, so the tree's ids are taken as they are.
        step_tag: text put after each step where the model expects one, e.g. " ки"; empty for none.
        prompt: "plain": the bare question; "chat": the question through the model's chat template.
        step_end: text that ends each step in place of a separator before it, e.g. a blank line.
        start: ids that the tokenizer puts before every plain text; a chat template writes its own.
    """

    name: ClassVar[str] = "label-tokens"
    shares_ids: bool = False
    step_tag: str = ""
    prompt: Literal["plain", "chat"] = "plain"
    step_end: str = ""
    start: tuple[int, ...] = ()

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """No ordinary model is taken for one: its `prm_config.json`, or its user, says so."""
        del checkpoint
        return ""

    @classmethod
    def build(
        cls,
        tokenizer: Tokenizer,
        good_token: str = "+",
        bad_token: str = "-",
        *,
        shares_ids: bool = False,
        step_tag: str = "",
        prompt: Literal["plain", "chat"] = "plain",
        step_end: str = "",
        start_token: str = "",
    ) -> Self:
        """Look the label tokens up.

        Raises:
            ConfigError: the tokenizer splits a label token, both are the same, or it has no chat template.
        """
        good, bad = label_ids(tokenizer, good_token, bad_token)
        if prompt == "chat" and tokenizer.chat([{"role": "user", "content": "1 + 1"}]) is None:
            raise ConfigError("this reward model is to be asked by chat, and its tokenizer has no chat template")
        start = tokenizer.encode(start_token) if start_token and prompt == "plain" else ()
        return cls(tokenizer, good, bad, shares_ids and not step_tag, step_tag, prompt, step_end, start)

    @classmethod
    def configured(cls, tokenizer: Tokenizer, config: PrmConfig, same_tokenizer: bool) -> Self:
        """The codec as a checkpoint's configuration says; ids are shared only where it allows that."""
        return cls.build(
            tokenizer,
            config.good_token,
            config.bad_token,
            shares_ids=same_tokenizer and config.shares_ids,
            step_tag=config.step_tag,
            prompt=config.prompt,
            step_end=config.step_end,
            start_token=config.bos_token,
        )

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The policy's prompt, by its ids where they are shared, else the question as this model is asked."""
        if self.shares_ids:
            return tree.root.ids
        return self.start + encode_protected(self.tokenizer, self._prompt_text(tree))

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step's own ids where they are shared, else its text and what ends it, encoded."""
        if self.shares_ids:
            return node.ids
        text = protect(self.tokenizer, node.text.strip(), written=True) + self.step_tag + self.step_end
        if node.depth > 1:
            above = tree.path(node.id)[-2].text.strip()
            before = above[-1:] + self.step_tag + self.step_end
        else:
            before = self._prompt_text(tree)
        if not self.step_end:
            # The separator opens the segment, so that the tag, where the model is read, ends it.
            text = self._separator(node) + text
        return encode_after(self.tokenizer, before, text)

    def _separator(self, node: Node) -> str:
        if node.depth > 1:
            return "\n"
        return " " if self.prompt == "plain" else ""

    def _prompt_text(self, tree: SearchTree) -> str:
        """Protected, so that nothing in the question is a control token."""
        question = protect(self.tokenizer, tree.question)
        if self.prompt == "plain":
            return question + self.step_end
        text = self.tokenizer.chat([{"role": "user", "content": question}])
        assert text is not None, "checked by `build`"
        return text
