"""The text of tokens as bytes, and where a step ends.

Bytes, because a stop string may begin in one token and end inside the next, and a token may hold part of a character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level BPE's tokens (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    characters.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return characters


class TokenBytes:
    """The bytes of every token id of a Hugging Face tokenizer.

    Attributes:
        text: bytes by id; empty for special tokens.
        full: bytes by id, special tokens' written form included, for stop strings that name one.
    """

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
        decode = _piece_decoder(tokenizer, tokens, added)
        self.full: list[bytes] = [b""] * size
        for i, token in enumerate(tokens):
            if token is not None:
                self.full[i] = str(added[i].content).encode() if i in added else decode(i, str(token))
        self.text = [b"" if i in special else piece for i, piece in enumerate(self.full)]

    @classmethod
    def without_text(cls, vocab_size: int) -> TokenBytes:
        """A table of tokens that have no text."""
        table = cls.__new__(cls)
        table.full = table.text = [b""] * vocab_size
        return table

    def join(self, ids: Iterable[int]) -> str:
        """Text of tokens, special ones left out; broken characters become U+FFFD."""
        table = self.text
        return b"".join([table[i] for i in ids]).decode("utf-8", errors="replace")


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


class StopRule:
    """When a step ends: an end token, or a stop string completed by its newest token.

    Attributes:
        maybe: (vocab,) whether a token can end a step; all others need no further look.
    """

    def __init__(self, table: TokenBytes, stops: Sequence[str], eos_ids: frozenset[int]) -> None:
        self._table = table.full
        self._stops = tuple(stop.encode() for stop in stops if stop)
        self._eos_ids = eos_ids
        self._longest = max((len(stop) for stop in self._stops), default=0)
        ends = {stop[-1] for stop in self._stops}
        self.maybe: NDArray[np.bool_] = np.fromiter(
            (i in eos_ids or not ends.isdisjoint(piece) for i, piece in enumerate(self._table)), np.bool_
        )

    def is_eos(self, token: int) -> bool:
        """Whether a token ends the text."""
        return token in self._eos_ids

    def is_stop(self, ids: Sequence[int]) -> bool:
        """Whether the last of a step's tokens completed a stop string."""
        if not self._stops:
            return False
        tail = self._table[ids[-1]]
        needed = len(tail) + self._longest - 1
        at = len(ids) - 2
        while at >= 0 and len(tail) < needed:
            tail = self._table[ids[at]] + tail
            at -= 1
        return any(stop in tail for stop in self._stops)


class StopRules:
    """Rules by number, so that the newest tokens of rows with different rules are looked at in one step.

    Attributes:
        maybe: (num_rules, vocab) `StopRule.maybe` of each.
    """

    def __init__(self, table: TokenBytes, eos_ids: frozenset[int]) -> None:
        """No rules yet; those to come look at the tokens of `table` and end at `eos_ids`."""
        self._table, self._eos_ids = table, eos_ids
        self._numbers: dict[tuple[str, ...], int] = {}
        self._rules: list[StopRule] = []
        self.maybe: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)

    def __getitem__(self, number: int) -> StopRule:
        return self._rules[number]

    def number(self, stops: tuple[str, ...]) -> int:
        """The number of the rule with these stop strings, made on first use."""
        if stops not in self._numbers:
            self._numbers[stops] = len(self._rules)
            self._rules.append(StopRule(self._table, stops, self._eos_ids))
            self.maybe = np.stack([rule.maybe for rule in self._rules])
        return self._numbers[stops]
