"""The family's word-level tokenizer, as an ordinary Hugging Face fast tokenizer.

It is a byte-level BPE without merges: a word of the stories (with the space before it, where there is one), a digit, a
sign or the blank line is one token, and any other text falls back to one token a byte. So every text round-trips
exactly, every token has its byte string, and whatever serves a GPT-2 or Llama 3 tokenizer serves this one. A sentence's
first word follows a newline and every other word a space, so a word is the same token wherever it stands.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from search.engines.huggingface.token_bytes import byte_alphabet
from search.mini.wording import NAMES, STEP_SEPARATOR, vocabulary_words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS_TOKEN = "<|end|>"
PAD_TOKEN = "<|pad|>"
_PATTERN = r"\n\n| ?\\boxed\{| ?[A-Za-z]+| ?[0-9]|\n| ?[^\sA-Za-z0-9]|\s"


def word_tokens() -> tuple[str, ...]:
    """The texts of all tokens longer than a byte, in the order of their ids."""
    starts = {"She", "He", "It", "The", "A", "How", *NAMES}
    words = vocabulary_words()
    spaced = [f" {word}" for word in words if word not in starts and len(word) >= 1]
    bare = [word for word in words if word in starts and len(word) > 1]
    digits = [f" {digit}" for digit in range(10)]
    signs = [" +", " -", " =", " \\boxed{"]
    return (STEP_SEPARATOR, *digits, *signs, *bare, *spaced)


CHAT_TEMPLATE = (
    "{%- set words = messages[-1]['content'].split() -%}"
    "{%- for word in words -%}"
    "{{- word -}}"
    "{%- if not loop.last -%}{{- '\\n' if word[-1] in '.?!' else ' ' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- '\\n\\n' -}}"
)
"""`format_prompt` of the last message, for servers and searches that know models by their chat template alone."""


@lru_cache(maxsize=1)
def build_tokenizer() -> Tokenizer:
    """Build the tokenizer; the same ids on every machine."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = {byte: character for character, byte in byte_alphabet().items()}
    vocab = {character: byte for byte, character in sorted(alphabet.items())}
    for text in word_tokens():
        vocab["".join(alphabet[byte] for byte in text.encode())] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (EOS_TOKEN, PAD_TOKEN)])
    return tokenizer


def token_id(text: str) -> int:
    """The id of the one token that a text is.

    Raises:
        ValueError: if the text is not exactly one token.
    """
    ids = encode(text)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens, not one")
    return ids[0]


def encode(text: str) -> list[int]:
    """The ids of a text; no token is added before or after it."""
    ids: list[int] = build_tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def encode_batch(texts: list[str]) -> list[list[int]]:
    """The ids of many texts."""
    return [encoding.ids for encoding in build_tokenizer().encode_batch(texts, add_special_tokens=False)]


def decode(ids: list[int]) -> str:
    """The text of ids, special tokens left out."""
    text: str = build_tokenizer().decode(ids, skip_special_tokens=True)
    return text


def vocab_size() -> int:
    """Number of tokens, special ones included."""
    size: int = build_tokenizer().get_vocab_size(with_added_tokens=True)
    return size


def save_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into a folder."""
    build_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS_TOKEN,
        "pad_token": PAD_TOKEN,
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
