"""The bytes of a Hugging Face tokenizer's tokens, by the kind of its decoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from search.engines.stops import TokenTable
from search.steps import THOUGHT_TAGS

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level BPE's tokens (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    characters.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return characters


class TokenBytes(TokenTable):
    """The bytes of every token id of a Hugging Face tokenizer."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        """Build the table.

        Args:
            tokenizer: a transformers tokenizer.
            vocab_size: the model's number of ids; those the tokenizer does not know have no text.
        """
        size = max(vocab_size, len(tokenizer))
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        added = {int(i): token for i, token in tokenizer.added_tokens_decoder.items()}
        special = set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        # Tags of thoughts are text, whatever the tokenizer calls them: without them a thought would pass for an answer.
        tags = {*THOUGHT_TAGS, *THOUGHT_TAGS.values()}
        special -= {i for i, token in added.items() if str(token.content) in tags}
        decode = _piece_decoder(tokenizer, tokens, added)
        full = [b""] * size
        for i, token in enumerate(tokens):
            if token is not None:
                full[i] = str(added[i].content).encode() if i in added else decode(i, str(token))
        super().__init__([b"" if i in special else piece for i, piece in enumerate(full)], full)


def _piece_decoder(tokenizer: Any, tokens: Sequence[str | None], added: dict[int, Any]) -> Any:
    """A function from (id, token) to bytes, by the kind of the tokenizer."""
    kinds = _decoder_kinds(tokenizer)
    if "ByteLevel" in kinds:
        alphabet = byte_alphabet()

        def byte_level(_: int, token: str) -> bytes:
            if all(c in alphabet for c in token):
                return bytes(alphabet[c] for c in token)
            return token.encode()

        return byte_level
    if kinds & {"Metaspace", "ByteFallback"} or any(t is not None and _BYTE_TOKEN.fullmatch(t) for t in tokens):

        def sentence_piece(_: int, token: str) -> bytes:
            found = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(found.group(1), 16)]) if found else token.replace("▁", " ").encode()

        return sentence_piece

    # Anything else (word-level, WordPiece): what a token adds after another one.
    anchor = next(i for i, t in enumerate(tokens) if t is not None and i not in added)
    before = tokenizer.decode([anchor], clean_up_tokenization_spaces=False)

    def by_difference(i: int, token: str) -> bytes:
        text = tokenizer.decode([anchor, i], clean_up_tokenization_spaces=False)
        return str(text[len(before) :] if text.startswith(before) else token).encode()

    return by_difference


def _decoder_kinds(tokenizer: Any) -> set[str]:
    """Names of the decoder's parts; empty for a tokenizer without a Rust backend."""
    import json

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return set()
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    return {decoder.get("type", "")} | {part.get("type", "") for part in decoder.get("decoders", [])}
