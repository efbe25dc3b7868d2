"""Process reward models on SGLang's Qwen2: Qwen2.5-Math-PRM, Skywork-o1-Open-PRM, and plain classification heads.

The server is started with `--is-embedding`. A prompt's "embedding" is then what the head says at its last token, so one
request reads one step's reward, and the radix cache holds the steps before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from sglang.srt.layers.pooler import EmbeddingPoolerOutput, Pooler, PoolingType
from sglang.srt.models.qwen2 import Qwen2ForCausalLM, Qwen2Model
from sglang.srt.utils import add_prefix
from torch import nn

WRAPPER = "pretrained_model."
"""What some checkpoints put before the names of the decoder that they wrap."""


class _HeadedQwen2(nn.Module):
    """A Qwen2 decoder with a head in place of its output embeddings, read at each prompt's last token.

    Attributes:
        head: name of the module that makes outputs (num_tokens, num_outputs) of hidden states (num_tokens, dim).
    """

    head: ClassVar[str] = "score"

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config, self.quant_config = config, quant_config
        self.model = Qwen2Model(config, quant_config=quant_config, prefix=add_prefix("model", prefix))
        self.pooler = Pooler(pooling_type=PoolingType.LAST, normalize=False)

    @torch.no_grad()
    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: Any,
        input_embeds: torch.Tensor | None = None,
        get_embedding: bool = True,
    ) -> EmbeddingPoolerOutput:
        """One output vector for each prompt of the batch."""
        assert get_embedding, "start the server with --is-embedding"
        hidden = self.model(input_ids, positions, forward_batch, input_embeds)
        return self.pooler(getattr(self, self.head)(hidden), forward_batch)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Any:
        """Take a checkpoint's tensors by their names; output embeddings are left out."""
        renamed = ((name.removeprefix(WRAPPER), tensor) for name, tensor in weights)
        kept = [(name, tensor) for name, tensor in renamed if not name.startswith("lm_head")]
        return Qwen2ForCausalLM._legacy_load_weights(self, kept)


class Qwen2ForProcessRewardModel(_HeadedQwen2):
    """Qwen2.5-Math-PRM: two outputs through a hidden layer; the reward is the softmax's second."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__(config, quant_config, prefix)
        dim = config.hidden_size
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 2))


class Qwen2ForPrmModel(_HeadedQwen2):
    """Skywork-o1-Open-PRM: one output, of a layer under the name that TRL gives it; the reward is its sigmoid."""

    head: ClassVar[str] = "v_head"

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__(config, quant_config, prefix)
        self.v_head = nn.Sequential(OrderedDict(summary=nn.Linear(config.hidden_size, 1)))


class Qwen2ForSequenceClassification(_HeadedQwen2):
    """A linear head, in place of SGLang's own class (0.5.23), which adds a random bias that no checkpoint has."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__(config, quant_config, prefix)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)


EntryClass = [Qwen2ForProcessRewardModel, Qwen2ForPrmModel, Qwen2ForSequenceClassification]
