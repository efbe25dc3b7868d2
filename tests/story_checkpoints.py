"""Checkpoints over the vocabulary of `story_model`: models that write stories, judge steps, and route them."""

from __future__ import annotations

import os
from pathlib import Path

from markov import EOS, STORY_VOCABULARY, MarkovModel

from search.engines.huggingface.token_bytes import byte_alphabet

POSITIONS = 519
"""Tokens of their context."""

_PIECES = r"\n\n|(?:Add|Take|The answer is) |\\boxed\{\d\}|[\n -~]"
_IMPOSSIBLE = -40.0
_SIZE = 112
"""Of a writer's hidden state: a place for each token, and one more, so that heads divide it."""


def _save_tokenizer(folder: Path) -> None:
    """One that cuts as the fake engine's does."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = {byte: character for character, byte in byte_alphabet().items()}
    words = ["".join(characters[byte] for byte in text.encode()) for text in STORY_VOCABULARY]
    words[STORY_VOCABULARY.index(EOS)] = EOS
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS).save_pretrained(folder)


def _config(hidden_size: int, layers: int, initializer_range: float, **others: int):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(STORY_VOCABULARY),
        hidden_size=hidden_size,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=None,
        eos_token_id=STORY_VOCABULARY.index(EOS),
        pad_token_id=None,
        tie_word_embeddings=False,
        initializer_range=initializer_range,
        **others,
    )


def build_writer(folder: Path, story: MarkovModel, seed: int) -> None:
    """A Llama that writes as a story model does, but for a layer that adds a little of all that stands before."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from transformers import LlamaForCausalLM

    _save_tokenizer(folder)
    torch.manual_seed(seed)
    size = len(STORY_VOCABULARY)
    model = LlamaForCausalLM(_config(_SIZE, 1, 0.01))
    digits = [0.0 if text.isdigit() else _IMPOSSIBLE for text in STORY_VOCABULARY]  # a rating, after a space
    rows = [digits if text == " " else story.logits([token]) for token, text in enumerate(STORY_VOCABULARY)]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size, _SIZE))
        model.lm_head.weight.zero_()
        # What the norm makes of a hidden state that has its token's place alone.
        model.lm_head.weight[:, :size] = torch.tensor(rows).clamp(min=_IMPOSSIBLE).T / _SIZE**0.5
    model.save_pretrained(folder)


def build_judge(folder: Path, head: bool = False) -> None:
    """A Llama of random weights: its labels, or its head's two outputs, move with every token that it reads."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    _save_tokenizer(folder)
    torch.manual_seed(7)
    kind = LlamaForSequenceClassification if head else LlamaForCausalLM
    kind(_config(32, 2, 0.3, num_labels=2)).save_pretrained(folder)
