"""The tiny checkpoint that the contract of engines is tested on, wherever it is served."""

from __future__ import annotations

import os
from pathlib import Path

from markov import EOS

CONTEXT = 96
"""Tokens of the context that every engine of the contract has."""

SGLANG_POSITIONS = CONTEXT + 7
"""Positions of the checkpoint where SGLang serves it: of its context it keeps so many free."""


def build(folder: Path, positions: int = CONTEXT) -> None:
    """A Llama of random weights with a vocabulary of 22 words, so that each ends a step or a text soon."""
    # Threads that spin while they wait cost more than a tiny model does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [EOS, "ĊĊ", "How", "Ġmany", "?", *(f"Ġw{number}" for number in range(15)), "Ġx", "y"]
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n\n| ?\w+|[^\w\s]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
