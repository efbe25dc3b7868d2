"""A Hugging Face tokenizer behind the project's own seam."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from search.engines.stops import TokenTable
from search.errors import ConfigError


class HFTokenizer:
    """Text to ids and back as one model sees it.

    Decoding goes token by token through their bytes, so that the texts of a path's steps, put together, are the text
    of the whole path. (SentencePiece's own decoding drops a text's first space; this one keeps it.)

    Attributes:
        raw: the library's own.
        table: the bytes of its tokens.
        eos_ids: ids that end a text: the generation configuration's and the tokenizer's.
    """

    def __init__(self, tokenizer: Any, table: TokenTable, eos_ids: frozenset[int]) -> None:
        self.raw = tokenizer
        self.table = table
        self.eos_ids = eos_ids

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the tokenizer's content: equal for two models that give every text the same ids."""
        backend = getattr(self.raw, "backend_tokenizer", None)
        if backend is None:
            content: object = [type(self.raw).__name__, sorted(self.raw.get_vocab().items())]
        else:
            # Padding and truncation are settings of one use, not of the tokenizer.
            content = {**json.loads(backend.to_str()), "padding": None, "truncation": None}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def start(self) -> str:
        """The begin-of-text token, where the tokenizer puts one before a text by itself; else empty."""
        bos = getattr(self.raw, "bos_token", None)
        if not bos:
            return ""
        begins = list(self.raw("a", add_special_tokens=True)["input_ids"])[:1] == [self.raw.bos_token_id]
        return str(bos) if begins else ""

    @cached_property
    def controls(self) -> frozenset[str]:
        """The special tokens."""
        added = {token.content for token in self.raw.added_tokens_decoder.values() if token.special}
        return frozenset(text for text in {*added, *map(str, self.raw.all_special_tokens)} if len(text) > 1)

    @cached_property
    def tags(self) -> frozenset[str]:
        """Added tokens in angle brackets that the chat template writes; others, e.g. `<b>`, are ordinary text."""
        template = str(getattr(self.raw, "chat_template", None) or "")
        added = {token.content for token in self.raw.added_tokens_decoder.values()} - self.controls
        return frozenset(text for text in added if re.fullmatch(r"<.+>", text) and text in template)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text`; nothing is added, special tokens written out in `text` are recognised."""
        # Not through `raw.__call__`: that warns about texts longer than the context, which the engine refuses itself.
        backend = getattr(self.raw, "backend_tokenizer", None)
        if backend is not None:
            return tuple(backend.encode(text, add_special_tokens=False).ids)
        return tuple(self.raw.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""
        return self.table.join(ids)

    def chat(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object] = {}) -> str | None:
        """The prompt for a conversation, ready for the assistant's turn; None without a chat template."""
        templates = getattr(self.raw, "chat_template", None)
        if not templates:
            return None
        if isinstance(templates, Mapping) and "default" not in templates:
            raise ConfigError(
                f"the model has several chat templates ({', '.join(templates)}) and none of them is the default: "
                "name a prompt format other than chat, or keep one template"
            )
        from jinja2 import TemplateError

        self._check_options(options)
        try:
            text: str = self.raw.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True, **options
            )
        except TemplateError as error:
            raise ConfigError(f"the model's chat template refuses this conversation: {error}") from None
        except Exception as error:  # whatever an expression may raise
            given = ", ".join(f"{name}={value}" for name, value in options.items()) or "this conversation"
            raise ConfigError(f"the model's chat template refuses {given}: {error or type(error).__name__}") from None
        return text

    def _check_options(self, options: Mapping[str, object]) -> None:
        """Refuse what the template would pass over in silence, and what is not the template's to decide."""
        if not options:
            return
        taken = {*inspect.signature(self.raw.apply_chat_template).parameters, "messages"}
        template = self.raw.get_chat_template()
        for name in options:
            if name in taken or not re.search(rf"\b{re.escape(name)}\b", template):
                raise ConfigError(f"chat option {name!r}: the model's chat template reads no such option")


def end_ids(values: Iterable[object]) -> frozenset[int]:
    """The ids that end a text, of what configurations and tokenizers say: each one id, several, or None."""
    ids: set[int] = set()
    for value in values:
        if isinstance(value, int):
            ids.add(value)
        elif isinstance(value, Iterable):
            ids.update(int(one) for one in value)
    return frozenset(ids)
