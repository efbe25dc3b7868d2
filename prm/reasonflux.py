"""ReasonFlux-PRM-7B (arXiv 2506.18896): asked as Qwen2.5-Math-PRM, but with no system prompt of its own.

As the README of Gen-Verse/ReasonFlux does it (read there, its `make_step_rewards` too): the question as the user's turn
and the steps, split at blank lines and each followed by `<extra_0>`, as the assistant's; what the chat template says
where no system prompt is given stays as it is. A step's reward is softmax[1] of the two outputs at its `<extra_0>`.
"""

from __future__ import annotations

from typing import ClassVar

from prm.checkpoint import Checkpoint
from prm.qwen_math import QwenMathPrmCodec


class ReasonFluxCodec(QwenMathPrmCodec):
    """Reads as `QwenMathPrmCodec`, after a conversation that has no system turn but the template's own."""

    name: ClassVar[str] = "reasonflux"
    system_prompt: ClassVar[str] = ""

    @classmethod
    def recognise(cls, checkpoint: Checkpoint) -> str:
        """By its name, beside what a model of Qwen's kind has."""
        alike = QwenMathPrmCodec.recognise(checkpoint)
        return f"{alike}, by its name {checkpoint.name!r}" if alike and checkpoint.called(("reasonflux",)) else ""
