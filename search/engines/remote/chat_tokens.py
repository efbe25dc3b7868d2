"""Conversations as ids, for models without a tokenizer: the bytes of their text, and what parts their turns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from search.engines.stops import TokenTable
from search.errors import ConfigError

END = 256
"""The end of a text."""

WHOLE = "whole solutions"
"""What a server writes that does not continue an assistant's turn."""

_ROLES = ("system", "user", "assistant")
_CONTROLS = {"<|end|>": END, **{f"<|{role}|>": END + 1 + place for place, role in enumerate(_ROLES)}}
_ROLE_OF = {END + 1 + place: role for place, role in enumerate(_ROLES)}
_PATTERN = re.compile("|".join(map(re.escape, _CONTROLS)))


class ChatTokenizer:
    """Bytes for tokens; implements `search.protocols.Tokenizer`.

    Attributes:
        counts_tokens: it does not: how many tokens a text has, only its model knows.
    """

    counts_tokens = False
    fingerprint = "chat"
    start = ""
    eos_ids = frozenset({END})
    controls = frozenset(_CONTROLS)
    tags = frozenset[str]()
    table = TokenTable(
        [*(bytes([one]) for one in range(256)), *(b"" for _ in _CONTROLS)],
        [*(bytes([one]) for one in range(256)), *(text.encode() for text in _CONTROLS)],
    )

    def encode(self, text: str) -> tuple[int, ...]:
        """The text's bytes; what tells turns apart is recognised."""
        ids: list[int] = []
        end = 0
        for found in _PATTERN.finditer(text):
            ids += text[end : found.start()].encode()
            ids.append(_CONTROLS[found.group()])
            end = found.end()
        return (*ids, *text[end:].encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; broken characters become U+FFFD."""
        return self.table.join(ids)

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object] = {}) -> str | None:
        """A conversation, ready for the assistant's turn.

        Raises:
            ConfigError: options of a chat template were given, which is the server's.
        """
        for name in options:
            raise ConfigError(f"chat option {name!r}: a chat server's template is its own and takes none from here")
        return "".join(f"<|{turn['role']}|>{turn['content']}" for turn in messages) + "<|assistant|>"


def conversation(ids: Sequence[int]) -> list[dict[str, str]] | None:
    """The messages that ids of `ChatTokenizer` say, the assistant's last one only where it has begun; None for none."""
    turns: list[tuple[str, bytearray]] = []
    for token in ids:
        if token in _ROLE_OF:
            turns.append((_ROLE_OF[token], bytearray()))
        elif not turns:
            return None
        elif token != END:
            turns[-1][1].append(token)
    if turns and turns[-1][0] == "assistant" and not turns[-1][1]:
        turns.pop()
    return [{"role": role, "content": said.decode("utf-8", "replace")} for role, said in turns] or None
