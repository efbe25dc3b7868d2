"""Reward models of TRL's `PRMTrainer`: a token classification at the separator that follows each step.

As the trainer packs its examples (read in public copies of it): the start token, the bare prompt, then each step and
the separator (a line break unless another was chosen), every piece encoded by itself; a step's label stands at the last
token of its separator, and class 1 says that the step is right. No chat template is used.

PURE-PRM-7B (arXiv 2504.15275) was made so. Its authors' script for ProcessBench reads the same ids at the same places
(read in CJReinforce/PURE); their score p(1) - p(0) in [-1, 1] is ours, p(1) in [0, 1], on another scale.
"""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint, PrmConfig
from prm.codec import HeadCodec
from search.errors import ConfigError
from search.plain_text import encode_text
from search.protocols import Tokenizer
from search.tree import Node, SearchTree

SEPARATOR = "\n"


class TrlCodec(HeadCodec):
    """Reads the probability of class 1 at the last token of the separator after a step."""

    name: ClassVar[str] = "trl"
    outputs: ClassVar[tuple[int, ...]] = (2,)

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its head and its architecture."""
        classifies = any(architecture.endswith("ForTokenClassification") for architecture in checkpoint.architectures)
        if not classifies or checkpoint.num_head_outputs != 2:
            return ""
        return f"a {checkpoint.kind} with a head of 2 outputs ({checkpoint.head_names}), as TRL's PRMTrainer makes them"

    def __init__(self, tokenizer: Tokenizer, config: PrmConfig) -> None:
        """Look up the separator that the checkpoint names as its `step_tag`, a line break by default.

        Raises:
            ConfigError: the tokenizer has no ids for the separator.
        """
        super().__init__(tokenizer, config)
        separator = config.step_tag or SEPARATOR
        self.separator = tokenizer.encode(separator)
        if not self.separator:
            raise ConfigError(f"codec trl: the tokenizer has no token for the separator {separator!r}")

    def prompt_ids(self, tree: SearchTree) -> tuple[int, ...]:
        """The start token and the bare question."""
        return self.start + encode_text(self.tokenizer, tree.question)

    def step_ids(self, tree: SearchTree, node: Node) -> tuple[int, ...]:
        """The step by itself, and the separator."""
        return encode_text(self.tokenizer, node.text.strip(), written=True) + self.separator
