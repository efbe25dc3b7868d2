"""RLHFlow's reward models: each step is a user's turn, and the assistant answers it with '+' or '-'.

As RLHFlow's prm_evaluate.py does it for RLHFlow/Llama3.1-8B-PRM-Deepseek-Data and -Mistral-Data (read in the copy that
huggingface/search-and-learn keeps of it): the first turn is the question, a space and step 1; every judged step is
followed by an assistant's '+', whatever its reward was; a step's score is the softmax over '+' and '-' where the
assistant's answer begins. ProcessBench's script joins question and step 1 by a blank line in place of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import LabelCodec
from search.errors import ConfigError
from search.plain_text import encode_after, encode_protected, protect
from search.protocols import Tokenizer
from search.tree import Node, SearchTree


class RlhflowCodec(LabelCodec):
    """Reads p('+') / (p('+') + p('-')) at the last token of the assistant's header.

    A node's segment holds the '+' that answers the step above, its own step as a user's turn, and the header.
    """

    name: ClassVar[str] = "rlhflow"

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its published names alone."""
        return checkpoint.by_name(("rlhflow", "prm"), ("prm-deepseek-data",), ("prm-mistral-data",))

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look the labels up.

        Raises:
            ConfigError: one of them is not a single token, or there is no chat template that this reading can follow.
        """
        super().__init__(tokenizer, config)
        question = "1 + 1?"
        if self.tokenizer.chat([{"role": "user", "content": question}]) is None:
            raise ConfigError("codec rlhflow: the tokenizer has no chat template, and steps are read as chat turns")
        one_step, two_steps = self._chat(question, ["a"]), self._chat(question, ["a", "b"])
        if not (one_step.startswith(self._opening(question)) and two_steps.startswith(one_step)):
            raise ConfigError("codec rlhflow: the chat template changes earlier turns when one is added")

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """All up to the end of the question in the user's first turn."""
        return encode_protected(self.tokenizer, self._opening(protect(self.tokenizer, tree.question.strip())))

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """What the step's turn adds to the conversation, up to where the assistant is to answer."""
        question = protect(self.tokenizer, tree.question.strip())
        steps = [protect(self.tokenizer, above.text.strip(), written=True) for above in tree.path(node.id)[1:]]
        above = self._chat(question, steps[:-1]) if len(steps) > 1 else self._opening(question)
        # Special tokens stand before the header, so what lies further back than the last turn cannot matter.
        before = above if len(steps) == 1 else self._closing()
        return encode_after(self.tokenizer, before, self._chat(question, steps)[len(above) :])

    def _chat(self, question: str, steps: Sequence[str]) -> str:
        turns = [{"role": "user", "content": f"{question} {steps[0]}"}]
        for step in steps[1:]:
            turns += [{"role": "assistant", "content": self.config.good_token}, {"role": "user", "content": step}]
        text = self.tokenizer.chat(turns)
        assert text is not None, "checked when it was made"
        return text

    def _opening(self, question: str) -> str:
        text = self.tokenizer.chat([{"role": "user", "content": question}]) or ""
        return text[: text.rfind(question) + len(question)]

    def _closing(self) -> str:
        question = "1 + 1?"
        text = self.tokenizer.chat([{"role": "user", "content": question}]) or ""
        return text[text.rfind(question) + len(question) :]
